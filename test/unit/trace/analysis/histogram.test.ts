import { describe, expect, test } from '@jest/globals';
import { Counts } from '../../../../src/trace/analysis/counts.js';
import { DepthMeter } from '../../../../src/trace/analysis/depth.js';
import { Histogram, HISTOGRAM_ERROR } from '../../../../src/trace/analysis/histogram.js';
import { Keyed, OTHERS } from '../../../../src/trace/analysis/keyed.js';
import { Seeks } from '../../../../src/trace/analysis/seeks.js';

function randoms(count: number, below: number): number[] {
  let seed = 7;
  return Array.from({ length: count }, () => {
    seed = (seed * 48_271) % 0x7fff_ffff;
    return Math.floor(seed / 0x7fff_ffff * below);
  });
}

describe('a histogram', () => {
  test.each([100, 1e4, 1e6, 1e10, 2 ** 52])('tells quantiles of numbers below %d within its error', (below) => {
    const values = randoms(5000, below);
    const histogram = new Histogram();
    for (const value of values) histogram.add(value);
    values.sort((a, b) => a - b);
    for (const quantile of [0, 0.1, 0.5, 0.9, 0.99, 0.999, 1]) {
      const exact = values[Math.max(0, Math.ceil(values.length * quantile) - 1)]!;
      expect(Math.abs(histogram.quantile(quantile) - exact)).toBeLessThanOrEqual(exact * HISTOGRAM_ERROR);
    }
    expect([histogram.count, histogram.min, histogram.max]).toEqual([5000, values[0], values.at(-1)]);
    expect(histogram.mean).toBeCloseTo(values.reduce((sum, value) => sum + value, 0) / 5000, -1);
  });

  test('tells powers of two exactly where round numbers are asked for', () => {
    for (let bits = 0; bits < 50; bits++) {
      const histogram = new Histogram();
      histogram.add(0);
      for (let time = 0; time < 3; time++) histogram.add(2 ** bits);
      histogram.add(2 ** 52);
      expect(histogram.roundQuantile(0.5)).toBe(2 ** bits);
    }
  });

  test('of nothing knows nothing, and two are one', () => {
    const [one, other] = [new Histogram(), new Histogram()];
    expect(one.quantile(0.5)).toBeNaN();
    one.add(5);
    other.add(5000);
    other.add(7000);
    one.merge(other);
    expect([one.count, one.min, one.max, one.sum]).toEqual([3, 5, 7000, 12_005]);
    expect([...one.buckets()].map(({ from, to, count }) => [from <= 7000 && to > from, count])).toEqual([[true, 1], [true, 1], [true, 1]]);
  });
});

test('a depth is a step function', () => {
  const meter = new DepthMeter();
  meter.enter(10);
  meter.enter(20);
  meter.leave(25);
  meter.leave(40);
  meter.enter(40); // touches
  meter.leave(50);
  meter.enter(100);
  meter.leave(110);
  expect([meter.at(0), meter.at(1), meter.at(2), meter.at(3)]).toEqual([50, 45, 5, 0]);
  expect([meter.max, meter.busyNs, meter.busyPeriods, meter.lastNs]).toEqual([2, 50, 2, 110]);
  expect(meter.meanBusy).toBeCloseTo((45 + 10) / 50);
});

test('seeks are as a list of them would tell', () => {
  const seeks = new Seeks();
  const starts = randoms(2000, 500).map((start) => start * 8);
  const distances: number[] = [];
  let [from, to] = [0, 0];
  for (const start of starts) {
    seeks.add(start, 8);
    const apart = (from <= start && start <= to) || (from <= start + 8 && start + 8 <= to) ? 0 : start > to ? start - to : from - start;
    distances.push(apart);
    [from, to] = [start, start + 8];
  }
  distances.sort((a, b) => a - b);
  const times = new Map<number, number>();
  for (const distance of distances) times.set(distance, (times.get(distance) ?? 0) + 1);
  const most = Math.max(...times.values());
  expect(seeks.median).toBe(distances[999]);
  expect(seeks.mode).toEqual({ distances: [...times].filter(([, count]) => count === most).map(([distance]) => distance).sort((a, b) => a - b), count: most });
  expect(seeks.distances.mean).toBeCloseTo(distances.reduce((sum, distance) => sum + distance, 0) / 2000);
});

test('counts end at their limit, and what they hold goes on', () => {
  const counts = new Counts(3000);
  const refused = Array.from({ length: 5000 }, (_, key) => counts.add(key * 0x1_0000_0001)).filter((taken) => !taken).length;
  expect([counts.size, refused, counts.add(0x1_0000_0001), counts.timesOf(0x1_0000_0001), counts.most]).toEqual([3000, 2000, true, 2, 2]);
  expect([...counts.sorted.subarray(0, 2)]).toEqual([0, 0x1_0000_0001]);
});

test('beyond a limit all share one', () => {
  const keyed = new Keyed(2, (key) => ({ key }));
  expect([5, 6, 7, 8, 5].map((key) => keyed.get(key).key)).toEqual([5, 6, OTHERS, OTHERS, 5]);
});
