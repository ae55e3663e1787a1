/** What recordings of ours tell of metadata, and rules at their thresholds, on records made up for it. */
import { describe, expect, test } from '@jest/globals';
import { analyseTrace } from '../../../../src/index.js';
import { deviceOf } from '../../../../src/trace/record.js';
import { message, readerOf, script, type ScriptRecord } from '../../../support/trace-script.js';

const [DISK, DATA, METADATA] = [0, 1, 2].map((minor) => deviceOf(4000, minor)) as [number, number, number];
const LAYERS: readonly ScriptRecord[] = [
  message(0, 'quiesce device=4000,0 layer=disk driver=qcow2 node= name=vm.qcow2', DISK), message(0, 'quiesce device=4000,1 layer=data driver=qcow2 node= name=vm.qcow2', DATA),
  message(0, 'quiesce device=4000,2 layer=metadata driver=qcow2 node= name=vm.qcow2', METADATA),
];

/** Writes of users of `sectors` each, and one of metadata of 64 KiB after each `every` of them; four at a time. */
function image(writes: number, sectors: number, every: number, layer = DISK): ScriptRecord[] {
  const lines: ScriptRecord[] = [];
  for (let at = 0; at < writes; at++) {
    const time = Math.floor(at / 4) * 1e6;
    const io = { rwbs: 'W', sector: at * sectors, sectors, device: layer };
    lines.push({ ...io, time, action: 'Q' }, { ...io, time: time + 9e5, action: 'C' });
    const table = { rwbs: 'W', sector: at * 128, sectors: 128, device: METADATA };
    if (at % every === 0) lines.push({ ...table, time, action: 'Q' }, { ...table, time: time + 9e5, action: 'C' });
  }
  return [...LAYERS, ...lines.sort((a, b) => a.time - b.time)];
}

async function rules(records: readonly ScriptRecord[] | string): Promise<string[]> {
  return (await analyseTrace(readerOf(records))).findings.map(({ rule }) => rule);
}

describe('metadata against data, by layers', () => {
  test('64 KiB of tables for each write of 4 KiB', async () => {
    const { findings } = await analyseTrace(readerOf(image(100, 8, 1)));
    expect(findings).toMatchObject([{ rule: 'metadata', device: METADATA, numbers: { writes: 100, metadataBytes: 100 * 65_536, userBytes: 100 * 4096 } }]);
  });

  test('not where they are rare, nor where what users write is a RAM state', async () => {
    expect(await rules(image(800, 256, 16))).toEqual([]);
    expect(await rules(image(800, 2048, 16, DATA))).toEqual([]);
  });
});

describe('one at a time', () => {
  /** Writes of 64 KiB in a row, each queued `think` after the end of the former, which takes 200 us. */
  const serial = (count: number, think: number): string => Array.from({ length: count }, (_, at) => {
    const start = at * (200_000 + think);
    return `${start} Q W ${at * 128}+128\n${start + 1000} D W ${at * 128}+128\n${start + 200_000} C W ${at * 128}+128`;
  }).join('\n');

  test('is depth 1 where the device works, a slow submitter where it waits, and nothing where somebody takes his time', async () => {
    expect(await rules(serial(200, 10_000))).toEqual(['depth-1']);
    expect(await rules(serial(200, 1_000_000))).toEqual(['slow-submitter']);
    expect(await rules(serial(200, 20_000_000))).toEqual([]);
    expect(await rules(serial(40, 10_000))).toEqual([]);
  });

  test('is told of the upper layer, and not again of those below', async () => {
    const records = script(serial(100, 10_000)).flatMap((record): ScriptRecord[] => {
      const below = { ...record, device: 200, sector: record.sector! + 2048 };
      const link = { ...below, action: 'A', payload: Uint8Array.from([0, 0, 0, 100, 0, 0, 0, 200, ...Array.from({ length: 8 }, (_, at) => Math.floor(record.sector! / 256 ** (7 - at)) % 256)]) };
      return record.action === 'Q' ? [{ ...record, device: 100 }, link, below] : [below, { ...record, device: 100 }];
    });
    const { findings } = await analyseTrace(readerOf(records));
    expect(findings.map(({ rule, device }) => [rule, device])).toEqual([['depth-1', 100]]);
  });
});

test('a device whose rate does not grow with its depth is saturated', async () => {
  // first two at a time, then 32: 100 us from completion to completion in both
  const records: ScriptRecord[] = [];
  for (const [depth, from] of [[2, 0], [32, 600]] as const) {
    for (let at = 0; at < 600; at++) {
      const done = (from + at) * 1e5 + 1e7;
      const queued = Math.max(from * 1e5 + 9e6, done - depth * 1e5);
      const io = { rwbs: 'R', sector: (from + at) * 7919 % 100_000 * 8, sectors: 8 };
      records.push({ ...io, time: queued, action: 'Q' }, { ...io, time: queued, action: 'D' }, { ...io, time: done, action: 'C' });
    }
  }
  expect(await rules(records.sort((a, b) => a.time - b.time))).toEqual(['saturated']);
});

test('garbage takes bounded time and memory, and raises no error', async () => {
  let seed = 3;
  const random = (below: number): number => {
    seed = (seed * 48_271) % 0x7fff_ffff;
    return seed % below;
  };
  const actions = 'Q M F G S R D C P U UT I X A'.split(' ');
  const flags = ['R', 'W', 'WS', 'DS', 'FWS', 'FN', 'WFS', 'N'];
  const records: ScriptRecord[] = Array.from({ length: 60_000 }, () => ({
    time: random(1e9), action: actions[random(actions.length)]!, rwbs: flags[random(flags.length)]!, sector: random(4) === 0 ? random(1e9) * 4e6 : random(64),
    sectors: random(3) === 0 ? 0 : random(64), device: random(10) === 0 ? random(1e9) : random(3), pid: random(2) === 0 ? random(1e9) : 1, error: random(20) === 0 ? random(65_536) : 0,
    payload: Uint8Array.from({ length: random(3) * 8 }, () => random(4)),
  }));
  const { ios, counts, statistics } = await analyseTrace(readerOf(records, { batch: 4096 }));
  expect(ios).toBeGreaterThan(counts.withoutEnd);
  expect(statistics.devices.all.size).toBeLessThanOrEqual(257);
});
