/**
 * Streams RAM state into a VmStateArea: the stream is cut into aligned chunks, and a pool of writers keeps several on
 * the disk at once. Memory is bounded by one arena of depth + 1 chunks: `depth` being written and one being filled.
 *
 * One producer at a time: it awaits each call before the next, and has ended before `finish` or `abort` is called (the
 * memory that `space` lent is given away there). Nothing counts as stored before `finish` resolved.
 */
import { assert } from '../base/assert.js';
import { alignUp, formatSize, MiB } from '../base/bytes.js';
import { BufferPool, PAGE, type Lease } from '../base/buffer-pool.js';
import { BlockError } from '../base/errors.js';
import { Mutex } from '../base/mutex.js';
import { TaskPool } from '../base/task-pool.js';
import type { VmStateArea } from '../block/driver.js';

const DEFAULT_CHUNK = MiB;
const MAX_CHUNK = 64 * MiB;
const DEFAULT_DEPTH = 8;
const MAX_DEPTH = 64;
const MAX_ARENA = 512 * MiB;

export interface VmStateWriterOptions {
  /** Bytes of one write, rounded up to whole clusters. Default: 1 MiB, or one cluster where that is larger. */
  readonly chunkSize?: number | undefined;
  /** Chunks written at the same time. */
  readonly depth?: number | undefined;
  /** Ends waiting; writes already handed to the area still complete before `abort` returns. */
  readonly signal?: AbortSignal | undefined;
}

/** What a producer of RAM state fills. */
export interface VmStateConsumer {
  /**
   * The free rest of the current chunk: at least 1 byte, and at least 512 in a promised one. A promise means that every
   * chunk is being written; waiting for it is the back-pressure.
   */
  space(): Uint8Array | Promise<Uint8Array>;
  /** The producer put `bytes` bytes at the start of what `space` returned. */
  advance(bytes: number): void;
  /** Appends a copy of `data`; the memory is the caller's again when the promise settles. */
  write(data: Uint8Array): Promise<void>;
}

interface Chunk {
  readonly lease: Lease;
  readonly start: number;
  used: number;
}

export class VmStateWriter implements VmStateConsumer {
  readonly chunkSize: number;
  readonly #area: VmStateArea;
  readonly #buffers: BufferPool;
  readonly #tasks: TaskPool;
  readonly #signal: AbortSignal | undefined;
  /** Serialises writes that need more than one step, so that a later one never overtakes an earlier one. */
  readonly #order = new Mutex();
  #chunk: Chunk | null = null;
  /** Settles (it never rejects) when the pool has started or refused every chunk submitted so far. */
  #starting: Promise<void> = Promise.resolve();
  #position = 0;
  #end = 0;
  #closing: Promise<void> | null = null;

  constructor(area: VmStateArea, options: VmStateWriterOptions = {}) {
    const depth = checkBounds('depth', options.depth ?? DEFAULT_DEPTH, MAX_DEPTH);
    const chunkSize = checkBounds('chunk size', options.chunkSize ?? DEFAULT_CHUNK, MAX_CHUNK);
    this.chunkSize = alignUp(chunkSize, area.clusterSize);
    this.#area = area;
    const arena = (depth + 1) * alignUp(this.chunkSize, PAGE);
    if (arena > MAX_ARENA) {
      throw new BlockError('INVALID_ARGUMENT', `${depth} writers of ${formatSize(this.chunkSize)} chunks need ${formatSize(arena)} of memory, more than ${formatSize(MAX_ARENA)}`);
    }
    this.#buffers = new BufferPool(arena);
    this.#tasks = new TaskPool(depth);
    this.#signal = options.signal;
  }

  /** Where the next append goes. */
  get position(): number { return this.#position; }
  /** Bytes of state produced so far: the end of the highest byte. */
  get bytesProduced(): number { return this.#end; }
  /** Bytes of arena memory in use. */
  get bytesHeld(): number { return this.#buffers.bytes - this.#buffers.bytesFree; }

  space(): Uint8Array | Promise<Uint8Array> {
    if (!this.#usable()) return this.#checkUsable().then(() => this.space());
    const chunk = this.#chunk ?? this.#newChunk();
    return chunk instanceof Promise ? chunk.then(freeRest) : freeRest(chunk);
  }

  advance(bytes: number): void {
    if (bytes === 0) return;
    const chunk = this.#chunk;
    assert(chunk !== null && bytes > 0 && bytes <= this.chunkSize - chunk.used, `advance by ${bytes} past the chunk's end`);
    chunk.used += bytes;
    this.#position += bytes;
    this.#end = Math.max(this.#end, this.#position);
    if (chunk.used === this.chunkSize) this.#submit(chunk, this.chunkSize);
  }

  async write(data: Uint8Array): Promise<void> {
    const chunk = this.#chunk;
    const fits = chunk !== null && data.byteLength <= this.chunkSize - chunk.used;
    if (fits && !this.#order.isLocked() && this.#usable()) this.#copyIn(chunk, data);
    else await this.#order.runExclusive(() => this.#append(data));
  }

  /**
   * Writes anywhere: what lies behind the append position replaces older bytes, what starts at it is appended, and what
   * lies ahead of it is stored at once. Later data wins over chunks that are buffered or on their way.
   */
  async writeAt(position: number, data: Uint8Array): Promise<void> {
    if (!Number.isSafeInteger(position) || position < 0 || position + data.byteLength > Number.MAX_SAFE_INTEGER) {
      throw new BlockError('OUT_OF_RANGE', `VM state position ${position} is outside what a state can hold`);
    }
    await this.#order.runExclusive(async () => {
      await this.#checkUsable();
      const behind = Math.min(data.byteLength, Math.max(0, this.#position - position));
      if (behind > 0) await this.#replace(position, data.subarray(0, behind));
      const rest = data.subarray(behind);
      if (rest.byteLength === 0) return;
      if (position + behind === this.#position) await this.#append(rest);
      else await this.#saveNow(position + behind, rest);
    });
  }

  /** Writes what is buffered, waits for every chunk and frees all memory. Returns the bytes produced, or throws the first error. */
  async finish(): Promise<number> {
    try {
      await this.#order.runExclusive(async () => {
        await this.#checkUsable();
        if (this.#chunk !== null) this.#submitLast(this.#chunk);
        await this.#settled();
        await this.#checkUsable();
      });
    } finally {
      await this.abort();
    }
    return this.#end;
  }

  /** Waits for writes in flight and frees all memory. What was stored stays in the area, whose owner discards it. Idempotent. */
  abort(): Promise<void> {
    this.#closing ??= this.#order.runExclusive(async () => {
      await this.#settled();
      this.#chunk?.lease.release();
      this.#chunk = null;
    });
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort();
  }

  async #append(data: Uint8Array): Promise<void> {
    await this.#checkUsable();
    for (let done = 0; done < data.byteLength;) {
      const chunk = this.#chunk ?? await this.#newChunk();
      const part = data.subarray(done, done + this.chunkSize - chunk.used);
      this.#copyIn(chunk, part);
      done += part.byteLength;
    }
  }

  #copyIn(chunk: Chunk, data: Uint8Array): void {
    chunk.lease.buffer.set(data, chunk.used);
    this.advance(data.byteLength);
  }

  #newChunk(): Chunk | Promise<Chunk> {
    const lease = this.#buffers.lease(this.chunkSize);
    return lease instanceof Promise ? this.#beginLater(lease) : this.#begin(lease);
  }

  async #beginLater(lease: Promise<Lease>): Promise<Chunk> {
    const chunk = this.#begin(await lease);
    // the wait may have ended because a write failed; `abort` then frees the chunk
    await this.#checkUsable();
    return chunk;
  }

  #begin(lease: Lease): Chunk {
    this.#chunk = { lease, start: this.#position, used: 0 };
    return this.#chunk;
  }

  /** Hands the chunk to the pool. Its memory comes back when its write settled, or when the pool refused it. */
  #submit(chunk: Chunk, bytes: number): void {
    this.#chunk = null;
    const save = async (): Promise<void> => {
      try {
        await this.#area.save(chunk.start, chunk.lease.buffer.subarray(0, bytes));
      } finally {
        chunk.lease.release();
      }
    };
    const started = this.#tasks.run(save).catch(() => chunk.lease.release());
    this.#starting = Promise.all([this.#starting, started]).then(() => undefined);
  }

  /**
   * The last chunk is padded with zeros to whole clusters, so that it is one aligned write as well; the padding is no
   * part of the state. Where bytes were stored ahead of it, padding could destroy them, so it is written as it is.
   */
  #submitLast(chunk: Chunk): void {
    if (chunk.used === 0) return;
    const padded = this.#end > this.#position ? chunk.used : alignUp(chunk.used, this.#area.clusterSize);
    chunk.lease.buffer.fill(0, chunk.used, padded);
    this.#submit(chunk, padded);
  }

  async #replace(position: number, data: Uint8Array): Promise<void> {
    const chunkStart = this.#chunk?.start ?? this.#position;
    const stored = Math.min(data.byteLength, Math.max(0, chunkStart - position));
    if (stored > 0) await this.#saveNow(position, data.subarray(0, stored));
    if (stored < data.byteLength) this.#chunk!.lease.buffer.set(data.subarray(stored), position + stored - chunkStart);
  }

  /** A write out of order. It is rare, so it is a barrier: it starts when all older writes ended, and ends before the next. */
  async #saveNow(position: number, data: Uint8Array): Promise<void> {
    await this.#settled();
    await this.#checkUsable();
    await this.#tasks.run(() => this.#area.save(position, data));
    await this.#tasks.drain();
    this.#end = Math.max(this.#end, position + data.byteLength);
  }

  /** Waits until no write is queued or in flight, whether they failed or not. */
  async #settled(): Promise<void> {
    await this.#starting;
    await this.#tasks.drain().catch(() => undefined);
  }

  #usable(): boolean {
    return !this.#tasks.failed && this.#closing === null && this.#signal?.aborted !== true;
  }

  /** Throws the first error of any chunk, or what else forbids going on. */
  async #checkUsable(): Promise<void> {
    if (this.#tasks.failed) await this.#tasks.drain();
    if (this.#closing !== null) throw new BlockError('CLOSED', 'the VM state writer is closed');
    if (this.#signal?.aborted === true) {
      throw new BlockError('CANCELLED', 'writing the VM state was cancelled', { cause: this.#signal.reason });
    }
  }
}

function freeRest(chunk: Chunk): Uint8Array {
  return chunk.lease.buffer.subarray(chunk.used);
}

function checkBounds(what: string, value: number, limit: number): number {
  if (Number.isSafeInteger(value) && value >= 1 && value <= limit) return value;
  throw new BlockError('INVALID_ARGUMENT', `the VM state's ${what} must be from 1 to ${limit}, got ${value}`);
}
