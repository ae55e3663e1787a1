/** One connection's part in the buffers that all connections of a server share. */
import type { BufferPool, Lease } from '../base/buffer-pool.js';

export class MemoryShare {
  readonly #pool: BufferPool;
  /** So that one connection cannot hold all memory while the others wait. A single request may exceed it. */
  readonly #limit: number;
  #held = 0;
  #waiter: { readonly bytes: number; readonly grant: (lease: Lease | Promise<Lease>) => void } | null = null;

  constructor(pool: BufferPool, limit: number) {
    this.#pool = pool;
    this.#limit = limit;
  }

  /** One call waits at a time. */
  lease(bytes: number): Lease | Promise<Lease> {
    if (this.#held > 0 && this.#held + bytes > this.#limit) {
      return new Promise((grant) => { this.#waiter = { bytes, grant }; });
    }
    return this.#take(bytes);
  }

  #take(bytes: number): Lease | Promise<Lease> {
    this.#held += bytes;
    const lease = this.#pool.lease(bytes);
    return lease instanceof Promise ? lease.then((granted) => this.#counted(granted, bytes)) : this.#counted(lease, bytes);
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
        const waiter = this.#waiter;
        if (waiter === null || (this.#held > 0 && this.#held + waiter.bytes > this.#limit)) return;
        this.#waiter = null;
        waiter.grant(this.#take(waiter.bytes));
      },
    };
  }
}
