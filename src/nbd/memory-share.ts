/** One connection's part in the buffers that all connections of a server share. */
import type { BufferPool, Lease } from '../base/buffer-pool.js';

interface Waiter {
  readonly bytes: number;
  readonly grant: (lease: Lease | Promise<Lease>) => void;
}

export class MemoryShare {
  readonly #pool: BufferPool;
  /** So that one connection cannot hold all memory while the others wait. A single request may exceed it. */
  readonly #limit: number;
  /** Left free by who holds something already: for the first request of others, however many clients hoard. */
  readonly #reserve: number;
  /** The pool is empty: somebody waits until others give memory back. */
  readonly #onWait: () => void;
  #held = 0;
  /** Waits for the pool, not for this connection's own requests to end. */
  #wantsPool = 0;
  readonly #waiters: Waiter[] = [];

  constructor(pool: BufferPool, onWait: () => void) {
    this.#pool = pool;
    this.#limit = pool.bytes / 2;
    this.#reserve = pool.bytes / 4;
    this.#onWait = onWait;
  }

  get waitsForPool(): boolean { return this.#wantsPool > 0; }

  /** First come, first served. */
  lease(bytes: number): Lease | Promise<Lease> {
    if (this.#waiters.length === 0 && this.#fits(bytes)) return this.#take(bytes);
    return new Promise((grant) => { this.#waiters.push({ bytes, grant }); });
  }

  /** What does not fit is asked again when a request of this connection has ended. */
  #fits(bytes: number): boolean {
    return this.#held === 0 || (this.#held + bytes <= this.#limit && this.#pool.bytesFree - bytes >= this.#reserve);
  }

  #take(bytes: number): Lease | Promise<Lease> {
    this.#held += bytes;
    const lease = this.#pool.lease(bytes);
    return lease instanceof Promise ? this.#await(lease, bytes) : this.#counted(lease, bytes);
  }

  async #await(lease: Promise<Lease>, bytes: number): Promise<Lease> {
    this.#wantsPool++;
    this.#onWait();
    const granted = await lease;
    this.#wantsPool--;
    return this.#counted(granted, bytes);
  }

  #counted(lease: Lease, bytes: number): Lease {
    let held = true;
    return {
      buffer: lease.buffer,
      release: () => {
        if (!held) return;
        held = false;
        lease.release();
        this.#held -= bytes;
        if (this.#waiters.length > 0) this.#serveWaiters();
      },
    };
  }

  #serveWaiters(): void {
    while (this.#waiters.length > 0 && this.#fits(this.#waiters[0]!.bytes)) {
      const { bytes, grant } = this.#waiters.shift()!;
      grant(this.#take(bytes));
    }
  }
}
