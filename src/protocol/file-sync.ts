/**
 * What makes writes to a file last. One fdatasync at a time, shared by all flushes asked for before it starts: the kernel
 * reports a lost write to one caller only, so of two running at once one could succeed on the other's failure. And after
 * one that failed the kernel may have dropped the dirty pages and forgotten the error: nothing later can be trusted.
 */
import type { BlockError } from '../base/errors.js';
import type { Ring } from '../base/uring.js';
import { syncData, writeAndSync, writeFully, type Explain } from './file-io.js';

export class FileSync {
  readonly #fd: number;
  readonly #ring: Ring | null;
  readonly #explain: Explain;
  /** Flushes asked for, and how many of them the fdatasyncs so far have covered. */
  #asked = 0;
  #covered = 0;
  #running: Promise<boolean> | null = null;
  #error: Error | null = null;

  /** `explain` is told what a sync failed of. */
  constructor(fd: number, ring: Ring | null, explain: (error: unknown) => BlockError) {
    this.#fd = fd;
    this.#ring = ring;
    this.#explain = explain;
  }

  /** That of the first sync that failed: it stays. */
  get error(): Error | null { return this.#error; }

  async flush(): Promise<void> {
    const asked = ++this.#asked;
    while (this.#covered < asked && this.#error === null) await (this.#running ??= this.#run(syncData(this.#fd, this.#ring)));
    if (this.#error !== null) throw this.#error;
  }

  /** Writes all of `from`, to last: in one step for the kernel, or with a sync that others share where one is under way. `explain` is told what the write failed of. */
  async write(from: Uint8Array, position: number, explain: Explain): Promise<void> {
    const both = this.#running === null && this.#ring !== null ? writeAndSync(this.#fd, from, position, this.#ring, explain) : null;
    if (both === null) {
      await writeFully(this.#fd, from, position, this.#ring, explain);
      return this.flush();
    }
    // it covers what was asked before, as any sync does that begins now
    const running = this.#running = this.#run(both.synced);
    const [wrote] = await Promise.allSettled([both.written, running]);
    if (wrote.status === 'rejected') throw wrote.reason;
    if (!await running) return this.flush();
    if (this.#error !== null) throw this.#error;
  }

  /** False where the sync never began. */
  async #run(sync: Promise<boolean>): Promise<boolean> {
    const covered = this.#asked;
    let began = true;
    try {
      began = await sync;
    } catch (error) {
      this.#error ??= this.#explain(error);
    }
    if (began) this.#covered = covered;
    this.#running = null;
    return began;
  }
}
