/** The numbers of `analyseTrace` are btt's, to the last digit that it prints, wherever btt is right. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from '@jest/globals';
import { analyseTrace, BTT_ROWS, openTrace, type BttDevice, type Summary, type TraceAnalysis } from '../../src/index.js';
import { parseBtt, type BttText } from '../support/btt.js';
import { peers } from '../support/peers.js';
import { repository, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { CAPTURES } from '../support/trace-captures.js';

const tmp = useTmp();
const fixtures = join(repository, 'fixtures', 'trace');

/** One file with all CPUs, as btt wants it. */
async function dumpOf(name: string, directory: string): Promise<string> {
  const dump = join(directory, 'all.bin');
  const packed = await readFile(join(fixtures, `${name}.bin.gz`)).catch(() => null);
  if (packed === null) await runOk('blkparse', ['-O', '-i', join(fixtures, name), '-d', dump]);
  else await writeFile(dump, gunzipSync(packed));
  return dump;
}

/** btt leaves files where it stands. */
async function bttOf(dump: string, directory: string): Promise<BttText> {
  const beside = join(directory, 'btt');
  await mkdir(beside, { recursive: true });
  await runOk('btt', ['-i', dump, '-o', join(beside, 'x')], { cwd: beside });
  return parseBtt(await readFile(join(beside, 'x.avg'), 'utf8'));
}

const seconds = (ns: number): string => (ns / 1e9).toFixed(9);
const row = ({ min, mean, max, count }: Summary): string => `${seconds(min)} ${seconds(mean)} ${seconds(max)} ${count}`;

/** What btt takes for itself: it knows one piece of what was split, and one request of those at the same sectors. */
function isExact({ counts }: TraceAnalysis, name: string): boolean {
  return counts.splits === 0 && counts.merges === 0 && name !== 'saturated';
}

peers('blkparse', 'btt')("btt's numbers", () => {
  test.each(Object.keys(CAPTURES))('of %s', async (name) => {
    const directory = tmp();
    await mkdir(directory, { recursive: true });
    const dump = await dumpOf(name, directory);
    const [theirs, ours] = [await bttOf(dump, directory), await analyseTrace(await openTrace(dump))];
    const exact = isExact(ours, name);
    for (const title of exact ? BTT_ROWS : ['Q2Q'] as const) {
      const there = theirs.rows[title];
      const shown = there === undefined ? null : `${there.min.toFixed(9)} ${there.avg.toFixed(9)} ${there.max.toFixed(9)} ${there.n}`;
      expect([title, ours.btt.all[title].count === 0 ? null : row(ours.btt.all[title])]).toEqual([title, shown]);
    }
    const [device] = ours.btt.devices.all.values();
    expectDevice(device!, theirs, exact);
  }, 120_000);
});

function expectDevice(device: BttDevice, { devices }: BttText, exact: boolean): void {
  const [merges] = devices['Device Merge Information']!;
  // it takes issues for what was queued where there are more of them
  expect([Math.max(device.queues, device.issues), device.issues, device.blocks.min, Math.floor(device.blocks.sum / device.issues), device.blocks.max, device.blocks.sum])
    .toEqual([merges![0], merges![1], ...merges!.slice(3)]);
  for (const [title, seeks] of [['Device Q2Q Seek Information', device.queueSeeks], ['Device D2D Seek Information', device.issueSeeks]] as const) {
    const [count, mean, , mode, times] = devices[title]![0]!;
    expect([title, seeks.distances.count, seeks.distances.mean.toFixed(1), seeks.mode.count]).toEqual([title, count, mean!.toFixed(1), times]);
    expect(seeks.mode.distances).toContain(mode);
  }
  const [plugs, timer, plugged] = devices['Plug Information']![0]!;
  expect([device.plugs, device.timerUnplugs, (100 * device.pluggedNs / (device.lastNs - device.firstNs)).toFixed(6)]).toEqual([plugs, timer, plugged!.toFixed(6)]);
  if (!exact) return;
  const share = (part: Summary): string => (100 * part.sum / device.q2cNs).toFixed(4);
  const { Q2G, G2I, Q2M, I2D, D2C } = device.rows;
  expect([Q2G, G2I, Q2M, I2D, D2C].map(share)).toEqual(devices['Device Overhead']![0]!.map((value) => value.toFixed(4)));
  const { active } = device;
  const lull = (active.lastNs - active.busyNs) / (active.busyPeriods - 1);
  expect([active.busyPeriods, seconds(active.busyNs / active.busyPeriods), seconds(lull), (100 * active.busyNs / active.lastNs).toFixed(2)])
    .toEqual(((live) => [live[0], live[1]!.toFixed(9), live[2]!.toFixed(9), live[3]!.toFixed(2)])(devices['I/O Active Period Information']![0]!));
}
