/**
 * Steers a mirror in copy-mode `auto`: ten times a second, or more often where guests have little patience, it measures,
 * asks the ConvergenceController what to do, does it, and tells of each new phase and copy mode. A target that falls silent is never a reason for a guest to wait for long.
 */
import { alignDown, KiB } from '../../base/bytes.js';
import { MAX_DEBT_MS, type WriteGate } from '../../filter/write-gate.js';
import type { ActiveWrites } from './active-writes.js';
import { ConvergenceController, MAX_GUEST_LATENCY_MS, MAX_OPERATIONS, TICK_MS, type ControllerOptions, type Decision, type MirrorPhase } from './controller.js';
import type { Copier, CopierLimits } from './copier.js';
import type { CopyMode, MirrorState } from './state.js';

/** How a mirror in copy-mode `auto` is doing. Bytes, bytes per second, milliseconds. */
export interface Convergence {
  readonly phase: MirrorPhase;
  readonly copyMode: CopyMode;
  readonly dirty: number;
  readonly copyRate: number;
  readonly dirtyRate: number;
  /** What guests may make dirty per second; null = as they like. */
  readonly guestRate: number | null;
  /** Until it is ready, as it looks now. */
  readonly etaMs: number | null;
  /** Until it has to be ready; negative where that is over. */
  readonly deadlineMs: number | null;
  /** Whether it will become ready; null where that is not known yet. */
  readonly converges: boolean | null;
}

export interface PilotParts {
  readonly state: MirrorState;
  readonly copier: Copier;
  readonly active: ActiveWrites;
  readonly gate: WriteGate;
  /** Takes effect at once. */
  readonly setCopyMode: (mode: CopyMode) => void;
  readonly onPhase: (now: Convergence) => void;
}

/** Of the event BLOCK_JOB_PHASE. */
export function phaseData(jobId: string, { phase, copyMode, dirty, copyRate, dirtyRate, guestRate, etaMs, deadlineMs, converges }: Convergence): Readonly<Record<string, string | number | boolean>> {
  return {
    device: jobId, phase, 'copy-mode': copyMode, dirty, 'copy-rate': copyRate, 'dirty-rate': dirtyRate,
    ...guestRate === null ? {} : { 'guest-rate': guestRate }, ...etaMs === null ? {} : { eta: etaMs },
    ...deadlineMs === null ? {} : { deadline: deadlineMs }, ...converges === null ? {} : { converges },
  };
}

/** A target that is silent for this part of the guests' patience gets only small requests, and no guest waits at the gate for it. */
const SUSPECT = 0.25;
/** So long at most a write keeps the next one waiting where guests are slowed down, as a part of the guests' patience. */
const WAIT = 0.75;
/** What the background may have in flight at the target, as a part of the guests' patience. */
const IN_FLIGHT = 0.25;
/** Guests of less patience are looked after more often, down to this. */
const LEAST_TICK_MS = 5;
/** How large an operation is before it is known what the target takes. */
const FIRST_BYTES = 256 * KiB;

export class MirrorPilot {
  readonly #parts: PilotParts;
  readonly #options: ControllerOptions;
  readonly #patienceMs: number;
  readonly #tickMs: number;
  readonly #full: CopierLimits;
  #controller: ConvergenceController | null = null;
  #decision: Decision | null = null;
  #running: AbortController | null = null;
  #pausedMs = 0;
  #lastMs = 0;

  constructor(parts: PilotParts, options: ControllerOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#patienceMs = options.maxGuestLatencyMs ?? MAX_GUEST_LATENCY_MS;
    this.#tickMs = Math.min(TICK_MS, Math.max(LEAST_TICK_MS, this.#patienceMs / 5));
    this.#full = { ...parts.copier.limits };
  }

  get running(): boolean { return this.#running !== null; }

  /** Null before the first look. */
  get convergence(): Convergence | null {
    const decision = this.#decision;
    if (decision === null) return null;
    const { phase, copyMode, copyRate, dirtyRate, guestRate, etaMs, deadlineMs } = decision;
    return {
      phase, copyMode, dirty: this.#dirty, copyRate: Math.round(copyRate), dirtyRate: Math.round(dirtyRate), guestRate: guestRate === null ? null : Math.round(guestRate),
      etaMs: etaMs === null ? null : Math.round(etaMs), deadlineMs: deadlineMs === null ? null : Math.round(deadlineMs - this.#nowMs), converges: this.#converges(decision),
    };
  }

  start(): void {
    if (this.running) return;
    const running = new AbortController();
    this.#running = running;
    this.#pausedMs = 0;
    this.#lastMs = this.#clock.monotonicMs();
    this.#controller = new ConvergenceController(this.#options, this.#nowMs);
    void this.#run(running.signal);
  }

  /** Whoever waits for its sake goes on. The copy mode stays as it is. */
  stop(): void {
    this.#running?.abort();
    this.#running = null;
    this.#decision = null;
    this.#parts.gate.bytesPerSecond = Infinity;
    Object.assign(this.#parts.copier.limits, this.#full);
  }

  get #clock() { return this.#parts.state.parts.blockJob.clock; }
  /** Time in which the job is paused does not count. */
  get #nowMs(): number { return this.#clock.monotonicMs() - this.#pausedMs; }
  /** Synchronous writes under way are no work that is left. */
  get #dirty(): number { return this.#parts.state.bitmap.count + this.#parts.state.backgroundBytes; }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#look();
      await this.#clock.sleep(this.#tickMs, signal);
    }
  }

  #look(): void {
    const { gate, state } = this.#parts;
    const now = this.#clock.monotonicMs();
    if (state.parts.blockJob.job.paused) {
      this.#pausedMs += now - this.#lastMs;
      gate.bytesPerSecond = Infinity;
    } else {
      this.#steer();
    }
    this.#lastMs = now;
  }

  #steer(): void {
    const { state, active, onPhase } = this.#parts;
    const silentMs = state.parts.target.silentMs;
    const waitedMs = active.oldestMs;
    const before = this.#decision;
    const decision = this.#controller!.tick({
      nowMs: this.#nowMs, dirty: this.#dirty, written: state.written, dirtied: state.dirtied,
      guestLatencyMs: Math.max(active.takeSlowestMs(), waitedMs), targetSilentMs: silentMs,
    });
    this.#decision = decision;
    this.#obey(decision, silentMs);
    const late = waitedMs + 2 * this.#tickMs > this.#patienceMs;
    if (silentMs > 0 && (decision.dead || (late && silentMs > SUSPECT * this.#patienceMs))) active.letGo();
    if (decision.phase !== before?.phase || decision.copyMode !== before.copyMode) onPhase(this.convergence!);
  }

  #obey({ copyMode, guestRate, operations, copyRate }: Decision, silentMs: number): void {
    const { state, copier, gate, setCopyMode } = this.#parts;
    if (copyMode !== state.copyMode) {
      setCopyMode(copyMode);
      // what has waited for its turn was to cost something else
      gate.bytesPerSecond = Infinity;
    }
    const suspect = silentMs > SUSPECT * this.#patienceMs;
    // where the job's own speed limit is what makes it slow, guests are not
    const free = suspect || guestRate === null || (copyMode === 'write-blocking' && state.parts.blockJob.speed > 0);
    gate.bytesPerSecond = free ? Infinity : Math.max(1, guestRate);
    // in `sync` the guarantee that it ends comes first
    gate.maxDebtMs = copyMode === 'background' ? Math.min(MAX_DEBT_MS, this.#patienceMs * WAIT) : MAX_DEBT_MS;
    const most = Math.max(1, Math.floor(this.#full.operations * operations / MAX_OPERATIONS));
    // what is once under way cannot be taken back: begin gently
    const bytes = copyRate === 0 ? (suspect ? 0 : FIRST_BYTES) : copyRate * this.#patienceMs / 1000 * IN_FLIGHT / most;
    copier.limits.operations = most;
    copier.limits.operationBytes = Math.max(state.granularity, Math.min(this.#full.operationBytes, alignDown(bytes, state.granularity)));
  }

  #converges({ phase, copyRate, dirtyRate, dead }: Decision): boolean | null {
    if (dead) return false;
    if (phase === 'ready' && this.#dirty === 0) return true;
    if (copyRate === 0) return null;
    if (dirtyRate < copyRate || (this.#options.minGuestRate ?? 0) < copyRate) return true;
    // how much they write once they wait for it will be seen then
    return phase === 'sync' ? false : null;
  }
}
