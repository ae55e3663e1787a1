/** A machine that stands still while the last of a mirror is copied, and not for longer than its guest may wait. */
import type { Clock } from '../../base/clock.js';
import type { QmpClient } from '../../qmp/client.js';
import { pause, resume } from '../../vmstate/qemu-control.js';

/** Between two attempts. */
const REST_MS = 2000;

export class MachinePause {
  readonly #qmp: QmpClient;
  readonly #clock: Clock;
  readonly #longestMs: number;
  /** By us. */
  #stopped = false;
  #sinceMs = -Infinity;

  constructor(qmp: QmpClient, clock: Clock, longestMs: number) {
    this.#qmp = qmp;
    this.#clock = clock;
    this.#longestMs = longestMs;
  }

  /** Ten times a second: stops it where that is `wanted`, and lets it go on where it takes too long. */
  async look(wanted: boolean): Promise<void> {
    const forMs = this.#clock.monotonicMs() - this.#sinceMs;
    if (this.#stopped && forMs > this.#longestMs) {
      await this.end();
    } else if (wanted && !this.#stopped && forMs > this.#longestMs + REST_MS) {
      this.#sinceMs = this.#clock.monotonicMs();
      this.#stopped = await pause(this.#qmp);
    }
  }

  /** It runs again, if it was stopped here. */
  async end(): Promise<void> {
    if (!this.#stopped) return;
    this.#stopped = false;
    await resume(this.#qmp);
  }
}
