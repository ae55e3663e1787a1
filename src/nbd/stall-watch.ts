/**
 * Turns away clients that hold buffers and do nothing: who sends half a payload, or does not read its replies, keeps
 * memory that others wait for. As long as nobody waits, they may take all the time they like.
 */
import type { Clock } from '../base/clock.js';

export interface Watched {
  /** Waits for memory that others hold. */
  readonly starved: boolean;
  /** Holds memory until its client sends or takes more bytes. */
  readonly waitsForClient: boolean;
  /** Grows with every transfer from or to the client. */
  readonly transfers: number;
  evict(): void;
}

export class StallWatch {
  readonly #all: Iterable<Watched>;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #ended = new AbortController();
  #watching = false;

  constructor(all: Iterable<Watched>, clock: Clock, timeoutMs: number) {
    this.#all = all;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
  }

  /** Somebody has begun to wait for memory. */
  begin(): void {
    if (this.#watching || this.#timeoutMs === 0 || this.#ended.signal.aborted) return;
    this.#watching = true;
    void this.#watch();
  }

  end(): void {
    this.#ended.abort();
  }

  async #watch(): Promise<void> {
    do {
      const before = new Map([...this.#all].map((one) => [one, one.transfers]));
      await this.#clock.sleep(this.#timeoutMs, this.#ended.signal);
      if (this.#ended.signal.aborted) return;
      for (const one of [...this.#all]) {
        if (this.#starving() && one.waitsForClient && before.get(one) === one.transfers) one.evict();
      }
    } while (this.#starving());
    this.#watching = false;
  }

  #starving(): boolean {
    for (const one of this.#all) if (one.starved) return true;
    return false;
  }
}
