import { expect, test } from '@jest/globals';
import { Random } from '../../../src/base/clock.js';
import { SegmentedBitSet } from '../../../src/base/segmented-bitset.js';

test('tells apart indices that are equal modulo 2^32, and keeps the largest', () => {
  const set = new SegmentedBitSet();
  const indices = [0, 5, 31, 32, SegmentedBitSet.SEGMENT_BITS - 1, SegmentedBitSet.SEGMENT_BITS, 2 ** 32 + 5, Number.MAX_SAFE_INTEGER];
  for (const index of indices) expect(set.add(index)).toBe(true);
  for (const index of indices) expect(set.add(index)).toBe(false);
  expect(set.size).toBe(indices.length);
  expect([...set]).toEqual(indices);
  expect(set.delete(2 ** 32 + 5)).toBe(true);
  expect(set.delete(2 ** 32 + 5)).toBe(false);
  expect(set.has(2 ** 32 + 5)).toBe(false);
  expect(set.has(5)).toBe(true);
  expect(set.delete(2 ** 40)).toBe(false);
});

test.each([1, 2])('matches a Set (seed %i)', (seed) => {
  const random = new Random(seed);
  const set = new SegmentedBitSet();
  const model = new Set<number>();
  for (let step = 0; step < 5000; step++) {
    const index = random.below(5) * 2 ** 31 + random.below(300);
    if (random.chance(0.6)) {
      expect(set.add(index)).toBe(!model.has(index));
      model.add(index);
    } else {
      expect(set.delete(index)).toBe(model.delete(index));
    }
    expect(set.has(index)).toBe(model.has(index));
    expect(set.size).toBe(model.size);
  }
  expect([...set]).toEqual([...model].toSorted((a, b) => a - b));
  set.clear();
  expect({ size: set.size, members: [...set] }).toEqual({ size: 0, members: [] });
});
