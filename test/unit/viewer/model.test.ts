import { describe, expect, test } from '@jest/globals';
import { Category } from '../../../src/trace/record.js';
import { latencyAt, latencyBucket, POWERS, SEEK_BUCKETS, SEEK_MIDDLE } from '../../../src/viewer/buckets.js';
import { TraceModel } from '../../../src/viewer/model.js';
import { OPS, READ, WRITE } from '../../../src/viewer/operations.js';
import type { ScatterQuery } from '../../../src/viewer/scatter.js';
import { DATA, GUEST, HOST, makeTable, METADATA, tableOf, type MadeIo } from '../../support/io-table.js';

const ALL = {};
const io = (queued: number, completed: number, more: Partial<MadeIo> = {}): MadeIo => ({ queued, issued: queued, completed, ...more });
const scatterQuery = (more: Partial<ScatterQuery>): ScatterQuery => ({
  from: 0, to: 100, columns: 10, rows: 10, sectorFrom: 0, sectorTo: 100, colour: 'op', filter: ALL, ...more,
});
const nonZero = (counts: Uint32Array, from = 0, to = counts.length): [number, number][] => [...counts.subarray(from, to)]
  .map((count, place): [number, number] => [place, count]).filter(([, count]) => count > 0);

describe('queue depth', () => {
  test('is a step function, exact between any two events', () => {
    const model = new TraceModel(tableOf([io(10, 40), io(20, 60), io(60, 80)]));
    const { steps, peak, average } = model.depth({ from: 0, to: 100, columns: 4, filter: ALL });
    expect([[...steps!.time], [...steps!.depth]]).toEqual([[0, 10, 20, 40, 80], [0, 1, 2, 1, 0]]);
    expect([peak, average]).toEqual([2, (30 + 40 + 20) / 100]);
  });

  test('in bins: least, most, and the mean over time', () => {
    const model = new TraceModel(tableOf([io(10, 40), io(20, 60), io(60, 80)]));
    const { min, max, mean } = model.depth({ from: 0, to: 100, columns: 4, filter: ALL });
    expect([[...min], [...max]]).toEqual([[0, 1, 1, 0], [2, 2, 1, 1]]);
    expect([...mean]).toEqual([(10 + 5 * 2) / 25, (15 * 2 + 10) / 25, (10 + 15) / 25, 5 / 25]);
  });

  test('of a window counts what began before it', () => {
    const model = new TraceModel(tableOf([io(0, 1000), io(10, 1000), io(20, 30)]));
    expect(model.depth({ from: 100, to: 200, columns: 2, filter: ALL })).toMatchObject({ peak: 2, average: 2 });
  });

  test('leaves out what was merged and what was refused, and takes what never ended as in flight', () => {
    const model = new TraceModel(tableOf([
      io(0, 50), { queued: 1, mergedInto: 0, completed: 50 }, { queued: 2, completed: 3, error: 22 }, { queued: 60, issued: 60 },
    ], 100));
    expect([...model.depth({ from: 0, to: 100, columns: 10, filter: ALL }).max]).toEqual([1, 1, 1, 1, 1, 0, 1, 1, 1, 1]);
  });

  test('equals a count by hand at any time of a large trace', () => {
    const table = makeTable(4000);
    const model = new TraceModel(table);
    const [from, to] = [2e9, 6e9];
    const { steps } = model.depth({ from, to, columns: 4000, filter: { devices: [HOST] } });
    for (let place = 1; place < steps!.time.length; place += 37) {
      const at = steps!.time[place]!;
      const next = steps!.time[place + 1];
      if (next === at) continue;
      let byHand = 0;
      for (let row = 0; row < table.count; row++) if (table.device[row] === HOST && table.issued[row]! <= at && table.completed[row]! > at) byHand++;
      expect([at, steps!.depth[place]]).toEqual([at, byHand]);
    }
  });
});

describe('the scatter of offsets over time', () => {
  test('marks each cell that a request touches, by class', () => {
    const model = new TraceModel(tableOf([
      io(5, 6, { sector: 0, bytes: 5120 }), io(15, 16, { sector: 25, bytes: 20 * 512, category: Category.WRITE }), io(95, 96, { sector: 99, bytes: 512 }),
    ]));
    const { x, y, kind, hits, classes } = model.scatter(scatterQuery({}));
    expect(classes).toEqual(OPS);
    expect([...x].map((column, cell) => [column, y[cell], kind[cell], hits[cell]])).toEqual([[0, 0, READ, 1], [9, 9, READ, 1], [1, 2, WRITE, 1], [1, 3, WRITE, 1], [1, 4, WRITE, 1]]);
  });

  test('flushes and discards are marks of their own', () => {
    const model = new TraceModel(tableOf([
      io(5, 6, { bytes: 0, category: Category.WRITE + Category.FLUSH }), io(25, 26, { sector: 0, bytes: 51_200, category: Category.WRITE + Category.DISCARD }),
    ]));
    const { kind, flushes, classes } = model.scatter(scatterQuery({}));
    expect([...flushes]).toEqual([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expect([...kind]).toEqual(Array.from({ length: 10 }, () => classes.length));
  });

  test('no request is lost: hits of one-cell requests sum up to what matched', () => {
    const table = tableOf(Array.from({ length: 1000 }, (_, i) => io(i, i + 1, { sector: (i * 7919) % 1000, bytes: 512 })));
    const { hits, matched } = new TraceModel(table).scatter(scatterQuery({ to: 1000, sectorTo: 1000, rows: 100 }));
    expect([hits.reduce((sum, count) => sum + count, 0), matched]).toEqual([1000, 1000]);
  });

  test('by process and by layer the classes have names', () => {
    const model = new TraceModel(makeTable(400));
    const named = (colour: 'process' | 'layer'): readonly string[] => model.scatter(scatterQuery({ to: 1e10, sectorTo: 2 ** 27, colour })).classes;
    expect([...named('process')].toSorted()).toEqual(['backup (103)', 'fio (100)', 'mirror (101)', 'nbd-client (102)']);
    expect(named('layer')).toEqual(['4000,0 guest disk', '4000,1 qcow2 data', '4000,2 qcow2 metadata', '4000,3 host file']);
  });

  test('few requests come as they are, those from before the window too', () => {
    const model = new TraceModel(tableOf([io(1, 2), io(5, 500, { sector: 9 }), io(120, 130), io(300, 310)]));
    const points = model.points(scatterQuery({ from: 100, to: 200 }), 10)!;
    expect([[...points.row], [...points.to]]).toEqual([[1, 2], [500, 130]]);
    expect(model.points(scatterQuery({ from: 100, to: 200 }), 1)).toBeNull();
  });
});

describe('traffic', () => {
  const query = { from: 0, to: 100, columns: 2, heatColumns: 2, filter: ALL, latency: 'q2c' } as const;

  test('counts what was completed, when it was', () => {
    const model = new TraceModel(tableOf([io(0, 10), io(1, 60, { category: Category.WRITE, bytes: 8192 }), io(2, 99), { queued: 3 }]));
    const { ios, bytes, totalIos } = model.traffic(query);
    expect([...ios.subarray(0, 4)]).toEqual([1, 1, 0, 1]);
    expect([...bytes.subarray(0, 4)]).toEqual([4096, 4096, 0, 8192]);
    expect([...totalIos]).toEqual([2, 1, 0, 0, 0]);
  });

  test('percentiles are right within 1.2 %, and early errors are no latencies', () => {
    const table = tableOf([
      ...Array.from({ length: 1000 }, (_, i) => io(0, 1000 * (i + 1))), { queued: 0, completed: 1, error: 22 },
    ]);
    const { heat } = new TraceModel(table).traffic({ ...query, to: 2e6 });
    expect(Math.abs(heat.overall.p50 / 500_000 - 1)).toBeLessThan(0.012);
    expect(Math.abs(heat.overall.p99 / 990_000 - 1)).toBeLessThan(0.012);
    expect(heat.counts.reduce((sum, count) => sum + count, 0)).toBe(1000);
    expect(heat.from).toBeLessThanOrEqual(1000);
  });

  test('D2C begins with the issue', () => {
    const { heat } = new TraceModel(tableOf([io(0, 100_000, { issued: 90_000 })])).traffic({ ...query, to: 1e6, latency: 'd2c' });
    expect(Math.abs(heat.overall.p50 / 10_000 - 1)).toBeLessThan(0.012);
  });

  test('a bucket holds what it says', () => {
    for (const ns of [1, 7, 1000, 123_456, 5e9]) {
      const bucket = latencyBucket(ns);
      expect(latencyAt(bucket)).toBeLessThanOrEqual(ns * (1 + 1e-9));
      expect(latencyAt(bucket + 1)).toBeGreaterThan(ns);
    }
  });
});

describe('shapes', () => {
  const query = { from: 0, to: 1000, columns: 1, filter: ALL };

  test('sizes by powers of two', () => {
    const { sizes } = new TraceModel(tableOf([io(0, 1, { bytes: 512 }), io(1, 2, { bytes: 4096 }), io(2, 3, { bytes: 5000, category: Category.WRITE })])).shapes(query);
    expect([nonZero(sizes, 0, POWERS), nonZero(sizes, POWERS, 2 * POWERS)]).toEqual([[[9, 1], [12, 1]], [[12, 1]]]);
  });

  test('seeks per direction: reads between writes do not make writes random', () => {
    const made = Array.from({ length: 10 }, (_, i) => [
      io(i * 10, i * 10 + 1, { sector: 5000 - i * 9, bytes: 512 }), io(i * 10 + 1, i * 10 + 2, { sector: i * 8, category: Category.WRITE }),
    ]).flat();
    const { seeks, runs } = new TraceModel(tableOf(made)).shapes(query);
    expect(nonZero(seeks, SEEK_BUCKETS)).toEqual([[SEEK_MIDDLE, 9]]);
    expect(nonZero(seeks, 0, SEEK_BUCKETS)).toEqual([[SEEK_MIDDLE - 4, 9]]);
    expect(nonZero(runs, POWERS)).toEqual([[3, 1]]);
    expect(nonZero(runs, 0, POWERS)).toEqual([[0, 10]]);
  });

  test('runs of two processes that take turns are two runs', () => {
    const made = Array.from({ length: 8 }, (_, i) => io(i, i + 1, { pid: 100 + (i % 2), sector: Math.floor(i / 2) * 8 + (i % 2) * 9000 }));
    expect(nonZero(new TraceModel(tableOf(made)).shapes(query).runs)).toEqual([[2, 2]]);
  });
});

describe('requests', () => {
  test('a filter holds for all panels', () => {
    const table = makeTable(4000);
    const model = new TraceModel(table);
    const filter = { ops: ['write'], pids: [101], devices: [DATA] } as const;
    let byHand = 0;
    for (let row = 0; row < table.count; row++) {
      const isWrite = table.category[row] === Category.WRITE && table.bytes[row]! > 0;
      if (table.device[row] === DATA && table.pid[row] === 101 && isWrite) byHand++;
    }
    expect(byHand).toBeGreaterThan(10);
    expect(model.scatter(scatterQuery({ to: 1e10 + 1, sectorTo: 2 ** 28, filter })).matched).toBe(byHand);
    expect(model.rows(model.span, filter, 10_000)).toHaveLength(byHand);
  });

  test('the nearest is found by time and sector, and nothing that is far away', () => {
    const model = new TraceModel(tableOf([io(0, 900, { sector: 500 }), io(100, 110, { sector: 0 }), io(105, 110, { sector: 80 })]));
    const nearest = (time: number, sector: number): number => model.nearest({ time, sector, timeUnit: 1, sectorUnit: 1, filter: ALL });
    expect([nearest(106, 2), nearest(106, 79), nearest(700, 505), nearest(300, 250)]).toEqual([1, 2, 0, -1]);
  });

  test('a family goes up to the guest and down to the host', () => {
    const model = new TraceModel(tableOf([
      io(0, 90, { device: GUEST }), io(1, 80, { device: DATA, parent: 0 }), io(2, 30, { device: METADATA, parent: 0, cause: 'l2-alloc' }),
      io(3, 70, { device: HOST, parent: 1 }), { queued: 4, device: HOST, mergedInto: 3 }, io(5, 25, { device: HOST, parent: 2 }), io(6, 7),
    ]));
    const family = (row: number): unknown => model.family(row).members.map(({ row: member, level, how }) => [member, level, how]);
    expect(family(0)).toEqual([[0, 0, 'itself'], [1, 1, 'child'], [3, 2, 'child'], [4, 2, 'merged'], [2, 1, 'child'], [5, 2, 'child']]);
    expect(family(3)).toEqual([[0, 0, 'parent'], [1, 1, 'parent'], [3, 2, 'itself'], [4, 2, 'merged']]);
    expect(model.family(0, 3)).toMatchObject({ cut: true, members: { length: 3 } });
    expect(model.bottomDevices).toEqual([HOST]);
  });

  test('links in a circle, or to nowhere, end', () => {
    const model = new TraceModel(tableOf([io(0, 1, { parent: 1 }), io(1, 2, { parent: 0 }), io(2, 3, { parent: 99 })]));
    expect(model.family(0).members.map(({ row }) => row)).toEqual([1, 0]);
    expect(model.family(2).members).toEqual([{ row: 2, level: 0, how: 'itself' }]);
  });

  test('an empty trace has panels too', () => {
    const model = new TraceModel(tableOf([]));
    expect(model.span).toEqual({ from: 0, to: 1 });
    expect(model.scatter(scatterQuery({ ...model.span })).matched).toBe(0);
    expect(model.traffic({ ...model.span, columns: 3, heatColumns: 3, filter: ALL, latency: 'q2c' }).heat.rows).toBe(0);
    expect(model.depth({ ...model.span, columns: 3, filter: ALL }).peak).toBe(0);
    expect([model.rows(model.span, ALL, 5), model.bottomDevices]).toEqual([[], []]);
  });
});
