/** How long requests took lately, in bins: what it costs does not depend on how many there are. */
import { systemClock, type Clock } from '../base/clock.js';
import { DONE } from '../base/done.js';

/** Bin n ends at this times 2^(n / 2). */
const FIRST_MS = 0.01;
const BINS = 60;
/** What is older than two of these is forgotten. */
const WINDOW_MS = 1000;

export class LatencyMeter {
  readonly #clock: Clock;
  #bins = new Uint32Array(BINS);
  #before = new Uint32Array(BINS);
  #windowMs: number;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
    this.#windowMs = clock.monotonicMs();
  }

  /** Counts a request that is made now, when it has ended, well or not. */
  watch(request: () => Promise<void>): Promise<void> {
    const beganMs = this.#clock.monotonicMs();
    const running = request();
    const ended = (): void => this.record(this.#clock.monotonicMs() - beganMs);
    if (running === DONE) ended();
    else void running.then(ended, ended);
    return running;
  }

  record(ms: number): void {
    this.#turn();
    const bin = ms <= FIRST_MS ? 0 : Math.min(BINS - 1, Math.ceil(2 * Math.log2(ms / FIRST_MS)));
    this.#bins[bin] = this.#bins[bin]! + 1;
  }

  /** Milliseconds that 99 of 100 did not exceed, rounded up to the end of a bin; null where there were none lately. */
  p99(): number | null {
    this.#turn();
    return percentileOf(Array.from(this.#bins, (count, bin) => ({ count: count + this.#before[bin]!, ms: FIRST_MS * 2 ** (bin / 2) })), 0.99);
  }

  #turn(): void {
    const late = this.#clock.monotonicMs() - this.#windowMs;
    if (late < WINDOW_MS) return;
    this.#before = late < 2 * WINDOW_MS ? this.#bins : new Uint32Array(BINS);
    this.#bins = new Uint32Array(BINS);
    this.#windowMs += late - late % WINDOW_MS;
  }
}

/** The end of the bin in which the part of all lies; null where all are empty. */
export function percentileOf(bins: readonly { readonly count: number; readonly ms: number }[], part: number): number | null {
  const all = bins.reduce((sum, { count }) => sum + count, 0);
  let seen = 0;
  for (const { count, ms } of bins) {
    seen += count;
    if (all > 0 && seen >= all * part) return ms;
  }
  return null;
}
