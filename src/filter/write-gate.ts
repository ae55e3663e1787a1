/**
 * Lets writes in at a rate, first come, first served: each one waits until those before it are paid for, but for a short
 * burst after a rest. Unlike a throttle group it bears its rate being changed many times a second, and it costs nothing
 * while there is no rate.
 */
import { systemClock, type Clock } from '../base/clock.js';

export class WriteGate {
  /** So long at most one write keeps out the next ones. */
  maxDebtMs = MAX_DEBT_MS;
  readonly #clock: Clock;
  readonly #waiting: { readonly bytes: number; readonly go: () => void }[] = [];
  #bytesPerSecond = Infinity;
  /** When what was let in is paid for. */
  #paidAt = 0;
  #passing = 0;
  #timer: AbortController | null = null;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  get waiting(): number { return this.#waiting.length; }
  get bytesPerSecond(): number { return this.#bytesPerSecond; }

  /** More than 0; Infinity = no limit. What waits is measured by it from now on. */
  set bytesPerSecond(rate: number) {
    const now = this.#clock.monotonicMs();
    const owed = this.#bytesPerSecond === Infinity ? 0 : Math.max(-BURST_MS, this.#paidAt - now) * this.#bytesPerSecond;
    this.#bytesPerSecond = rate;
    this.#paidAt = rate === Infinity ? now : now + Math.min(owed / rate, this.maxDebtMs);
    this.#restart();
  }

  /** Null where it may go at once, as what costs nothing always may. */
  admit(bytes: number): Promise<void> | null {
    if (bytes === 0 || this.#bytesPerSecond === Infinity || this.#passing > 0) return null;
    if (this.#waiting.length === 0 && this.#clock.monotonicMs() >= this.#paidAt) {
      this.#charge(bytes);
      return null;
    }
    return new Promise((go) => {
      this.#waiting.push({ bytes, go });
      if (this.#timer === null) this.#arm();
    });
  }

  /** A drained section begins: what waits goes, and what comes does not wait, until as many calls of `unpass`. */
  pass(): void {
    this.#passing++;
    this.#restart();
  }

  unpass(): void {
    this.#passing--;
  }

  #charge(bytes: number): void {
    const now = this.#clock.monotonicMs();
    this.#paidAt = Math.min(now + this.maxDebtMs, Math.max(this.#paidAt, now - BURST_MS) + bytes / this.#bytesPerSecond * 1000);
  }

  #restart(): void {
    this.#timer?.abort();
    this.#timer = null;
    while (this.#waiting.length > 0) {
      const free = this.#passing > 0 || this.#bytesPerSecond === Infinity;
      if (!free && this.#clock.monotonicMs() < this.#paidAt) return this.#arm();
      const { bytes, go } = this.#waiting.shift()!;
      if (!free) this.#charge(bytes);
      go();
    }
  }

  #arm(): void {
    const timer = new AbortController();
    this.#timer = timer;
    void this.#clock.sleep(Math.max(1, this.#paidAt - this.#clock.monotonicMs()), timer.signal).then(() => {
      if (this.#timer === timer) this.#restart();
    });
  }
}

/** What was not used for so long may be used at once. */
const BURST_MS = 100;
/** One large write must not keep the next ones out for minutes. */
export const MAX_DEBT_MS = 2000;
