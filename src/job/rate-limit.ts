/**
 * How fast a job may go, as QEMU limits it: work is counted in slices of 100 ms, and what goes beyond one makes the job wait
 * for as many slices as it used up. A piece is never split, so a low speed means long waits, which pause and cancel cut short.
 */
import type { Clock } from '../base/clock.js';

const SLICE_MS = 100;

export class RateLimit {
  readonly #clock: Clock;
  #quota = 0;
  #start = -Infinity;
  #end = -Infinity;
  #done = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** In bytes per second; 0 = no limit. */
  set speed(bytesPerSecond: number) {
    this.#quota = bytesPerSecond === 0 ? 0 : Math.max(1, Math.floor(bytesPerSecond * SLICE_MS / 1000));
  }

  /** Counts so many bytes of work, which have begun; returns for how many milliseconds nothing more may begin. */
  spend(bytes: number): number {
    if (this.#quota === 0) return 0;
    const now = this.#clock.monotonicMs();
    if (this.#end < now) {
      this.#start = now;
      this.#end = now + SLICE_MS;
      this.#done = 0;
    }
    this.#done += bytes;
    if (this.#done < this.#quota) return 0;
    this.#end = this.#start + this.#done / this.#quota * SLICE_MS;
    return this.#end - now;
  }
}
