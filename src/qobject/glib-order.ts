/**
 * The order in which GLib walks a hash table keyed by strings. QEMU names the first unexpected member in this order, and lists the
 * properties of an object in it. Open addressing with growing steps; the table grows by what is occupied, and shrinks again.
 */
import { encode } from './utf8.js';

/** The greatest prime below each power of two: the first probe is the hash modulo it. */
const PRIMES = [1, 2, 3, 7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071, 262_139, 524_287, 1_048_573, 2_097_143, 4_194_301];
const LEAST_SHIFT = 3;

type Slot = string | null | undefined; // null: removed

export class GlibKeys {
  #slots: Slot[] = Array.from({ length: 1 << LEAST_SHIFT });
  #shift = LEAST_SHIFT;
  /** Keys, and keys with removed ones. */
  #count = 0;
  #occupied = 0;

  constructor(keys: Iterable<string> = []) {
    for (const key of keys) this.add(key);
  }

  add(key: string): void {
    const at = this.#find(key);
    const before = this.#slots[at];
    if (before === key) return;
    this.#slots[at] = key;
    this.#count++;
    if (before === undefined) this.#occupied++;
    if (before === undefined) this.#fit();
  }

  delete(key: string): boolean {
    const at = this.#find(key);
    if (this.#slots[at] !== key) return false;
    this.#slots[at] = null;
    this.#count--;
    this.#fit();
    return true;
  }

  *[Symbol.iterator](): Iterator<string> {
    for (const slot of this.#slots) if (typeof slot === 'string') yield slot;
  }

  /** Where the key is, or where it would go. */
  #find(key: string): number {
    let at = this.#first(key);
    let free = -1;
    for (let step = 1; this.#slots[at] !== undefined; step++) {
      if (this.#slots[at] === key) return at;
      if (this.#slots[at] === null && free < 0) free = at;
      at = (at + step) % this.#slots.length;
    }
    return free < 0 ? at : free;
  }

  #first(key: string): number {
    return (Math.imul(hashOf(key), 11) >>> 0) % PRIMES[this.#shift]!;
  }

  #fit(): void {
    const size = this.#slots.length;
    const tooWide = size > this.#count * 4 && size > 1 << LEAST_SHIFT;
    const tooNarrow = size <= this.#occupied + Math.floor(this.#occupied / 16);
    if (tooWide || tooNarrow) this.#resize();
  }

  /** In place, as GLib does: a key that is in the way of another is moved on at once. */
  #resize(): void {
    const old = this.#slots;
    this.#shift = Math.max(Math.floor(this.#count * 1.333).toString(2).length, LEAST_SHIFT);
    const size = 1 << this.#shift;
    const slots: Slot[] = Array.from({ length: Math.max(size, old.length) }, (_, index) => old[index] ?? undefined);
    const settled = new Set<number>();
    this.#slots = slots;
    for (let index = 0; index < old.length; index++) {
      let moving = slots[index];
      if (typeof moving !== 'string' || settled.has(index)) continue;
      slots[index] = undefined;
      while (typeof moving === 'string') {
        let at = this.#first(moving);
        for (let step = 1; settled.has(at); step++) at = (at + step) % size;
        settled.add(at);
        [slots[at], moving] = [moving, slots[at]];
      }
    }
    slots.length = size;
    this.#occupied = this.#count;
  }
}

function hashOf(key: string): number {
  let hash = 5381;
  for (const byte of encode(key)) hash = (Math.imul(hash, 33) + (byte < 0x80 ? byte : byte - 256)) >>> 0;
  // 0 and 1 mark empty and removed slots
  return hash < 2 ? 2 : hash;
}
