/**
 * Reads RAM state back in order: one request in flight (`depth`) and up to `readAhead` bytes ready before the consumer asks. The
 * next request is issued the moment the former ends, so a rotating disk sees one sequential stream, and a fast one is
 * never idle while the consumer works.
 */
import { alignUp, formatRange, MiB } from '../base/bytes.js';
import { BufferPool, PAGE, type Lease } from '../base/buffer-pool.js';
import { BlockError } from '../base/errors.js';
import { TaskPool } from '../base/task-pool.js';
import type { VmStateSource } from '../block/driver.js';

const DEFAULT_READ_AHEAD = 10 * MiB;
/** With one request in flight the disk idles between two: larger ones make fewer pauses, and five still fit in 10 MiB. */
const DEFAULT_CHUNK = 2 * MiB;
const MAX_MEMORY = 512 * MiB;

export interface VmStateReaderOptions {
  /** Bytes read before the consumer asks for them; at least one chunk. */
  readonly readAhead?: number | undefined;
  readonly chunkSize?: number | undefined;
  /** Requests in flight. 1 (default) suits every disk; more help where one request does not keep the disk busy. */
  readonly depth?: number | undefined;
  /** Ends waiting; a read in flight still completes before `close` returns. */
  readonly signal?: AbortSignal | undefined;
}

interface Chunk {
  readonly lease: Lease;
  readonly position: number;
  readonly bytes: number;
  loaded: boolean;
}

export class VmStateReader {
  readonly size: number;
  readonly #source: VmStateSource;
  readonly #chunkSize: number;
  readonly #buffers: BufferPool;
  readonly #depth: number;
  readonly #signal: AbortSignal | undefined;
  #ready: Chunk[] = [];
  #taken: Chunk | null = null;
  #reading: Promise<void> | null = null;
  /** What the read-ahead ended with; reported when the consumer gets to that place, never before. */
  #failure: { readonly error: unknown } | null = null;
  #wake: (() => void) | null = null;
  #position = 0;
  #closed = false;

  constructor(source: VmStateSource, options: VmStateReaderOptions = {}) {
    this.#source = source;
    this.size = source.size;
    this.#chunkSize = checkBounds('chunk size', options.chunkSize ?? DEFAULT_CHUNK, 1);
    const readAhead = checkBounds('read-ahead', options.readAhead ?? DEFAULT_READ_AHEAD, 0);
    // one chunk more than is read ahead: the one that the consumer holds
    const chunks = Math.max(1, Math.floor(readAhead / this.#chunkSize)) + 1;
    this.#depth = Math.min(checkBounds('depth', options.depth ?? 1, 1), chunks);
    this.#buffers = new BufferPool(chunks * alignUp(this.#chunkSize, PAGE));
    this.#signal = options.signal;
  }

  /** Bytes handed to the consumer so far. */
  get position(): number { return this.#position; }
  /** Bytes of arena memory in use. */
  get bytesHeld(): number { return this.#buffers.bytes - this.#buffers.bytesFree; }

  /** The next bytes of the state, valid until the next call or `close`; null at the end. */
  async next(): Promise<Uint8Array | null> {
    this.#giveBack();
    this.#reading ??= this.#readAhead();
    while (this.#ready.length === 0) {
      this.#checkUsable();
      if (this.#position === this.size) return null;
      if (this.#failure !== null) throw this.#failure.error;
      await this.#chunkArrived();
    }
    this.#checkUsable();
    const chunk = this.#ready.shift()!;
    this.#taken = chunk;
    this.#position += chunk.bytes;
    return chunk.lease.buffer.subarray(0, chunk.bytes);
  }

  /** Each chunk is valid until the loop asks for the next; leaving the loop closes the reader. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (let chunk = await this.next(); chunk !== null; chunk = await this.next()) yield chunk;
    } finally {
      await this.close();
    }
  }

  /** Waits for the read in flight and frees all memory. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#giveBack();
    for (const chunk of this.#ready.splice(0)) chunk.lease.release();
    await this.#reading;
    this.#wakeConsumer();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #readAhead(): Promise<void> {
    const pool = new TaskPool(this.#depth);
    const loading: Chunk[] = [];
    try {
      for (let position = 0; position < this.size && !this.#stopped(); position += this.#chunkSize) {
        const lease = await this.#buffers.lease(this.#chunkSize);
        const chunk: Chunk = { lease, position, bytes: Math.min(this.#chunkSize, this.size - position), loaded: false };
        loading.push(chunk);
        await pool.run(() => this.#load(chunk, loading));
      }
    } catch {
      // the pool keeps its first error
    }
    await pool.drain().catch((error: unknown) => { this.#failure = { error }; });
    for (const { lease } of loading) lease.release();
    this.#wakeConsumer();
  }

  /** Fills the chunk; it is ready when all before it are. */
  async #load(chunk: Chunk, loading: Chunk[]): Promise<void> {
    for (let done = 0; done < chunk.bytes;) {
      if (this.#stopped()) return;
      const count = await this.#source.load(chunk.position + done, chunk.lease.buffer.subarray(done, chunk.bytes));
      if (count === 0) throw this.#endedEarly(chunk.position + done);
      done += count;
    }
    chunk.loaded = true;
    while (loading[0]?.loaded === true && !this.#stopped()) this.#ready.push(loading.shift()!);
    this.#wakeConsumer();
  }

  #endedEarly(position: number): BlockError {
    return new BlockError('CORRUPT', `the VM state is recorded with ${this.size} bytes but ends at ${position}: ` +
      `${formatRange(position, this.size - position)} is missing`, { offset: position, bytes: this.size - position });
  }

  async #chunkArrived(): Promise<void> {
    const signal = this.#signal;
    const stop = (): void => this.#wakeConsumer();
    signal?.addEventListener('abort', stop, { once: true });
    await new Promise<void>((wake) => { this.#wake = wake; });
    signal?.removeEventListener('abort', stop);
  }

  #wakeConsumer(): void {
    this.#wake?.();
    this.#wake = null;
  }

  #giveBack(): void {
    this.#taken?.lease.release();
    this.#taken = null;
  }

  #stopped(): boolean {
    return this.#closed || this.#signal?.aborted === true;
  }

  #checkUsable(): void {
    if (this.#closed) throw new BlockError('CLOSED', 'the VM state reader is closed');
    if (this.#signal?.aborted === true) {
      throw new BlockError('CANCELLED', 'reading the VM state was cancelled', { cause: this.#signal.reason });
    }
  }
}

function checkBounds(what: string, value: number, least: number): number {
  if (Number.isSafeInteger(value) && value >= least && value <= MAX_MEMORY) return value;
  throw new BlockError('INVALID_ARGUMENT', `the VM state's ${what} must be from ${least} to ${MAX_MEMORY}, got ${value}`);
}
