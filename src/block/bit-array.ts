/**
 * Bits by index, up to 2^53: cut into segments, so that areas all clear or all set cost nothing, and scanned by words.
 * The byte form is that of qcow2 (and QEMU's): bit n is bit n % 8 of byte n / 8.
 */
import { viewOf } from '../base/bytes.js';

const SEGMENT_BITS = 0x2_0000;
const SEGMENT_WORDS = SEGMENT_BITS / 32;

interface Segment {
  readonly words: Uint32Array;
  ones: number;
}

export class BitArray {
  /** Absent = all clear. */
  #segments = new Map<number, Segment | 'full'>();
  #length: number;
  #ones = 0;

  constructor(length: number) {
    this.#length = length;
  }

  get length(): number { return this.#length; }
  /** How many bits are set. */
  get ones(): number { return this.#ones; }

  get(bit: number): boolean {
    return this.nextSet(bit, bit + 1) === bit;
  }

  set(first: number, end: number): void {
    this.#each(first, end, (key, from, to) => this.#ones += this.#setIn(key, from, to));
  }

  clear(first: number, end: number): void {
    this.#each(first, end, (key, from, to) => this.#ones -= this.#clearIn(key, from, to));
  }

  /** First set bit in [from, end); `end` where there is none. */
  nextSet(from: number, end: number): number {
    const stop = Math.min(end, this.#length);
    if (this.#segments.size === 0) return end;
    for (let key = Math.floor(from / SEGMENT_BITS); key * SEGMENT_BITS < stop; key++) {
      const segment = this.#segments.get(key);
      if (segment === undefined) continue;
      const base = key * SEGMENT_BITS;
      const start = Math.max(0, from - base);
      const found = segment === 'full' ? start : scan(segment.words, start, 0);
      if (found < SEGMENT_BITS) return base + found < stop ? base + found : end;
    }
    return end;
  }

  /** First clear bit in [from, end); `end` where there is none. Bits beyond the length are clear. */
  nextClear(from: number, end: number): number {
    const stop = Math.min(end, this.#length);
    for (let key = Math.floor(from / SEGMENT_BITS); key * SEGMENT_BITS < stop; key++) {
      const segment = this.#segments.get(key);
      if (segment === 'full') continue;
      const base = key * SEGMENT_BITS;
      const start = Math.max(0, from - base);
      const found = segment === undefined ? start : scan(segment.words, start, 0xffff_ffff);
      if (found < SEGMENT_BITS && base + found < stop) return base + found;
    }
    return Math.min(end, Math.max(from, this.#length));
  }

  /** Bits beyond a smaller length are gone; new ones are clear. */
  resize(length: number): void {
    if (length < this.#length) this.clear(length, this.#length);
    this.#length = length;
  }

  copy(): BitArray {
    const copy = new BitArray(this.#length);
    copy.#ones = this.#ones;
    for (const [key, segment] of this.#segments) {
      copy.#segments.set(key, segment === 'full' ? 'full' : { words: segment.words.slice(), ones: segment.ones });
    }
    return copy;
  }

  /** Sets every bit that `other`, of the same length, has set. */
  or(other: BitArray): void {
    for (const [key, segment] of other.#segments) {
      const base = key * SEGMENT_BITS;
      if (segment === 'full') this.set(base, base + SEGMENT_BITS);
      else this.#orWords(key, segment.words);
    }
  }

  /** The bits from `first` on (a multiple of 32) as bytes; those beyond the length are zeros. */
  encode(first: number, into: Uint8Array): void {
    into.fill(0);
    const end = Math.min(this.#length, first + into.byteLength * 8);
    const view = viewOf(into);
    this.#each(first, end, (key, from, to) => {
      const segment = this.#segments.get(key);
      if (segment === undefined) return;
      const at = (key * SEGMENT_BITS + from - first) / 8;
      for (let word = from / 32; word * 32 < to; word++) {
        const kept = to - word * 32;
        const value = (segment === 'full' ? 0xffff_ffff : segment.words[word]!) & lowBits(kept);
        putWord(view, at + (word * 32 - from) / 8, value);
      }
    });
  }

  /** Sets the bits from `first` on (a multiple of 32) that are set in the bytes. */
  decode(first: number, bytes: Uint8Array): void {
    const end = Math.min(this.#length, first + bytes.byteLength * 8);
    const view = viewOf(bytes);
    this.#each(first, end, (key, from, to) => {
      const words = new Uint32Array(SEGMENT_WORDS);
      const at = (key * SEGMENT_BITS + from - first) / 8;
      for (let word = from / 32; word * 32 < to; word++) {
        words[word] = getWord(view, at + (word * 32 - from) / 8) & lowBits(to - word * 32);
      }
      this.#orWords(key, words);
    });
  }

  #each(first: number, end: number, visit: (key: number, from: number, to: number) => void): void {
    const stop = Math.min(end, this.#length);
    for (let key = Math.floor(first / SEGMENT_BITS); key * SEGMENT_BITS < stop; key++) {
      const base = key * SEGMENT_BITS;
      visit(key, Math.max(0, first - base), Math.min(SEGMENT_BITS, stop - base));
    }
  }

  #setIn(key: number, from: number, to: number): number {
    const segment = this.#segments.get(key);
    if (segment === 'full') return 0;
    if (from === 0 && to === SEGMENT_BITS) {
      this.#segments.set(key, 'full');
      return SEGMENT_BITS - (segment?.ones ?? 0);
    }
    const target = segment ?? { words: new Uint32Array(SEGMENT_WORDS), ones: 0 };
    const changed = change(target.words, from, to, true);
    this.#keep(key, target, changed);
    return changed;
  }

  #clearIn(key: number, from: number, to: number): number {
    const segment = this.#segments.get(key);
    if (segment === undefined) return 0;
    if (from === 0 && to === SEGMENT_BITS) {
      this.#segments.delete(key);
      return segment === 'full' ? SEGMENT_BITS : segment.ones;
    }
    const target = segment === 'full' ? { words: new Uint32Array(SEGMENT_WORDS).fill(0xffff_ffff), ones: SEGMENT_BITS } : segment;
    const changed = change(target.words, from, to, false);
    this.#keep(key, target, -changed);
    return changed;
  }

  #orWords(key: number, words: Uint32Array): void {
    const segment = this.#segments.get(key);
    if (segment === 'full') return;
    const target = segment ?? { words: new Uint32Array(SEGMENT_WORDS), ones: 0 };
    let changed = 0;
    for (let word = 0; word < SEGMENT_WORDS; word++) {
      const added = words[word]! & ~target.words[word]!;
      if (added === 0) continue;
      changed += ones(added);
      target.words[word] = target.words[word]! | added;
    }
    this.#ones += changed;
    this.#keep(key, target, changed);
  }

  /** A segment all clear or all set gives its memory back. */
  #keep(key: number, segment: Segment, added: number): void {
    segment.ones += added;
    if (segment.ones === 0) this.#segments.delete(key);
    else this.#segments.set(key, segment.ones === SEGMENT_BITS ? 'full' : segment);
  }
}

/** First bit from `start` on that differs from `skipped` (a word of all zeros or all ones); SEGMENT_BITS = none. */
function scan(words: Uint32Array, start: number, skipped: number): number {
  let word = start >>> 5;
  let rest = (words[word]! ^ skipped) & (0xffff_ffff << (start & 31));
  while (rest === 0) {
    if (++word === SEGMENT_WORDS) return SEGMENT_BITS;
    rest = words[word]! ^ skipped;
  }
  return word * 32 + 31 - Math.clz32(rest & -rest);
}

/** Returns how many bits changed. */
function change(words: Uint32Array, from: number, to: number, value: boolean): number {
  let changed = 0;
  for (let word = from >>> 5; word * 32 < to; word++) {
    const mask = lowBits(to - word * 32) & ~lowBits(Math.max(0, from - word * 32));
    const before = words[word]!;
    const after = value ? before | mask : before & ~mask;
    words[word] = after;
    changed += ones(before ^ after);
  }
  return changed;
}

/** A word whose lowest `count` bits are set; 32 or more = all. */
function lowBits(count: number): number {
  return count >= 32 ? 0xffff_ffff : 2 ** count - 1;
}

function ones(word: number): number {
  let pairs = word - ((word >>> 1) & 0x5555_5555);
  pairs = (pairs & 0x3333_3333) + ((pairs >>> 2) & 0x3333_3333);
  return Math.imul((pairs + (pairs >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

function putWord(view: DataView, at: number, value: number): void {
  if (at + 4 <= view.byteLength) view.setUint32(at, value, true);
  else for (let i = 0; at + i < view.byteLength; i++) view.setUint8(at + i, (value >>> (i * 8)) & 0xff);
}

function getWord(view: DataView, at: number): number {
  if (at + 4 <= view.byteLength) return view.getUint32(at, true);
  let value = 0;
  for (let i = 0; at + i < view.byteLength; i++) value |= view.getUint8(at + i) << (i * 8);
  return value;
}
