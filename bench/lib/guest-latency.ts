/**
 * What a guest feels of a mirror: histograms of how long its writes take, from the start of the mirror until it is ready,
 * in each copy mode of ours and of QEMU's. The guest is the founding loop: 1 KiB after the other for ever, over a target
 * that takes 5 MB/s.
 */
import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { start } from '../../test/support/run.js';
import type { GuestPart } from './job-guests.js';
import { Daemon, OURS, QEMU, type Peer } from './job-peers.js';

/** Upper ends, in milliseconds; what is slower comes last. */
const BUCKETS_MS: readonly number[] = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
const RATE = 5e6;
const BYTES = 32 * 1024 * 1024;
/** Twice the time of a copy and 15 s, as is promised of auto. */
const LIMIT_MS = 2 * BYTES / RATE * 1000 + 15_000;

interface LatencyOfMode {
  readonly mode: string;
  /** Null: it did not become ready in time. */
  readonly readySeconds: number | null;
  readonly writes: number;
  /** Parts of all writes, one for each of BUCKETS_MS and one more. */
  readonly histogram: readonly number[];
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

const MODES: readonly [string, Peer, Readonly<Record<string, unknown>>][] = [
  ['quiesce background', OURS, { 'copy-mode': 'background' }], ['QEMU background', QEMU, { 'copy-mode': 'background' }],
  ['quiesce write-blocking', OURS, { 'copy-mode': 'write-blocking' }], ['QEMU write-blocking', QEMU, { 'copy-mode': 'write-blocking' }],
  ['quiesce auto', OURS, { 'x-quiesce-copy-mode': 'auto' }],
];

/** About two minutes. */
export const FOUNDING_LOOP: GuestPart = {
  title: 'the founding loop over a target of 5 MB/s',
  run: async ({ place: { directory }, target, note, detail }) => {
    const found: LatencyOfMode[] = [];
    for (const [mode, peer, more] of MODES) found.push(await inMode(directory, mode, peer, more));
    note(latencyTable(found));
    detail(`${FOUNDING_LOOP.title}: latency of the guest's writes`, { bucketsMs: BUCKETS_MS, modes: found });
    for (const mode of ['write-blocking', 'auto']) {
      const { readySeconds } = found.find((one) => one.mode === `quiesce ${mode}`)!;
      target({ what: `${FOUNDING_LOOP.title}, ${mode}: time to READY`, value: readySeconds ?? Infinity, bound: LIMIT_MS / 1000, atMost: true, unit: ' s' });
    }
  },
};

async function inMode(directory: string, mode: string, peer: Peer, more: Readonly<Record<string, unknown>>): Promise<LatencyOfMode> {
  const [source, target] = ['latency.source', 'latency.target'].map((name) => join(directory, name)) as [string, string];
  writeFileSync(source, Buffer.alloc(BYTES, 0x55));
  writeFileSync(target, '');
  truncateSync(target, BYTES);
  const file = (name: string, filename: string) => ({ driver: 'raw', 'node-name': name, file: { driver: 'file', filename } });
  const daemon = await Daemon.start(peer, directory, [file('source', source), file('fast', target)]);
  try {
    await daemon.qmp.execute('object-add', { 'qom-type': 'throttle-group', id: 'slow', limits: { 'bps-total': RATE } });
    await daemon.qmp.execute('blockdev-add', { driver: 'throttle', 'node-name': 'target', 'throttle-group': 'slow', file: 'fast' });
    await daemon.export('source');
    const loop = foundingLoop(daemon.uri);
    await sleep(300);
    const readySeconds = await daemon.timed('blockdev-mirror', { 'job-id': 'job', device: 'source', target: 'target', sync: 'full', ...more }, 'BLOCK_JOB_READY', LIMIT_MS);
    return { mode, readySeconds, ...await loop.stop() };
  } finally {
    await daemon.stop();
    for (const path of [source, target]) rmSync(path, { force: true });
  }
}

function foundingLoop(uri: string): { stop(): Promise<Omit<LatencyOfMode, 'mode' | 'readySeconds'>> } {
  const child = start('fio', ['--name=loop', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--bs=1k', '--iodepth=1', `--size=${BYTES}`, '--time_based', '--runtime=3600',
    '--norandommap', '--output-format=json+'], { stdio: ['ignore', 'pipe', 'ignore'] });
  let output = '';
  child.stdout!.on('data', (data: Buffer) => { output += data.toString(); });
  const gone = new Promise<void>((resolve) => child.once('close', () => resolve()));
  return {
    stop: async () => {
      child.kill('SIGINT');
      await gone;
      return summary(output);
    },
  };
}

function summary(output: string): Omit<LatencyOfMode, 'mode' | 'readySeconds'> {
  const report = JSON.parse(output.slice(output.indexOf('{'))) as { jobs: [{ write: { clat_ns: { max: number; N: number; percentile: Record<string, number>; bins: Record<string, number> } } }] };
  const { max, N: writes, percentile, bins } = report.jobs[0].write.clat_ns;
  const histogram = new Array<number>(BUCKETS_MS.length + 1).fill(0);
  for (const [ns, count] of Object.entries(bins)) {
    const bucket = BUCKETS_MS.findIndex((end) => Number(ns) / 1e6 < end);
    histogram[bucket === -1 ? BUCKETS_MS.length : bucket]! += count / writes;
  }
  return { writes, histogram, p50Ms: percentile['50.000000']! / 1e6, p99Ms: percentile['99.000000']! / 1e6, maxMs: max / 1e6 };
}

/** A table: a line for each mode, a column for each bucket, in per cent of the writes. */
function latencyTable(modes: readonly LatencyOfMode[]): string {
  const part = (value: number): string => (value === 0 ? '-' : value < 0.001 ? '<.1' : (value * 100).toFixed(1)).padStart(6);
  const heads = [...BUCKETS_MS.map((end) => `<${end}`), `>${BUCKETS_MS.at(-1)!}`].map((text) => text.padStart(6));
  const lines = modes.map(({ mode, histogram, readySeconds, writes, p50Ms, p99Ms, maxMs }) => [
    mode.padEnd(24), ...histogram.map(part), readySeconds === null ? '  never ready' : `  ready ${readySeconds.toFixed(1)} s`.padEnd(13), ` ${writes} writes, p50 ${p50Ms.toFixed(2)}, p99 ${p99Ms.toFixed(1)}, max ${maxMs.toFixed(0)}`,
  ].join(''));
  return [`${'guest writes, % per ms'.padEnd(24)}${heads.join('')}`, ...lines].join('\n');
}
