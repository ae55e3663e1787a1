/**
 * Bulk data goes to the disk while more of it is being copied, where the page cache would keep it until somebody flushes: the
 * flush at the end of a job then finds little to do. Nothing depends on it, and its errors are told by that flush.
 */
import { capabilities, startWriteOut } from '../base/libc.js';
import { MiB } from '../base/bytes.js';

/** Smaller writes may come again soon, and would be written twice. */
const BULK_BYTES = 256 * 1024;
const STEP_BYTES = 16 * MiB;

export class EarlyWriteOut {
  readonly #fd: number;
  readonly #start: (fd: number, offset: number, bytes: number) => Promise<void>;
  #users = 0;
  /** What was written since the last start, and where. */
  #bytes = 0;
  #from = Infinity;
  #to = 0;
  #running: Promise<void> | null = null;

  constructor(fd: number, start = startWriteOut) {
    this.#fd = fd;
    this.#start = start;
    if (capabilities().whyNot !== null) this.#running = Promise.resolve();
  }

  /** Until as often ended as begun. */
  begin(): void { this.#users++; }
  end(): void { this.#users--; }

  get wanted(): boolean { return this.#users > 0; }

  /** A write has ended. */
  wrote(offset: number, bytes: number): void {
    if (!this.wanted || bytes < BULK_BYTES) return;
    this.#bytes += bytes;
    this.#from = Math.min(this.#from, offset);
    this.#to = Math.max(this.#to, offset + bytes);
    if (this.#bytes < STEP_BYTES || this.#running !== null) return;
    const from = this.#from;
    const span = this.#to - from;
    this.#bytes = 0;
    this.#from = Infinity;
    this.#to = 0;
    // one that cannot be begun is the last one
    this.#running = this.#start(this.#fd, from, span).then(() => { this.#running = null; }, () => undefined);
  }

  /** Resolves when the descriptor is no longer used. */
  async settled(): Promise<void> {
    await this.#running;
  }
}
