/** BitArray next to an array of booleans. */
import { expect, test } from '@jest/globals';
import { Random } from '../../../src/base/clock.js';
import { BitArray } from '../../../src/block/bit-array.js';

const SEGMENT = 0x2_0000;
const LENGTHS = [1, 31, 64, 1000, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 77];

function expectSame(bits: BitArray, model: readonly boolean[], random: Random): void {
  expect(bits.length).toBe(model.length);
  expect(bits.ones).toBe(model.filter(Boolean).length);
  for (let i = 0; i < 30; i++) {
    const from = random.below(model.length);
    const end = from + random.below(model.length - from + 1);
    const find = (value: boolean): number => {
      const found = model.indexOf(value, from);
      return found < 0 || found >= end ? end : found;
    };
    expect(bits.nextSet(from, end)).toBe(find(true));
    expect(bits.nextClear(from, end)).toBe(find(false));
    expect(bits.get(from)).toBe(model[from]);
  }
}

function encoded(model: readonly boolean[]): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(model.length / 8) + 5);
  model.forEach((bit, index) => { if (bit) bytes[index >>> 3]! += 2 ** (index % 8); });
  return bytes;
}

test.each(LENGTHS)('sets, clears, finds and encodes as an array of %i booleans', (length) => {
  const random = new Random(length);
  const bits = new BitArray(length);
  const model = Array.from({ length }, () => false);
  for (let step = 0; step < 25; step++) {
    const first = random.below(length);
    const end = random.chance(0.2) ? length : Math.min(length, first + 1 + random.below(random.chance(0.5) ? 70 : length));
    const value = random.chance(0.6);
    if (value) bits.set(first, end);
    else bits.clear(first, end);
    model.fill(value, first, end);
    expectSame(bits, model, random);
  }
  const bytes = new Uint8Array(Math.ceil(length / 8) + 5).fill(0xee);
  bits.encode(0, bytes);
  expect(Buffer.compare(bytes, encoded(model))).toBe(0);
  const again = new BitArray(length);
  for (let at = 0; at < bytes.byteLength; at += 512) again.decode(at * 8, bytes.subarray(at, at + 512));
  expectSame(again, model, random);
});

test('bits beyond the length are neither set nor decoded', () => {
  const bits = new BitArray(10);
  bits.decode(0, new Uint8Array(4).fill(0xff));
  expect(bits.ones).toBe(10);
  bits.set(5, 100);
  expect([bits.ones, bits.nextClear(3, 100), bits.nextSet(10, 100)]).toEqual([10, 10, 100]);
});

test('a smaller length drops bits, a larger one adds clear ones', () => {
  const bits = new BitArray(2 * SEGMENT);
  bits.set(0, 2 * SEGMENT);
  bits.resize(SEGMENT + 10);
  expect(bits.ones).toBe(SEGMENT + 10);
  bits.resize(3 * SEGMENT);
  expect(bits.ones).toBe(SEGMENT + 10);
  expect(bits.nextClear(0, 3 * SEGMENT)).toBe(SEGMENT + 10);
});

test('a union and a copy', () => {
  const [a, b] = [new BitArray(3 * SEGMENT), new BitArray(3 * SEGMENT)];
  a.set(10, 20);
  b.set(15, 2 * SEGMENT);
  const before = a.copy();
  a.or(b);
  expect([a.ones, a.nextSet(0, 100), a.nextClear(10, 3 * SEGMENT)]).toEqual([2 * SEGMENT - 10, 10, 2 * SEGMENT]);
  expect([before.ones, b.ones]).toEqual([10, 2 * SEGMENT - 15]);
});

test('a bitmap of an 8 TiB disk in granules of 512 bytes is scanned in no time, wherever it is clean', () => {
  const length = 2 ** 34;
  const bits = new BitArray(length);
  bits.set(length - 1, length);
  bits.set(0, 1);
  const started = performance.now();
  expect(bits.nextSet(1, length)).toBe(length - 1);
  expect(performance.now() - started).toBeLessThan(1000);
});
