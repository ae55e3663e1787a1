/** The target of a mirror: requests that can be given up when it does not answer, and how it is doing. */
import { BlockError } from '../../base/errors.js';
import type { Clock } from '../../base/clock.js';
import type { BlockBackend } from '../../block/backend.js';
import type { ChangeGuard } from '../../filter/intercept.js';
import { makeRequest, type BlockOp, type BlockRequest } from '../../block/request.js';

interface Pending {
  readonly sinceMs: number;
  readonly giveUp: (error: BlockError) => void;
}

export class MirrorTarget {
  readonly door: BlockBackend;
  readonly #clock: Clock;
  readonly #guard: ChangeGuard | null;
  /** Oldest first. */
  readonly #pending = new Set<Pending>();
  #abandoned = false;
  /** Of those who wait for something else than its answers. */
  readonly #givingUp = new Set<() => void>();
  #slowestMs = 0;
  #lastEndMs = -Infinity;

  constructor(door: BlockBackend, clock: Clock, guard: ChangeGuard | null = null) {
    this.#guard = guard;
    this.door = door;
    this.#clock = clock;
  }

  get length(): number { return this.door.node.length(); }
  /** Nobody waits any more for what it answers. */
  get abandoned(): boolean { return this.#abandoned; }
  /** In a drained section. Nobody may wait for its end who holds something that the section may need. */
  get draining(): boolean { return this.door.node.draining; }
  undrained(): Promise<void> { return this.door.node.resumed(); }

  /** For how long it has ended no request, though it was asked; 0 where it is not. */
  get silentMs(): number {
    for (const { sinceMs } of this.#pending) return this.#clock.monotonicMs() - Math.max(sinceMs, this.#lastEndMs);
    return 0;
  }

  /** The slowest request that has ended since this was asked for the last time. */
  takeSlowestMs(): number {
    const slowest = this.#slowestMs;
    this.#slowestMs = 0;
    return slowest;
  }

  send(op: BlockOp, offset: number, bytes: number, buffer: Uint8Array | null, flags = 0): Promise<void> {
    return this.submit(makeRequest(op, offset, bytes, buffer, flags, 'background'));
  }

  /** Rejects with CANCELLED once the target is abandoned, and with BUSY where it is drained: try again later. */
  submit(request: BlockRequest): Promise<void> {
    return this.ask(() => {
      const ready = this.#guard?.begin(0, 0) ?? null;
      return ready === null ? this.door.submit(request) : ready.then(() => this.door.submit(request));
    });
  }

  /** What else is asked of it; rejects as `submit` does. */
  ask<T>(question: () => Promise<T>): Promise<T> {
    if (this.#abandoned) return Promise.reject(abandonment());
    if (this.draining) return Promise.reject(new BlockError('BUSY', 'the target is drained'));
    return new Promise((resolve, reject) => {
      const pending: Pending = { sinceMs: this.#clock.monotonicMs(), giveUp: reject };
      this.#pending.add(pending);
      const ended = (): void => {
        this.#lastEndMs = this.#clock.monotonicMs();
        if (this.#pending.delete(pending)) this.#slowestMs = Math.max(this.#slowestMs, this.#lastEndMs - pending.sinceMs);
      };
      question().then((answer) => {
        ended();
        resolve(answer);
      }, (error: unknown) => {
        ended();
        reject(error);
      });
    });
  }

  /** What is under way fails at once for those who wait for it; memory lent to it stays lent. */
  abandon(): void {
    this.#abandoned = true;
    for (const { giveUp } of this.#pending) giveUp(abandonment());
    this.#pending.clear();
    for (const giveUp of this.#givingUp) giveUp();
    this.#givingUp.clear();
  }

  /** What the work comes to, or null once the target is abandoned. */
  unlessAbandoned<T>(work: Promise<T>): Promise<T | null> {
    if (this.#abandoned) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      const giveUp = (): void => resolve(null);
      this.#givingUp.add(giveUp);
      void work.finally(() => this.#givingUp.delete(giveUp)).then(resolve, reject);
    });
  }
}

function abandonment(): BlockError {
  return new BlockError('CANCELLED', 'Operation canceled', { errno: 'ECANCELED' });
}
