/** What was written to a node and is not known to last: where a flush of it fails, or its server was another one meanwhile, that may be gone. */
import { DirtyBitmap } from './dirty-bitmap.js';
import { lostWrites } from './lost-writes.js';
import type { BlockNode } from './node.js';

export interface FailedFlush {
  /** Null where the flush went well, but its server was lost before and found again. */
  readonly error: Error | null;
  /** The server was lost: it may be another process, which knows of nothing. */
  readonly lost: boolean;
  /** What may be gone: a disk that failed to flush may have dropped it, and its next flush knows nothing of that. */
  readonly ranges: DirtyBitmap;
}

export class UnflushedWrites {
  readonly #node: BlockNode;
  readonly #granularity: number;
  readonly #size: number;
  /** Written since the last flush began. */
  #ranges: DirtyBitmap;
  #flushing: Promise<unknown> = Promise.resolve();
  #losses: number;

  constructor(node: BlockNode, granularity: number, size: number) {
    this.#node = node;
    this.#granularity = granularity;
    this.#size = size;
    this.#ranges = this.#none();
    this.#losses = lostWrites(node);
  }

  #none(): DirtyBitmap {
    return new DirtyBitmap({ name: '', granularity: this.#granularity, size: this.#size, enabled: false });
  }

  /** The node has confirmed it. */
  wrote(offset: number, bytes: number): void {
    this.#ranges.set(offset, bytes);
  }

  /** It is not gone after all: the next flush is for it too. */
  keep(ranges: DirtyBitmap): void {
    this.#ranges.merge(ranges);
  }

  /** One at a time. What was written before lasts when it resolves; else it rejects with what `failed` throws. */
  flush(send: () => Promise<void>, failed: (failure: FailedFlush) => never): Promise<void> {
    const flushed = this.#flushing.then(() => this.#flush(send, failed));
    this.#flushing = flushed.catch(() => undefined);
    return flushed;
  }

  async #flush(send: () => Promise<void>, failed: (failure: FailedFlush) => never): Promise<void> {
    const ranges = this.#ranges;
    this.#ranges = this.#none();
    const error = await send().then(() => null, (failure: unknown) => (failure instanceof Error ? failure : new Error(String(failure))));
    const losses = lostWrites(this.#node);
    const lost = losses !== this.#losses;
    this.#losses = losses;
    if (error === null && !lost) return;
    ranges.merge(this.#ranges);
    this.#ranges = this.#none();
    failed({ error, lost, ranges });
  }
}
