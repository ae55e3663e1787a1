/** Numbers of recorded loads against what a slow and plain reading of their records tells. */
import { describe, expect, test } from '@jest/globals';
import { analyseTrace, HISTOGRAM_ERROR, type TraceAnalysis } from '../../../../src/index.js';
import { Action, Category } from '../../../../src/trace/record.js';
import { CAPTURES, openCapture } from '../../../support/trace-captures.js';
import { readerOf } from '../../../support/trace-script.js';

interface Plain { readonly time: number; readonly action: number; readonly category: number; readonly sector: number; readonly end: number; readonly error: number }

async function plainRecords(name: string): Promise<Plain[]> {
  const records: Plain[] = [];
  for await (const { count, time, action, category, sector, bytes, error } of await openCapture(name)) {
    for (let at = 0; at < count; at++) {
      if ((category[at]! & Category.NOTIFY) !== 0 || bytes[at] === 0) continue;
      records.push({ time: time[at]!, action: action[at]!, category: category[at]!, sector: sector[at]!, end: sector[at]! + bytes[at]! / 512, error: error[at]! });
    }
  }
  return records;
}

/**
 * Queued to issued first, and to completed last, of each request: whatever went to the device within its sectors, or around them, up to
 * the moment in which all of them were done. No sectors are under way twice in these loads.
 */
function bruteForce(records: readonly Plain[]): { q2c: number[]; d2c: number[] } {
  const [q2c, d2c]: [number[], number[]] = [[], []];
  records.forEach((queued, from) => {
    if (queued.action !== Action.QUEUE) return;
    let left = queued.end - queued.sector;
    let issued = NaN;
    for (let at = from + 1; at < records.length && left > 0; at++) {
      const { action, sector, end, time, category, error } = records[at]!;
      const common = Math.min(end, queued.end) - Math.max(sector, queued.sector);
      if (common <= 0 || ((category ^ queued.category) & (Category.WRITE + Category.DISCARD)) !== 0) continue;
      if (action === Action.ISSUE && Number.isNaN(issued)) issued = time;
      if (action !== Action.COMPLETE || (Number.isNaN(issued) && error === 0)) continue;
      left -= common;
      if (left > 0) continue;
      q2c.push(time - queued.time);
      if (!Number.isNaN(issued)) d2c.push(time - issued);
    }
  });
  return { q2c: q2c.sort((a, b) => a - b), d2c: d2c.sort((a, b) => a - b) };
}

describe("btt's numbers, also where btt itself slips (splits, merges at the front)", () => {
  // the readers of `saturated` ask for the same sectors at the same time
  test.each(Object.keys(CAPTURES).filter((name) => name !== 'saturated'))('%s', async (name) => {
    const { btt, statistics } = await analyseTrace(await openCapture(name));
    const expected = bruteForce(await plainRecords(name));
    for (const [row, values] of [['Q2C', expected.q2c], ['D2C', expected.d2c]] as const) {
      const { count, min, max, sum } = btt.all[row];
      expect([row, count, min, max]).toEqual([row, values.length, values[0], values.at(-1)]);
      expect(sum).toBeCloseTo(values.reduce((all, value) => all + value, 0), -1);
    }
    // one device each; refused, failed and discarded requests are no latency
    const [device] = statistics.devices.all.values();
    const left = expected.d2c.length - device!.failed - device!.discards.count;
    expect(device!.spans.d2c.count).toBe(left);
    if (left !== expected.d2c.length) return;
    for (const quantile of [0.5, 0.9, 0.99]) {
      const exact = expected.d2c[Math.ceil(expected.d2c.length * quantile) - 1]!;
      expect(Math.abs(device!.spans.d2c.quantile(quantile) - exact)).toBeLessThanOrEqual(exact * HISTOGRAM_ERROR);
    }
  });
});

async function analysed(lines: string): Promise<TraceAnalysis> {
  return analyseTrace(readerOf(lines));
}

test('what btt drops: requests with the same first sector at once, and the wait of those that were refused', async () => {
  const { btt } = await analysed(`
    10 Q W 0+8
    20 Q W 0+8
    25 Q R 64+8 pid=9
    26 C R 64+8 pid=9 err=65514
    30 D W 0+8
    40 D W 0+8
    100 C W 0+8
    200 C W 0+8
    210 Q W 8+8
    211 D W 8+8
    220 C W 8+8`);
  expect(['Q2C', 'D2C'].map((row) => btt.all[row as 'Q2C']).map(({ count, sum }) => [count, sum])).toEqual([[4, 90 + 180 + 1 + 10], [3, 70 + 160 + 9]]);
  const [device] = btt.devices.all.values();
  expect([device!.queues, device!.issues, device!.waitingSum]).toEqual([4, 3, 0 + 1 + 2 + 0]);
});

test('amplification: what each layer makes of the one above', async () => {
  const { statistics } = await analysed(`
    1 Q W 0+8 dev=1
    2 A W 100+8 dev=2 <0@1
    2 Q W 100+8 dev=2
    3 A W 5000+128 dev=3 <100@2
    3 Q W 5000+128 dev=3
    4 A W 9000+8 dev=3 <100@2
    4 Q W 9000+8 dev=3
    5 C W 5000+128 dev=3
    6 C W 9000+8 dev=3
    7 C W 100+8 dev=2
    8 C W 0+8 dev=1
    10 Q FWS dev=1
    11 A FWS dev=3 <0@1
    11 Q FWS dev=3
    12 C FWS dev=3
    13 C FWS dev=1`);
  expect(statistics.links).toEqual([
    { upper: 1, lower: 2, requests: 1, bytes: 4096, flushes: 0 }, { upper: 2, lower: 3, requests: 2, bytes: 136 * 512, flushes: 0 }, { upper: 1, lower: 3, requests: 1, bytes: 0, flushes: 1 },
  ]);
});

test('sequentiality by process and direction', async () => {
  const { statistics } = await analysed(Array.from({ length: 20 }, (_, at) => `${at * 10} Q ${at % 2 === 0 ? 'R' : 'W'} ${at % 2 === 0 ? at * 4 : 100_000 + at * 800}+8 pid=${at % 2}
    ${at * 10 + 5} C ${at % 2 === 0 ? 'R' : 'W'} ${at % 2 === 0 ? at * 4 : 100_000 + at * 800}+8`).join('\n'));
  const [device] = statistics.devices.all.values();
  expect([...device!.processes.all].map(([pid, { reads, writes }]) => [pid, reads.count, reads.sequentiality, writes.count, writes.sequentiality])).toEqual([[0, 10, 1, 0, NaN], [1, 0, NaN, 10, 0]]);
  expect([device!.reads.sequentiality, device!.writes.sequentiality, device!.outstanding.max, device!.inDevice.max]).toEqual([1, 0, 1, 0]);
});
