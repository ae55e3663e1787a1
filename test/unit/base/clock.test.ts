import { expect, test } from '@jest/globals';
import { Random, systemClock } from '../../../src/base/clock.js';

test('the same seed gives the same sequence, and neighbouring seeds different ones', () => {
  const sequence = (seed: number): number[] => {
    const random = new Random(seed);
    return Array.from({ length: 50 }, () => random.next32());
  };
  expect(sequence(7)).toEqual(sequence(7));
  const firsts = new Set(Array.from({ length: 1000 }, (_, seed) => sequence(seed)[0]));
  expect(firsts.size).toBe(1000);
  // pinned, so that a recorded failing seed replays on every version
  expect(sequence(1).slice(0, 3)).toEqual([2442144158, 3238099751, 3819917871]);
});

test('below stays inside its limit, spreads evenly, and reaches beyond 2^32', () => {
  const random = new Random(3);
  const counts = Array.from({ length: 10 }, () => 0);
  for (let i = 0; i < 10_000; i++) counts[random.below(10)]!++;
  expect(Math.min(...counts)).toBeGreaterThan(850);
  expect(Math.max(...counts)).toBeLessThan(1150);
  const large = Array.from({ length: 200 }, () => random.below(2 ** 53));
  expect(large.every((value) => Number.isSafeInteger(value) && value >= 0)).toBe(true);
  expect(large.some((value) => value > 2 ** 50)).toBe(true);
  expect(random.below(1)).toBe(0);
});

test('chance, pick and fill', () => {
  const random = new Random(5);
  expect(random.chance(0)).toBe(false);
  expect(random.chance(1)).toBe(true);
  expect([1, 2, 3]).toContain(random.pick([1, 2, 3]));
  const bytes = new Uint8Array(1027);
  random.fill(bytes.subarray(1));
  expect(bytes[0]).toBe(0);
  expect(new Set(bytes).size).toBeGreaterThan(200);
  expect(bytes.subarray(1019).some((byte) => byte !== 0)).toBe(true);
});

test('the system clock moves on', async () => {
  const before = systemClock.monotonicMs();
  await systemClock.sleep(5);
  expect(systemClock.monotonicMs() - before).toBeGreaterThan(3);
  expect(Math.abs(systemClock.wallMs() - Date.now())).toBeLessThan(1000);
});
