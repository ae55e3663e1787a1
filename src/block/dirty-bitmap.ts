/**
 * A dirty bitmap: which granules (2^n bytes) of a node were written since the bitmap was cleared. It may say "dirty" of
 * what is not, never "clean" of what was written. States and error texts are those of QEMU (docs/interop/bitmaps.rst).
 */
import { assert } from '../base/assert.js';
import { isPowerOfTwo } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import { BitArray } from './bit-array.js';

export const MIN_GRANULARITY = 512;
export const MAX_GRANULARITY = 2 ** 31;
const HASH_STEP_BYTES = 64 * 1024;

interface DirtyBitmapOptions {
  readonly name: string;
  /** Bytes that one bit stands for: a power of two, 512 … 2^31. */
  readonly granularity: number;
  /** Bytes of the node. */
  readonly size: number;
  readonly enabled?: boolean;
  readonly persistent?: boolean;
}

/** QEMU's BlockDirtyInfo. */
export interface DirtyBitmapInfo {
  readonly name?: string;
  readonly recording: boolean;
  readonly persistent: boolean;
  readonly inconsistent?: boolean;
  readonly busy: boolean;
  /** Bytes: granules times granularity, so that the last granule may reach past the end of the node. */
  readonly count: number;
  readonly granularity: number;
}

/** What may forbid a verb. */
export type BitmapState = 'busy' | 'readOnly' | 'inconsistent';

/** The bits of a moment, for an undo. */
interface SavedBits {
  readonly bits: BitArray;
}

let made = 0;

export class DirtyBitmap {
  /** Grows with every bitmap that is made: they are listed newest first. */
  serial = ++made;
  /** Empty for the anonymous bitmap that records while another is frozen. */
  name: string;
  readonly granularity: number;
  /** Records the writes of the node. */
  enabled: boolean;
  /** Held by a job or an export: no verb may touch it. */
  busy = false;
  /** Stored in the image when the node closes. */
  persistent: boolean;
  /** It was not saved after its last use: it can be removed, nothing else. */
  inconsistent = false;
  /** Of an image that is open read-only. */
  readOnly = false;
  /** Raised by each change of bits: who stored them knows whether they are still the same. */
  changes = 0;
  #size: number;
  #bits: BitArray;
  #successor: DirtyBitmap | null = null;

  constructor({ name, granularity, size, enabled = true, persistent = false }: DirtyBitmapOptions) {
    assert(isPowerOfTwo(granularity) && granularity >= MIN_GRANULARITY && granularity <= MAX_GRANULARITY, 'granularity of a bitmap');
    this.name = name;
    this.granularity = granularity;
    this.enabled = enabled;
    this.persistent = persistent;
    this.#size = size;
    this.#bits = new BitArray(Math.ceil(size / granularity));
  }

  /** Bytes of the node that it covers. */
  get size(): number { return this.#size; }
  /** Dirty bytes: granules times granularity. */
  get count(): number { return this.#bits.ones * this.granularity; }
  get recording(): boolean { return this.enabled || this.#successor?.enabled === true; }
  get successor(): DirtyBitmap | null { return this.#successor; }

  get(offset: number): boolean {
    return this.#bits.get(Math.floor(offset / this.granularity));
  }

  /** Every granule that the range touches becomes dirty. */
  set(offset: number, bytes: number): void {
    if (bytes <= 0) return;
    this.changes++;
    this.#bits.set(Math.floor(offset / this.granularity), Math.ceil((offset + bytes) / this.granularity));
  }

  /** Every granule that the range covers wholly becomes clean; the last one of the node is cut by its end. */
  clear(offset: number, bytes: number): void {
    const end = offset + bytes;
    const first = Math.ceil(offset / this.granularity);
    const stop = end >= this.#size ? this.#bits.length : Math.floor(end / this.granularity);
    if (stop <= first) return;
    this.changes++;
    this.#bits.clear(first, stop);
  }

  /** First dirty byte in [offset, end), or `end` where all is clean. */
  nextDirty(offset: number, end: number = this.#size): number {
    if (offset >= end) return end;
    const bit = this.#bits.nextSet(Math.floor(offset / this.granularity), Math.ceil(end / this.granularity));
    return Math.min(end, Math.max(offset, bit * this.granularity));
  }

  /** First clean byte in [offset, end), or `end` where all is dirty. */
  nextClean(offset: number, end: number = this.#size): number {
    if (offset >= end) return end;
    const bit = this.#bits.nextClear(Math.floor(offset / this.granularity), Math.ceil(end / this.granularity));
    return Math.min(end, Math.max(offset, bit * this.granularity));
  }

  /** Makes all clean; what it was can be given to `restore`. */
  clearAll(): SavedBits {
    const saved = { bits: this.#bits };
    this.#bits = new BitArray(saved.bits.length);
    this.changes++;
    return saved;
  }

  save(): SavedBits {
    return { bits: this.#bits.copy() };
  }

  /** Back to saved bits, of the same length; with `keepSince` what is dirty now stays dirty, so that no write is lost. */
  restore(saved: SavedBits, keepSince: boolean): void {
    const since = this.#bits;
    this.#bits = saved.bits;
    if (keepSince) this.#bits.or(since);
    this.changes++;
  }

  /** Whatever is dirty in `source`, of the same size, becomes dirty here. The granularities may differ. */
  merge(source: DirtyBitmap): void {
    assert(source.#size === this.#size, 'bitmaps of one size');
    this.changes++;
    if (source.granularity === this.granularity) {
      this.#bits.or(source.#bits);
      return;
    }
    for (let at = source.nextDirty(0); at < source.#size;) {
      const end = source.nextClean(at);
      this.set(at, end - at);
      at = source.nextDirty(end);
    }
  }

  /** New bytes are clean: nothing was written there. */
  resize(size: number): void {
    if (size === this.#size) return;
    this.#size = size;
    this.#bits.resize(Math.ceil(size / this.granularity));
    this.changes++;
    this.#successor?.resize(size);
  }

  /** Freezes it for a job: a successor records from now on. */
  createSuccessor(): DirtyBitmap {
    this.check('busy');
    assert(this.#successor === null, 'a frozen bitmap is busy');
    this.#successor = new DirtyBitmap({ name: '', granularity: this.granularity, size: this.#size, enabled: this.enabled });
    this.enabled = false;
    this.busy = true;
    return this.#successor;
  }

  /** While frozen: what it and its successor say together, as one that may be stored. */
  withSuccessor(): DirtyBitmap {
    if (this.#successor === null) return this;
    const { name, granularity, persistent } = this;
    const union = new DirtyBitmap({ name, granularity, size: this.#size, persistent, enabled: this.recording });
    union.merge(this);
    union.merge(this.#successor);
    return union;
  }

  /** The job succeeded: only what the successor recorded is dirty now. */
  abdicate(): void {
    const successor = this.#takeSuccessor();
    this.#bits = successor.#bits;
    this.serial = successor.serial;
  }

  /** The job failed: what was dirty before still is, and what was written since. */
  reclaim(): void {
    const successor = this.#takeSuccessor();
    this.#bits.or(successor.#bits);
  }

  #takeSuccessor(): DirtyBitmap {
    const successor = this.#successor;
    assert(successor !== null, 'a bitmap with a successor');
    this.#successor = null;
    this.enabled = successor.enabled;
    this.busy = false;
    this.changes++;
    return successor;
  }

  /** Bytes that `encode` fills for the whole bitmap. */
  get encodedBytes(): number { return Math.ceil(this.#bits.length / 8); }

  /** The bytes of the stored form from `position` (a multiple of 4) on, zeros beyond the end. */
  encode(position: number, into: Uint8Array): void {
    this.#bits.encode(position * 8, into);
  }

  /** Sets what is set in a part of the stored form. */
  decode(position: number, bytes: Uint8Array): void {
    this.#bits.decode(position * 8, bytes);
  }

  /** What all bits of a part of the stored form are. */
  uniform(position: number, bytes: number): 'clean' | 'dirty' | 'mixed' {
    const end = Math.min(this.#bits.length, (position + bytes) * 8);
    if (this.#bits.nextSet(position * 8, end) === end) return 'clean';
    return this.#bits.nextClear(position * 8, end) === end ? 'dirty' : 'mixed';
  }

  /** QEMU's x-debug-block-dirty-bitmap-sha256: over its words of 64 bits, at least one. */
  sha256(): string {
    // loaded here: commands that only open an image must not pay for it
    const hash = process.getBuiltinModule('node:crypto').createHash('sha256');
    const total = Math.max(8, Math.ceil(this.#bits.length / 64) * 8);
    for (let at = 0; at < total; at += HASH_STEP_BYTES) {
      const part = new Uint8Array(Math.min(HASH_STEP_BYTES, total - at));
      this.encode(at, part);
      hash.update(part);
    }
    return hash.digest('hex');
  }

  info(): DirtyBitmapInfo {
    return {
      ...(this.name === '' ? {} : { name: this.name }),
      recording: this.recording,
      persistent: this.persistent,
      ...(this.inconsistent ? { inconsistent: true } : {}),
      busy: this.busy,
      count: this.count,
      granularity: this.granularity,
    };
  }

  /** Throws, in QEMU's words, where one of the states forbids what is asked. */
  check(...states: readonly BitmapState[]): void {
    if (states.includes('busy') && this.busy) {
      throw new BlockError('BUSY', `Bitmap '${this.name}' is currently in use by another operation and cannot be used`);
    }
    if (states.includes('readOnly') && this.readOnly) throw new BlockError('READ_ONLY', `Bitmap '${this.name}' is readonly and cannot be modified`);
    if (states.includes('inconsistent') && this.inconsistent) {
      throw new BlockError('CORRUPT', `Bitmap '${this.name}' is inconsistent and cannot be used`);
    }
  }
}
