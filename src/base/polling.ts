/**
 * Keeps the event loop awake between the steps of a busy exchange. A sleeping processor needs longer to wake than a
 * fast disk to answer, so while most steps follow closely on the one before, the loop looks for the next one for a short
 * time before it sleeps; sockets and timers are served meanwhile as ever. QEMU's iothreads do the same (poll-max-ns).
 *
 * It spends processor time that might be in vain: close steps earn credit for that, and a late one uses it up.
 */
import { availableParallelism } from 'node:os';
import { systemClock, type Clock } from './clock.js';

/** How long the loop stays awake after a step. */
export const POLL_MS = 0.25;
/** What a late step costs, where a close one earns 1: the time spent in vain is bounded by so many close steps for each late one. */
export const LATE_COST = 8;
const MAX_CREDIT = 4 * LATE_COST;

export class Polling {
  readonly #clock: Clock;
  readonly #later: (work: () => void) => void;
  #last = -Infinity;
  #credit = 0;
  #polling = false;
  #held = 0;

  constructor(clock: Clock, later: (work: () => void) => void) {
    this.#clock = clock;
    this.#later = later;
  }

  get active(): boolean { return this.#polling; }

  /** Something happened after which more is likely to happen soon. */
  step(): void {
    const now = this.#clock.monotonicMs();
    const close = now - this.#last <= POLL_MS;
    this.#credit = close ? Math.min(this.#credit + 1, MAX_CREDIT) : Math.max(this.#credit - LATE_COST, 0);
    this.#last = now;
    if (this.#credit < LATE_COST || this.#polling || this.#held > 0) return;
    this.#polling = true;
    this.#later(this.#poll);
  }

  /** Lets the loop sleep until `resume`: what it would wait for needs the processor more. */
  hold(): void {
    this.#held++;
  }

  resume(): void {
    this.#held--;
  }

  readonly #poll = (): void => {
    this.#polling = this.#held === 0 && this.#clock.monotonicMs() - this.#last <= POLL_MS;
    if (this.#polling) this.#later(this.#poll);
  };
}

const shared = process.env['QUIESCE_NO_POLL'] === '1' || availableParallelism() < 2 ? null : new Polling(systemClock, setImmediate);

/** A step of I/O whose successor comes through the event loop: a request came in, or was handed to the kernel, or has ended. */
export function ioStep(): void {
  shared?.step();
}

/** A sync begins: threads of the kernel (the file system's journal, the device's) have much to do for it, and the loop would be in their way. */
export function syncBegins(): void {
  shared?.hold();
}

export function syncEnded(): void {
  shared?.resume();
}
