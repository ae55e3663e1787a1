/**
 * Steers a mirror that QEMU runs as MirrorPilot steers ours: the same controller, fed with what QMP tells, and obeyed with what
 * QMP can do. Guests are slowed down by limits on their device. Write-blocking comes with `block-job-change` (QEMU 8.2), and
 * there is no way back from it. Where it is not, a machine is stopped for the last step: QEMU drains the disk before it ends a
 * mirror, which lets through what waits at the limits, and that is dirty again. Without a machine, all is written through
 * from the beginning.
 */
import type { Clock } from '../../base/clock.js';
import type { QmpClient } from '../../qmp/client.js';
import type { JsonObject } from '../../qmp/wire.js';
import { ConvergenceController, MAX_GUEST_LATENCY_MS, type ControllerOptions, type Decision, type MirrorPhase } from './controller.js';
import type { Convergence } from './pilot.js';
import type { CopyMode } from './state.js';
import type { QemuThrottle } from './qemu-throttle.js';

/** How what guests write ceases to be dirty: QEMU changes to write-blocking, the machine is stopped at the end, or the job began write-blocking. */
export type QemuWay = 'change' | 'stop' | 'through';

export interface QemuSteeringParts {
  readonly qmp: QmpClient;
  readonly jobId: string;
  /** Of who writes to the disk; null: nobody can be slowed down. */
  readonly throttle: QemuThrottle | null;
  readonly way: QemuWay;
  readonly clock: Clock;
  readonly onPhase: (now: Convergence) => void;
}

/** In place of write-blocking, guests get this part of what the target takes until the machine is stopped. */
const SHARE_BEFORE_STOP = 0.1;
/** The machine stands still for no longer than this part of what guests may wait, as it looks before. */
const STOP_SHARE = 0.5;
/** So long little is left before the machine is stopped: where guests are idle it ends by itself. */
const LITTLE_FOR_MS = 500;
/** Figures follow changes within about this time. */
const SMOOTHING_MS = 1000;

export class QemuSteering {
  readonly #parts: QemuSteeringParts;
  readonly #options: ControllerOptions;
  readonly #controller: ConvergenceController;
  #decision: Decision | null = null;
  #dirty = 0;
  #copyMode: CopyMode;
  #littleSinceMs = Infinity;
  #startTotal: number | null = null;
  #last: { readonly ms: number; readonly total: number; readonly written: number } | null = null;
  /** Bytes that guests write for each byte that becomes dirty: small writes make whole granules dirty. */
  #guestShare = 1;

  constructor(parts: QemuSteeringParts, options: ControllerOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#copyMode = parts.way === 'through' ? 'write-blocking' : 'background';
    this.#controller = new ConvergenceController(options, parts.clock.monotonicMs());
  }

  get convergence(): Convergence | null {
    const decision = this.#decision;
    if (decision === null) return null;
    const { phase, copyRate, dirtyRate, etaMs, deadlineMs } = decision;
    const rate = this.#rate(decision);
    return {
      phase: this.#phase(phase), copyMode: this.#copyMode, dirty: this.#dirty, copyRate: Math.round(copyRate), dirtyRate: Math.round(dirtyRate),
      guestRate: rate === null || this.#parts.throttle === null ? null : Math.round(rate), etaMs: etaMs === null ? null : Math.round(etaMs),
      deadlineMs: deadlineMs === null ? null : Math.round(deadlineMs - this.#parts.clock.monotonicMs()), converges: this.#converges(decision),
    };
  }

  /** What `query-block-jobs` tells of the job now, ten times a second, and what guests have written so far where that is known. */
  async look(job: JsonObject, guestBytes: number | null): Promise<void> {
    const { clock, onPhase } = this.#parts;
    const now = clock.monotonicMs();
    const [offset, total] = [Number(job['offset']), Number(job['len'])];
    if (total === 0) return;
    this.#startTotal ??= total;
    this.#dirty = total - offset;
    if (guestBytes !== null) this.#measure(now, total, guestBytes);
    const before = this.#decision;
    const decision = this.#controller.tick({ nowMs: now, dirty: this.#dirty, written: offset, dirtied: total - this.#startTotal, guestLatencyMs: 0, targetSilentMs: 0 });
    this.#decision = decision;
    await this.#obey(decision);
    if (before === null || this.#phase(before.phase) !== this.#phase(decision.phase)) onPhase(this.convergence!);
  }

  /** The rest is so little that the machine may stand still for it, and does not vanish by itself. */
  shouldStop(): boolean {
    const now = this.#parts.clock.monotonicMs();
    this.#littleSinceMs = this.#isLittle() ? Math.min(this.#littleSinceMs, now) : Infinity;
    return now - this.#littleSinceMs >= LITTLE_FOR_MS;
  }

  #isLittle(): boolean {
    const decision = this.#decision;
    if (this.#parts.way !== 'stop' || decision === null || decision.copyMode === 'background') return false;
    const patienceMs = this.#options.maxGuestLatencyMs ?? MAX_GUEST_LATENCY_MS;
    return this.#dirty * 1000 <= decision.copyRate * patienceMs * STOP_SHARE;
  }

  async #obey(decision: Decision): Promise<void> {
    const { qmp, jobId, way, throttle } = this.#parts;
    if (way === 'change' && decision.copyMode === 'write-blocking' && this.#copyMode === 'background') {
      await qmp.execute('block-job-change', { id: jobId, type: 'mirror', 'copy-mode': 'write-blocking' });
      this.#copyMode = 'write-blocking';
    }
    const rate = this.#rate(decision);
    // what is written through costs the target what was written, and else all that becomes dirty
    await throttle?.set(rate === null || this.#copyMode === 'write-blocking' ? rate : Math.max(this.#options.minGuestRate ?? 0, rate * this.#guestShare));
  }

  /** What guests may make dirty per second. */
  #rate({ guestRate, copyMode, copyRate }: Decision): number | null {
    if (copyRate === 0) return null; // nothing is known yet
    if (copyMode === 'background' || this.#copyMode === 'write-blocking') return guestRate;
    return Math.max(this.#options.minGuestRate ?? 0, Math.min(guestRate ?? Infinity, copyRate * SHARE_BEFORE_STOP));
  }

  /** A moment without dirty bytes is not the end: QEMU says when the mirror is ready. */
  #phase(phase: MirrorPhase): MirrorPhase {
    return phase === 'ready' ? 'sync' : phase;
  }

  #converges({ copyRate, dirtyRate }: Decision): boolean | null {
    if (copyRate === 0) return null;
    return dirtyRate < copyRate || this.#copyMode === 'write-blocking' || (this.#parts.throttle !== null && (this.#options.minGuestRate ?? 0) < copyRate);
  }

  #measure(ms: number, total: number, written: number): void {
    const last = this.#last;
    if (last !== null && (total <= last.total || written <= last.written)) return;
    if (last !== null) {
      const share = Math.min(1, (written - last.written) / (total - last.total));
      this.#guestShare += (share - this.#guestShare) * (1 - Math.exp((last.ms - ms) / SMOOTHING_MS));
    }
    this.#last = { ms, total, written };
  }
}
