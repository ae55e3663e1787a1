import { BitSet } from 'bitset';

/**
 * A set of integers up to 2^53-1. `bitset` computes with 32-bit indices and wraps at 2^32, and a set bit makes it
 * allocate all words below; so the space is cut into segments of 2^20 bits (128 KiB each), made when first used.
 */
export class SegmentedBitSet {
  static readonly SEGMENT_BITS = 0x10_0000;
  readonly #segments = new Map<number, BitSet>();
  #size = 0;

  get size(): number { return this.#size; }

  has(index: number): boolean {
    const segment = this.#segments.get(Math.floor(index / SegmentedBitSet.SEGMENT_BITS));
    return segment !== undefined && segment.get(index % SegmentedBitSet.SEGMENT_BITS) === 1;
  }

  /** Adds the index; returns false where it was already there. */
  add(index: number): boolean {
    const key = Math.floor(index / SegmentedBitSet.SEGMENT_BITS);
    let segment = this.#segments.get(key);
    if (segment === undefined) {
      segment = new BitSet();
      this.#segments.set(key, segment);
    }
    const bit = index % SegmentedBitSet.SEGMENT_BITS;
    if (segment.get(bit) === 1) return false;
    segment.set(bit, 1);
    this.#size++;
    return true;
  }

  delete(index: number): boolean {
    const segment = this.#segments.get(Math.floor(index / SegmentedBitSet.SEGMENT_BITS));
    const bit = index % SegmentedBitSet.SEGMENT_BITS;
    if (segment === undefined || segment.get(bit) === 0) return false;
    segment.set(bit, 0);
    this.#size--;
    return true;
  }

  clear(): void {
    this.#segments.clear();
    this.#size = 0;
  }

  /** All members in ascending order. */
  *[Symbol.iterator](): Generator<number> {
    for (const key of [...this.#segments.keys()].toSorted((a, b) => a - b)) {
      const base = key * SegmentedBitSet.SEGMENT_BITS;
      for (const bit of this.#segments.get(key)!.toArray()) yield base + bit;
    }
  }
}
