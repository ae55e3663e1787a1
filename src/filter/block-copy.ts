/**
 * Copies clusters of one node to another, each once, for several callers at a time: a job that goes through the disk, and
 * guests whose writes wait until what they overwrite is safe. What is dirty in the bitmap is still to be copied; a cluster is
 * clean from the moment in which somebody begins to copy it, and dirty again where that failed.
 */
import { alignDown, alignUp, MiB } from '../base/bytes.js';
import { BufferPool, type Lease } from '../base/buffer-pool.js';
import { systemClock, type Clock } from '../base/clock.js';
import { DONE } from '../base/done.js';
import { BlockError } from '../base/errors.js';
import { TaskPool } from '../base/task-pool.js';
import type { BlockChild } from '../block/child.js';
import { DirtyBitmap } from '../block/dirty-bitmap.js';
import { forgiveLosses, refuseLoss } from '../block/lost-writes.js';
import type { BlockStatus } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { makeRequest, RequestFlag, type BlockRequest, type IoClass } from '../block/request.js';
import { chainStatus } from '../block/status.js';
import { UnflushedWrites, type FailedFlush } from '../block/unflushed-writes.js';

const PIECE_BYTES = MiB;
const MEMORY_BYTES = 128 * MiB;
/** How far ahead the source is asked what it holds. */
const ASK_BYTES = 1024 * MiB;
export const MAX_COPY_WORKERS = 64;

export interface BlockCopyOptions {
  readonly source: BlockChild;
  readonly target: BlockChild;
  /** A power of two, at least 64 KiB: what the target writes as a whole. */
  readonly clusterSize: number;
}

export interface CopyCallOptions {
  readonly offset: number;
  readonly bytes: number;
  /** Pieces in flight. Default 64. */
  readonly maxWorkers?: number | undefined;
  /** Bytes of a piece; 0 = 1 MiB or a cluster. */
  readonly maxChunk?: number | undefined;
  /** Zeros are written in pieces of so many bytes. Default: as data is. */
  readonly zeroChunk?: number | undefined;
  readonly ioClass?: IoClass | undefined;
  /** Counts bytes that are about to be copied (0: none), and returns for how many milliseconds nothing may begin. */
  readonly spend?: ((bytes: number) => number) | undefined;
  readonly clock?: Clock | undefined;
}

export interface CopyFailure {
  readonly operation: 'read' | 'write';
  readonly error: Error;
}

/** One caller's range on its way. */
export interface CopyCall {
  /** Resolves when all of the range is copied, or with what failed first; nothing of the call is in flight then. Never rejects. */
  readonly ended: Promise<CopyFailure | null>;
  readonly finished: boolean;
  readonly cancelled: boolean;
  /** Begins nothing more. */
  cancel(): void;
  /** Ends a wait that `spend` asked for. */
  wake(): void;
}

interface Piece {
  readonly start: number;
  end: number;
  readonly ended: Promise<void>;
  readonly settle: () => void;
}

interface Extent {
  readonly start: number;
  readonly end: number;
  readonly kind: 'data' | 'zero' | 'skip';
}

export class BlockCopy {
  /** What is still to be copied. */
  readonly bitmap: DirtyBitmap;
  readonly clusterSize: number;
  readonly length: number;
  /** Leaves out what the top layer of the source does not hold. */
  get skipUnallocated(): boolean { return this.#skipUnallocated; }
  /** Hears whenever bytes were copied, or are to be copied again. */
  onProgress: () => void = () => undefined;
  readonly #source: BlockChild;
  readonly #target: BlockChild;
  readonly #pieces = new Set<Piece>();
  #inFlightBytes = 0;
  #copied = 0;
  readonly #unflushed: UnflushedWrites;
  #memory: BufferPool | null = null;
  /** What was sent, and how those who wait for it are let go. */
  readonly #underWay = new Map<Promise<void>, () => void>();
  /** Those who wait for memory, which what was given up may hold for ever. */
  readonly #leasing = new Set<() => void>();
  #abandoned = false;
  #known: Extent | null = null;
  #skipUnallocated = false;

  constructor({ source, target, clusterSize }: BlockCopyOptions) {
    this.#source = source;
    this.#target = target;
    this.clusterSize = clusterSize;
    this.length = source.length();
    this.bitmap = new DirtyBitmap({ name: '', granularity: clusterSize, size: this.length, enabled: false });
    this.#unflushed = new UnflushedWrites(target.node, clusterSize, this.length);
  }

  /** Bytes that were copied so far; whole clusters. */
  get copied(): number { return this.#copied; }

  /** Bytes to copy, those in flight among them; whole clusters. */
  get remaining(): number { return this.bitmap.count + this.#inFlightBytes; }

  set skipUnallocated(skip: boolean) {
    this.#skipUnallocated = skip;
    this.#known = null;
  }

  /** Nothing is in flight. */
  get idle(): boolean { return this.#pieces.size === 0; }

  /** True where nothing of the range is to be copied or in flight. */
  isCopied(offset: number, bytes: number): boolean {
    const end = offset + bytes;
    return this.bitmap.nextDirty(offset, end) === end && this.#pieceIn(offset, end) === undefined;
  }

  /** Takes a range of whole clusters off what is to be copied. */
  drop(offset: number, bytes: number): void {
    this.bitmap.clear(offset, bytes);
    this.onProgress();
  }

  /** Begins to copy what is dirty in the range; waits for clusters that others copy. */
  start(options: CopyCallOptions): CopyCall {
    return new Call(this, options);
  }

  /** For a call: the next piece of the range that nobody has copied or copies. */
  claim(from: number, end: number, maxChunk: number): Piece | null {
    const start = this.bitmap.nextDirty(from, end);
    if (start >= end) return null;
    const chunk = Math.max(this.clusterSize, alignDown(Math.min(maxChunk || Infinity, Math.max(PIECE_BYTES, this.clusterSize)), this.clusterSize));
    const stop = Math.min(this.bitmap.nextClean(start, end), start + chunk);
    this.bitmap.clear(start, stop - start);
    let settle: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => { settle = resolve; });
    const piece: Piece = { start, end: stop, ended, settle };
    this.#pieces.add(piece);
    this.#inFlightBytes += this.#whole(piece);
    return piece;
  }

  /** Gives back what lies behind `end`. */
  #shrink(piece: Piece, end: number): void {
    if (end >= piece.end) return;
    this.#inFlightBytes -= this.#whole(piece);
    this.bitmap.set(end, piece.end - end);
    piece.end = end;
    this.#inFlightBytes += this.#whole(piece);
  }

  /** Takes what is dirty behind it, up to `end`. */
  #grow(piece: Piece, end: number): void {
    if (end <= piece.end || this.#pieceIn(piece.end, end) !== undefined) return;
    const stop = this.bitmap.nextClean(piece.end, end);
    if (stop <= piece.end) return;
    this.#inFlightBytes -= this.#whole(piece);
    this.bitmap.clear(piece.end, stop - piece.end);
    piece.end = stop;
    this.#inFlightBytes += this.#whole(piece);
  }

  release(piece: Piece, how: 'copied' | 'skipped' | 'failed'): void {
    const bytes = this.#whole(piece);
    this.#inFlightBytes -= bytes;
    if (how === 'copied') {
      this.#copied += bytes;
      this.#unflushed.wrote(piece.start, piece.end - piece.start);
    }
    if (how === 'failed') this.bitmap.set(piece.start, piece.end - piece.start);
    this.#pieces.delete(piece);
    piece.settle();
    this.onProgress();
  }

  /** Resolves when one piece in the range has ended; null where there is none. */
  oneEnded(offset: number, end: number): Promise<void> | null {
    return this.#pieceIn(offset, end)?.ended ?? null;
  }

  /**
   * What the source holds at the start of the piece, which is cut to where that ends. Nobody changes what is still to be
   * copied, so that an answer that reaches further stays true.
   */
  async look(piece: Piece, zeroChunk = 0): Promise<Extent['kind']> {
    const { start } = piece;
    let known = this.#known;
    if (known === null || start < known.start || start >= known.end) {
      const asked = await this.#ask(start).catch((): Extent => ({ start, end: start, kind: 'data' }));
      const end = asked.end >= this.length ? asked.end : alignDown(asked.end, this.clusterSize);
      // what does not fill a cluster is copied with its surroundings
      known = end > start ? { ...asked, end } : { start, end: start + this.clusterSize, kind: 'data' };
      this.#known = known;
    }
    this.#shrink(piece, known.end);
    if (known.kind !== 'data') this.#grow(piece, Math.min(known.end, known.kind === 'skip' ? Infinity : alignDown(start + zeroChunk, this.clusterSize)));
    return known.kind;
  }

  async #ask(start: number): Promise<Extent> {
    const node = await this.#source.settled();
    const { kind, bytes } = await chainStatus(node, start, Math.min(ASK_BYTES, this.length - start), this.skipUnallocated ? topLayer(node) : null);
    const none = this.skipUnallocated ? 'skip' : 'zero';
    return { start, end: start + bytes, kind: kind === 'unallocated' ? none : kind };
  }

  /** Takes clusters that the top layer of the source has nothing of off what is to be copied; returns how far it looked from `offset`, a whole cluster or more. */
  async resetUnallocated(offset: number): Promise<number> {
    const node = await this.#source.settled();
    const { kind, bytes } = await chainStatus(node, offset, Math.min(ASK_BYTES, this.length - offset), topLayer(node));
    const end = offset + bytes;
    const whole = end >= this.length ? end : alignDown(end, this.clusterSize);
    // a cluster that is there in part is copied
    if (kind !== 'unallocated' || whole <= offset) return Math.min(alignUp(end, this.clusterSize), this.length) - offset;
    this.drop(offset, whole - offset);
    return whole - offset;
  }

  /** Copies a piece; resolves with what failed. */
  async copy({ start, end }: Piece, kind: 'data' | 'zero', ioClass: IoClass): Promise<CopyFailure | null> {
    const bytes = end - start;
    if (kind === 'zero') {
      return attempt('write', () => this.#zero(start, bytes, ioClass));
    }
    const memory = this.#memory ??= new BufferPool(Math.max(MEMORY_BYTES, 2 * this.clusterSize));
    const lease = await this.#lease(memory, bytes);
    if (lease === null) return { operation: 'write', error: abandonment() };
    try {
      return await attempt('read', () => this.#send(this.#source, makeRequest('read', start, bytes, lease.buffer, 0, ioClass)))
        ?? await attempt('write', () => this.#send(this.#target, makeRequest('write', start, bytes, lease.buffer, 0, ioClass)));
    } finally {
      // what was given up may still be read from
      if (this.#abandoned) void this.settled().then(() => lease.release());
      else lease.release();
    }
  }

  /** A bitmap of the caller's own: what is to be copied or on its way. */
  uncopied(): DirtyBitmap {
    const bitmap = new DirtyBitmap({ name: '', granularity: this.clusterSize, size: this.length, enabled: false });
    bitmap.merge(this.bitmap);
    for (const { start, end } of this.#pieces) bitmap.set(start, end - start);
    return bitmap;
  }

  /**
   * What was copied is on stable storage when it resolves. Where it rejects, all that may be lost is to be copied again: a
   * disk that failed to flush may have dropped it, and a server may have been started again. That cannot be done with
   * what is `overwritten` in the source by now: then it rejects with CORRUPT.
   */
  flush(overwritten: DirtyBitmap): Promise<void> {
    const send = (): Promise<void> => this.#send(this.#target, makeRequest('flush', 0, 0, null, 0, 'background'));
    return this.#unflushed.flush(send, (failure) => this.#flushFailed(failure, overwritten));
  }

  #flushFailed({ error: failure, lost, ranges }: FailedFlush, overwritten: DirtyBitmap): never {
    const { node } = this.#target;
    const error = failure ?? new BlockError('IO', `the server of '${node.name}' was lost with writes on it that were not flushed`, { node: node.name, errno: 'EIO' });
    if (this.#abandoned) throw error;
    if (!lost && error instanceof BlockError && error.code === 'NO_SPACE') {
      this.#unflushed.keep(ranges); // nothing was dropped: it waits for space
      throw error;
    }
    const refused = (lost ? refuseLoss(node) : null) ?? (intersect(ranges, overwritten)
      ? new BlockError('CORRUPT', `'${node.name}' lost a part of the copy (${error.message}), which the source does not hold any more`, { node: node.name, cause: error }) : null);
    if (refused !== null) throw new BlockError('CORRUPT', refused.message, { node: node.name, cause: error });
    forgiveLosses(node);
    this.bitmap.merge(ranges);
    this.#copied = Math.max(0, this.#copied - ranges.count);
    throw error;
  }

  /** Whatever is under way fails at once for those who wait for it, and so does what comes. */
  abandon(): void {
    this.#abandoned = true;
    for (const giveUp of this.#underWay.values()) giveUp();
    for (const giveUp of this.#leasing) giveUp();
    this.#leasing.clear();
  }

  /** Resolves when nothing that was sent is under way any more, given up or not. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#underWay.keys());
  }

  /** Null where it was abandoned first. */
  #lease(memory: BufferPool, bytes: number): Promise<Lease | null> | Lease {
    const leasing = memory.lease(bytes);
    if (!(leasing instanceof Promise)) return leasing;
    return new Promise((resolve) => {
      const giveUp = (): void => {
        resolve(null);
        void leasing.then((late) => late.release());
      };
      if (this.#abandoned) return giveUp();
      this.#leasing.add(giveUp);
      void leasing.then((lease) => { if (this.#leasing.delete(giveUp)) resolve(lease); });
    });
  }

  #send(edge: BlockChild, request: BlockRequest): Promise<void> {
    if (this.#abandoned) return Promise.reject(abandonment());
    const sent = edge.submit(request);
    if (sent === DONE) return DONE;
    return new Promise((resolve, reject) => {
      this.#underWay.set(sent, () => reject(abandonment()));
      sent.finally(() => this.#underWay.delete(sent)).then(resolve, reject);
    });
  }

  /** Zeros that the target itself holds already are not written. What it shows of others, or only for want of others, does not count: they may change, or come. */
  async #zero(start: number, bytes: number, ioClass: IoClass): Promise<void> {
    const end = start + bytes;
    for (let at = start; at < end;) {
      const status = await this.#ofTarget(at, end - at);
      if (status.kind !== 'zero') await this.#send(this.#target, makeRequest('write-zeroes', at, status.bytes, null, RequestFlag.OWN_ZEROES, ioClass));
      at += status.bytes;
    }
  }

  async #ofTarget(at: number, bytes: number): Promise<BlockStatus> {
    const inside = Math.min(bytes, this.#target.length() - at);
    return inside > 0 ? this.#target.blockStatus(at, inside) : { kind: 'data', bytes };
  }

  #whole({ start, end }: Piece): number {
    return alignUp(end - start, this.clusterSize);
  }

  #pieceIn(offset: number, end: number): Piece | undefined {
    for (const piece of this.#pieces) if (piece.start < end && offset < piece.end) return piece;
    return undefined;
  }
}

function intersect(one: DirtyBitmap, other: DirtyBitmap): boolean {
  for (let at = one.nextDirty(0); at < one.size;) {
    const end = one.nextClean(at);
    if (other.nextDirty(at, end) < end) return true;
    at = one.nextDirty(end);
  }
  return false;
}

function topLayer(node: BlockNode): BlockNode {
  const below = node.driver.kind === 'filter' ? node.children.find(({ role }) => role === 'filtered') : undefined;
  return below === undefined ? node : topLayer(below.node);
}

function abandonment(): BlockError {
  return new BlockError('CANCELLED', 'Operation canceled', { errno: 'ECANCELED' });
}

/** Resolves with what failed. */
export async function attempt(operation: CopyFailure['operation'], work: () => Promise<void>): Promise<CopyFailure | null> {
  try {
    await work();
    return null;
  } catch (error) {
    return { operation, error: error instanceof Error ? error : new Error(String(error)) };
  }
}

/** Thrown inside a pool of workers to make it stop. */
class Stop extends Error {}

class Call implements CopyCall {
  readonly ended: Promise<CopyFailure | null>;
  readonly #copy: BlockCopy;
  readonly #options: CopyCallOptions;
  #failure: CopyFailure | null = null;
  #cancelled = false;
  #finished = false;
  #sleeping: AbortController | null = null;

  constructor(copy: BlockCopy, options: CopyCallOptions) {
    this.#copy = copy;
    this.#options = options;
    this.ended = this.#run().finally(() => { this.#finished = true; });
  }

  get finished(): boolean { return this.#finished; }
  get cancelled(): boolean { return this.#cancelled; }

  cancel(): void {
    this.#cancelled = true;
    this.wake();
  }

  wake(): void {
    this.#sleeping?.abort();
  }

  get #stopped(): boolean { return this.#cancelled || this.#failure !== null; }

  async #run(): Promise<CopyFailure | null> {
    const { offset, bytes } = this.#options;
    const end = Math.min(offset + bytes, this.#copy.length);
    while (!this.#stopped) {
      if (await this.#copyDirty(offset, end)) continue;
      const other = this.#copy.oneEnded(offset, end);
      if (other === null || this.#stopped) break;
      // it may fail, and leave its clusters to us
      await other;
    }
    return this.#failure;
  }

  /** One pass over the range; returns whether anything was dirty. */
  async #copyDirty(from: number, end: number): Promise<boolean> {
    const { maxWorkers = MAX_COPY_WORKERS, maxChunk = 0, zeroChunk, spend = () => 0 } = this.#options;
    const pool = new TaskPool(maxWorkers);
    let found = false;
    for (let at = from; at < end && !this.#stopped;) {
      const piece = this.#copy.claim(at, end, maxChunk);
      if (piece === null) break;
      found = true;
      const kind = await this.#copy.look(piece, Math.min(zeroChunk ?? 0, end - piece.start));
      if (kind === 'skip') {
        this.#copy.release(piece, 'skipped');
        at = piece.end;
        continue;
      }
      const wait = spend(0);
      if (wait > 0) {
        this.#copy.release(piece, 'failed');
        await this.#sleep(wait);
        continue;
      }
      spend(piece.end - piece.start);
      at = piece.end;
      await pool.run(() => this.#copyPiece(piece, kind)).catch(() => this.#copy.release(piece, 'failed'));
    }
    await pool.drain().catch(() => undefined);
    return found;
  }

  async #sleep(ms: number): Promise<void> {
    if (this.#cancelled) return;
    this.#sleeping = new AbortController();
    await (this.#options.clock ?? systemClock).sleep(ms, this.#sleeping.signal);
    this.#sleeping = null;
  }

  async #copyPiece(piece: Piece, kind: 'data' | 'zero'): Promise<void> {
    const failure = await this.#copy.copy(piece, kind, this.#options.ioClass ?? 'interactive');
    this.#copy.release(piece, failure === null ? 'copied' : 'failed');
    if (failure === null) return;
    this.#failure ??= failure;
    throw new Stop('a piece could not be copied');
  }
}
