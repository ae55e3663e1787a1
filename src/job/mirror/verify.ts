/**
 * Compares both disks before the target takes the source's place. Guests write meanwhile: what they change is compared again,
 * and only what is left at the end, little, while they wait. Both sides are compared as they are read back, byte by byte.
 */
import { BufferPool } from '../../base/buffer-pool.js';
import { alignDown, alignUp, KiB, MiB } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import { DirtyBitmap } from '../../block/dirty-bitmap.js';
import type { WriteObserver } from '../../block/dirty-bitmaps.js';
import type { BlockNode } from '../../block/node.js';
import { chainStatus } from '../../block/status.js';
import type { CopierLimits } from './copier.js';
import type { MirrorState } from './state.js';
import { isRefusedForNow } from './target.js';

const UNIT = 64 * KiB;
const LARGEST_READ = MiB;
const LARGEST_RUN = 1024 * MiB;
const SECTOR = 512;
/** A pass that leaves more than this part of what there was before is of no use: guests change it as fast. */
const SHRINKS = 0.75;

interface Piece {
  readonly offset: number;
  readonly bytes: number;
}

export class MirrorVerifier implements WriteObserver {
  readonly #state: MirrorState;
  readonly #limits: CopierLimits;
  readonly #pool: BufferPool;
  /** What is not known to be equal. */
  readonly #left: DirtyBitmap;
  #position = 0;
  #leftBefore = Infinity;
  #begun = false;

  /** `limits`: of what the mirror may have in flight, now. */
  constructor(state: MirrorState, limits: CopierLimits) {
    this.#state = state;
    this.#limits = limits;
    this.#left = new DirtyBitmap({ name: '', granularity: UNIT, size: state.parts.bitmap.size });
    this.#left.set(0, this.#left.size);
    this.#pool = new BufferPool(16 * MiB);
  }

  /** Bytes that are still to be compared; null before it has begun. */
  get left(): number | null { return this.#begun ? this.#left.count : null; }

  /** Every change of the source, whoever made it, once it has ended. */
  wrote(offset: number, bytes: number): void {
    this.#left.set(offset, bytes);
  }

  /** Compares some of what is left, while guests write. Returns whether guests should wait for the rest. */
  async some(): Promise<boolean> {
    this.#begun = true;
    const { size } = this.#left;
    const start = this.#left.nextDirty(this.#position);
    if (start < size) {
      await this.#compare(start, size);
      return false;
    }
    const left = this.#left.count;
    const enough = left <= this.#room || left > SHRINKS * this.#leftBefore;
    this.#position = 0;
    this.#leftBefore = left;
    return enough;
  }

  /** Compares all that is left; nobody writes. Throws CORRUPT, naming the first range that differs. */
  async rest(): Promise<void> {
    this.#position = 0;
    const { size } = this.#left;
    for (let at = this.#left.nextDirty(0); at < size; at = this.#left.nextDirty(this.#position)) {
      const different = await this.#compare(at, size);
      if (different !== null) throw new BlockError('CORRUPT', `Source and target differ in ${different.bytes} bytes at ${different.offset}`, different);
    }
  }

  /** What the mirror may have in flight: no guest waits long for what lies before it at the target. */
  get #room(): number {
    return Math.min(this.#pool.bytes / 2, Math.max(UNIT, alignDown(this.#limits.operations * this.#limits.operationBytes, UNIT)));
  }

  /** Compares what is left from `start` on, as much as there is room for. Returns the first difference in it. */
  async #compare(start: number, size: number): Promise<Piece | null> {
    const source = await this.#state.parts.source.settled();
    const pieces: Piece[] = [];
    let at = start;
    for (let room = this.#room; room > 0 && at < size;) {
      const end = Math.min(this.#left.nextClean(at), at + LARGEST_RUN);
      // cleared first: what is written from now on is to be compared again
      const zeros = await this.#zeros(source, at, end);
      if (zeros === 0) {
        const bytes = Math.min(end - at, LARGEST_READ, alignUp(room, UNIT));
        pieces.push({ offset: at, bytes });
        room -= bytes;
        at += bytes;
      } else {
        at += zeros;
      }
      at = this.#left.nextDirty(at);
    }
    this.#position = at;
    const found = await allEnded(pieces.map((piece) => this.#comparePiece(source, piece)));
    return found.find((piece) => piece !== null) ?? null;
  }

  /** How much from `at` on both hold as zeros that need not be read: whole units, or up to the end. */
  async #zeros(source: BlockNode, at: number, end: number): Promise<number> {
    this.#left.clear(at, end - at);
    let zero = 0;
    try {
      const mine = await chainStatus(source, at, end - at);
      if (mine.kind === 'data') return 0;
      const { target } = this.#state.parts;
      const theirs = await target.ask(() => chainStatus(target.door.node, at, mine.bytes));
      if (theirs.kind === 'data') return 0;
      const both = at + Math.min(mine.bytes, theirs.bytes);
      zero = (both === this.#left.size ? both : alignDown(both, UNIT)) - at;
      return zero;
    } finally {
      if (at + zero < end) this.#left.set(at + zero, end - at - zero);
    }
  }

  async #comparePiece(source: BlockNode, piece: Piece): Promise<Piece | null> {
    const { offset, bytes } = piece;
    const { target } = this.#state.parts;
    const lease = await this.#pool.lease(2 * bytes);
    let different: Piece | null = piece;
    this.#left.clear(offset, bytes);
    try {
      const mine = lease.buffer.subarray(0, bytes);
      const theirs = lease.buffer.subarray(bytes, 2 * bytes);
      await allEnded([source.read(offset, mine, 'background'), target.send('read', offset, bytes, theirs)]);
      different = firstDifference(mine, theirs, offset);
      return different;
    } catch (error) {
      if (isRefusedForNow(error)) return null;
      throw error;
    } finally {
      if (different !== null) this.#left.set(offset, bytes);
      // it may still write to memory that it was lent
      if (!target.abandoned) lease.release();
    }
  }
}

/** As Promise.all, but nothing is under way any more when it rejects. */
async function allEnded<T>(work: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(work);
  return Promise.all(work);
}

/** The first run of sectors that differ. */
export function firstDifference(mine: Uint8Array, theirs: Uint8Array, at: number): Piece | null {
  if (Buffer.compare(mine, theirs) === 0) return null;
  const differs = (from: number): boolean => Buffer.compare(mine.subarray(from, from + SECTOR), theirs.subarray(from, from + SECTOR)) !== 0;
  let start = 0;
  while (!differs(start)) start += SECTOR;
  let end = start;
  while (end < mine.byteLength && differs(end)) end += SECTOR;
  return { offset: at + start, bytes: Math.min(end, mine.byteLength) - start };
}
