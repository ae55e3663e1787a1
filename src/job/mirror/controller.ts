/**
 * Decides, ten times a second, what a mirror in copy-mode `auto` does next, so that it becomes ready by its deadline with
 * as little effect on the guest as that allows. Pure: figures in, decision out; the mirror measures and obeys.
 *
 * - `bulk`: copy in the background; the guest notices nothing, unless it makes so much dirty at once that no time is left for it.
 * - `converge`: what the guest may make dirty per second is limited to what the target takes beyond the needed progress.
 * - `sync`: guest writes go to the target as well (write-blocking), so nothing becomes dirty any more.
 * - `ready`: nothing is dirty. Writes stay synchronous, so that it remains so.
 */

export type MirrorPhase = 'bulk' | 'converge' | 'sync' | 'ready';

/** The time between two decisions. */
export const TICK_MS = 100;

export interface ControllerOptions {
  /** Ready so many milliseconds after the start. Default: twice the first estimate and 10 s. */
  readonly deadlineMs?: number | undefined;
  /** So long at most a guest waits for a target that has fallen silent. Default 1 s. */
  readonly maxGuestLatencyMs?: number | undefined;
  /** Dirty bytes below which the guest may be slowed down without need. Default: two seconds of copying. */
  readonly throttleBelow?: number | undefined;
  /** Bytes per second that a guest may always make dirty. Default 0. */
  readonly minGuestRate?: number | undefined;
}

/** What the mirror has counted since it began; all totals only grow, but for `dirty`. */
export interface ControllerSample {
  readonly nowMs: number;
  /** Bytes that differ, or are on their way. */
  readonly dirty: number;
  /** Bytes that the target has taken, from the background and from synchronous writes. */
  readonly written: number;
  /** Clean bytes that the guest has made dirty; in write-blocking mode those that it has written through. */
  readonly dirtied: number;
  /** Slowest guest write since the last sample. */
  readonly guestLatencyMs: number;
  /** How long the target has ended no request, though it was asked; 0 where it is not. */
  readonly targetSilentMs: number;
}

export interface Decision {
  readonly phase: MirrorPhase;
  readonly copyMode: 'background' | 'write-blocking';
  /** Bytes per second that the guest may make dirty (write, in write-blocking mode); null = as it likes. */
  readonly guestRate: number | null;
  /** How many background copies may be in flight; in `sync` they give way to the guest. */
  readonly operations: number;
  /** The target is silent, or was while guests waited for it and has not shown since that it lives. */
  readonly dead: boolean;
  /** Smoothed bytes per second, as far as known. */
  readonly copyRate: number;
  readonly dirtyRate: number;
  /** Milliseconds until ready, as it looks now; null where nothing is known, or it will not be without help. */
  readonly etaMs: number | null;
  /** When it must be ready, in the clock of the samples. */
  readonly deadlineMs: number | null;
}

export const MAX_OPERATIONS = 16;
export const MAX_GUEST_LATENCY_MS = 1000;
/** Rates follow changes within about this time. */
const SMOOTHING_MS = 1500;
/** No decision before this much is known. */
const FIRST_ESTIMATE_MS = 1000;
const DEADLINE_SLACK_MS = 10_000;
/** Below this time's worth of copying, the last step to zero is made in `sync`. */
const LAST_STEP_MS = 250;
/** The part of the dirty bytes that must vanish in each second of `converge`. */
const SHRINK_PER_SECOND = 0.5;
/** Time kept back for what the estimate does not see. */
const RESERVE = 0.85;
/** `sync` begins while the target could still do so many times the work: the guest's writes need their part of it. */
const SYNC_SHARE = 1.3;
/** In `bulk`, a guest may use up the spare time until the deadline no faster than in about this time. */
const SURGE_MS = 500;
/** The part of the target that guest writes have in `sync`, however late it is. */
const LEAST_SHARE = 0.1;
/** A target is dead that is silent for this part of the longest wait: the decision takes its time as well. */
const DEAD_AFTER = 0.6;
/** A calmer guest than this part of the copy rate needs no help. */
const CALM = 0.3;

export class ConvergenceController {
  readonly #options: ControllerOptions;
  readonly #startMs: number;
  #last: ControllerSample | null = null;
  #phase: MirrorPhase = 'bulk';
  #copyRate = 0;
  #dirtyRate = 0;
  #deadlineMs: number | null;
  #operations = MAX_OPERATIONS;
  #phaseSinceMs: number;
  /** The target died in `sync`: not tried again before it has done so much. */
  #writtenAtDeath: number | null = null;

  constructor(options: ControllerOptions, startMs: number) {
    this.#options = options;
    this.#startMs = startMs;
    this.#phaseSinceMs = startMs;
    this.#deadlineMs = options.deadlineMs === undefined ? null : startMs + options.deadlineMs;
  }

  get phase(): MirrorPhase { return this.#phase; }

  /** What to do until the next sample. */
  tick(sample: ControllerSample): Decision {
    this.#measure(sample);
    this.#setDeadline(sample);
    const next = this.#nextPhase(sample);
    if (next !== this.#phase) {
      this.#phase = next;
      this.#phaseSinceMs = sample.nowMs;
      this.#operations = MAX_OPERATIONS;
    }
    this.#makeRoom(sample);
    this.#last = sample;
    return this.#decision(sample);
  }

  #measure(sample: ControllerSample): void {
    const last = this.#last;
    if (last === null) return;
    const elapsed = Math.max(1, sample.nowMs - last.nowMs);
    const smooth = (before: number, bytes: number): number => {
      const known = sample.nowMs - this.#startMs <= SMOOTHING_MS ? elapsed / (sample.nowMs - this.#startMs) : 1 - Math.exp(-elapsed / SMOOTHING_MS);
      return before + (bytes * 1000 / elapsed - before) * Math.min(1, known);
    };
    this.#dirtyRate = smooth(this.#dirtyRate, sample.dirtied - last.dirtied);
    const rate = smooth(this.#copyRate, sample.written - last.written);
    // a target that has nothing to do, or is kept from it, tells nothing of how fast it is
    const busy = last.dirty > 0 && sample.dirty > 0 && this.#operations === MAX_OPERATIONS;
    if (busy || rate > this.#copyRate) this.#copyRate = rate;
  }

  #setDeadline(sample: ControllerSample): void {
    if (this.#deadlineMs !== null || this.#copyRate === 0 || sample.nowMs - this.#startMs < FIRST_ESTIMATE_MS) return;
    this.#deadlineMs = sample.nowMs + 2 * this.#workMs(sample.dirty) + DEADLINE_SLACK_MS;
  }

  /** How long the target needs for so many bytes. */
  #workMs(bytes: number): number {
    return this.#copyRate === 0 ? Infinity : bytes * 1000 / this.#copyRate;
  }

  #nextPhase(sample: ControllerSample): MirrorPhase {
    const { dirty, nowMs } = sample;
    if (this.#isDead(sample)) {
      if (this.#phase === 'sync' || this.#phase === 'ready') this.#writtenAtDeath = sample.written;
      return this.#phase === 'ready' ? 'ready' : 'bulk';
    }
    const alive = this.#syncAllowed(sample);
    if (dirty === 0) return 'ready';
    if (this.#phase === 'ready') return alive ? 'ready' : 'bulk';
    if (this.#deadlineMs === null || this.#copyRate === 0) return this.#phase;
    const left = (this.#deadlineMs - nowMs) * RESERVE;
    const work = this.#workMs(dirty);
    if (alive && (work <= LAST_STEP_MS || SYNC_SHARE * work > left)) return 'sync';
    if (this.#phase === 'sync') return this.#isCalm(left, work, nowMs) ? 'converge' : 'sync';
    return this.#isLate(sample, left, work) ? 'converge' : this.#phase === 'converge' && !this.#isCalm(left, work, nowMs) ? 'converge' : 'bulk';
  }

  /** Without help it would be ready too late, or it is near the end and does not get there. */
  #isLate({ dirty }: ControllerSample, left: number, work: number): boolean {
    const net = this.#copyRate - this.#dirtyRate;
    const alone = net <= 0 ? Infinity : dirty * 1000 / net;
    const throttleBelow = this.#options.throttleBelow ?? 2 * this.#copyRate;
    return alone > left || (dirty <= throttleBelow && alone > 2 * work);
  }

  #isCalm(left: number, work: number, nowMs: number): boolean {
    return nowMs - this.#phaseSinceMs > 3000 && this.#dirtyRate < CALM * this.#copyRate && 2 * work < left;
  }

  #isDead({ targetSilentMs }: ControllerSample): boolean {
    return targetSilentMs > DEAD_AFTER * (this.#options.maxGuestLatencyMs ?? MAX_GUEST_LATENCY_MS);
  }

  /** A target that died while guests waited for it must first have shown that it lives: by some work, or by all that there was. */
  #syncAllowed({ dirty, written }: ControllerSample): boolean {
    if (this.#writtenAtDeath !== null && (dirty === 0 || written - this.#writtenAtDeath > this.#copyRate)) this.#writtenAtDeath = null;
    return this.#writtenAtDeath === null;
  }

  /** In `sync`, background copies give way where guest writes take long. */
  #makeRoom({ guestLatencyMs }: ControllerSample): void {
    if (this.#phase !== 'sync') {
      this.#operations = MAX_OPERATIONS;
      return;
    }
    const budget = (this.#options.maxGuestLatencyMs ?? MAX_GUEST_LATENCY_MS) / 2;
    this.#operations = guestLatencyMs > budget ? Math.max(1, Math.floor(this.#operations / 2)) : Math.min(MAX_OPERATIONS, this.#operations + 1);
  }

  #decision(sample: ControllerSample): Decision {
    const demoted = this.#writtenAtDeath !== null || this.#isDead(sample);
    return {
      phase: this.#phase,
      copyMode: (this.#phase === 'sync' || this.#phase === 'ready') && !demoted ? 'write-blocking' : 'background',
      guestRate: demoted ? null : this.#guestRate(sample),
      operations: this.#operations,
      dead: demoted,
      copyRate: this.#copyRate,
      dirtyRate: this.#dirtyRate,
      etaMs: this.#eta(sample),
      deadlineMs: this.#deadlineMs,
    };
  }

  /** What the target takes, less the progress that is needed; in `bulk` only what would undo in a moment what time is left for. */
  #guestRate({ dirty, nowMs }: ControllerSample): number | null {
    if (this.#phase === 'ready' || this.#deadlineMs === null || this.#copyRate === 0) return null;
    const left = (this.#deadlineMs - nowMs) * RESERVE;
    const least = this.#options.minGuestRate ?? 0;
    if (this.#phase === 'bulk') return Math.max(least, this.#copyRate, (left / 1000 * this.#copyRate / SYNC_SHARE - dirty) * 1000 / SURGE_MS);
    const forDeadline = left <= 0 ? Infinity : dirty * 1000 / left;
    if (this.#phase === 'sync') return Math.max(least, this.#copyRate - Math.min(forDeadline, this.#copyRate * (1 - LEAST_SHARE)));
    return Math.max(least, this.#copyRate - Math.max(forDeadline, dirty * SHRINK_PER_SECOND), this.#copyRate / 100);
  }

  #eta({ dirty, nowMs }: ControllerSample): number | null {
    if (dirty === 0) return 0;
    if (this.#copyRate === 0) return null;
    const net = this.#copyRate - Math.min(this.#dirtyRate, this.#phase === 'sync' ? this.#copyRate / 2 : Infinity);
    const alone = net <= 0 ? Infinity : dirty * 1000 / net;
    const byDeadline = this.#deadlineMs === null || this.#deadlineMs <= nowMs ? Infinity : this.#deadlineMs - nowMs;
    const eta = Math.min(alone, byDeadline);
    return eta === Infinity ? null : eta;
  }
}
