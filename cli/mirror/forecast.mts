/** `quiesce mirror --forecast`: measures what a mirror would meet, and changes nothing. */
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { BlockError, chainStatus, findLiveDisk, forecast, formatSize, isNbdName, openImage, type BackingPolicy, type ConvergenceOptions } from '../../src/index.js';
import type { CommandContext } from '../command.mjs';
import { DaemonClient, type Reply } from '../daemon-client.mjs';
import { seconds } from '../job-text.mjs';

export interface ForecastArgs {
  readonly daemon: string | undefined;
  readonly source: string;
  readonly target: string;
  readonly sourceFormat: 'raw' | 'qcow2' | undefined;
  readonly speed: number | undefined;
  readonly backing: BackingPolicy;
  readonly convergence: ConvergenceOptions;
  readonly json: boolean;
}

interface Demand {
  readonly bytes: number;
  readonly dirtyRate: number;
  readonly writeRate: number;
}

const MiB = 1024 * 1024;
const LOOK_MS = 3000;
/** What is made dirty is counted in windows of about the time in which a mirror comes by again. */
const WINDOW_MS = 20;
const PROBE_MS = 1000;
const PROBE_BYTES = 256 * MiB;
/** Reads of a server, several at once. */
const READ_BYTES = MiB / 4;
const READS = 4;
/** Of a mirror, and the least there is, which tells how much is written. */
const GRANULARITIES = [65_536, 512];

export async function tellForecast(args: ForecastArgs, { signal, out }: CommandContext): Promise<void> {
  const { bytes, dirtyRate, writeRate } = args.daemon === undefined ? { bytes: await dataIn(args), dirtyRate: 0, writeRate: 0 } : await look(args.daemon, args, signal);
  const copyRate = Math.min(await targetRate(args), args.speed ?? Infinity);
  const told = forecast({ bytes, copyRate, dirtyRate, writeRate, convergence: args.convergence });
  if (args.json) {
    out.json({ bytes, 'copy-rate': Math.round(copyRate), 'dirty-rate': Math.round(dirtyRate), 'write-rate': Math.round(writeRate), 'background-ms': round(told.background), 'auto-ms': round(told.auto), phases: told.phases, 'guest-share': told.guestShare });
    return;
  }
  const when = (ms: number | null): string => (ms === null ? 'never ready' : `ready in about ${seconds(ms)}`);
  out.line(`to copy: ${formatSize(bytes)}; the target takes ${formatSize(Math.round(copyRate))}/s${isNbdName(args.target) ? ' (as it reads)' : ''}; guests make ${formatSize(Math.round(dirtyRate))}/s dirty`);
  out.line(`background: ${when(told.background)}`);
  out.line(`auto: ${when(told.auto)}${told.guestShare < 0.95 ? `; guests get ${Math.round(told.guestShare * 100)}% of what they write now` : ''}`);
}

function round(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms);
}

/** What is no zeros. */
async function dataIn({ source, sourceFormat, backing }: ForecastArgs): Promise<number> {
  const node = await openImage(source, { readOnly: true, forceShare: true, format: sourceFormat, backing });
  try {
    let data = 0;
    for (let at = 0; at < node.length();) {
      const { kind, bytes } = await chainStatus(node, at, node.length() - at);
      if (kind === 'data') data += bytes;
      at += bytes;
    }
    return data;
  } finally {
    await node.close();
  }
}

async function look(path: string, { source, target, speed }: ForecastArgs, signal: AbortSignal): Promise<Demand> {
  const client = await DaemonClient.connect(path, signal);
  try {
    const node = String((await findLiveDisk(client.qmp, source)).node['node-name']);
    const known = await client.execute<Reply[]>('query-named-block-nodes');
    const from = known.find((one) => one['node-name'] === node);
    if (from === undefined) throw new BlockError('NOT_FOUND', `the daemon at '${path}' has no node '${source}'`);
    if (speed === undefined && known.some((one) => one['node-name'] === target)) {
      throw new BlockError('NOT_SUPPORTED', `how fast node '${target}' is cannot be told without writing to it: give the name of its file or export, or --speed`);
    }
    return { bytes: allocated(from['image'] as Reply), ...await guestRates(client, node, signal) };
  } finally {
    client.close();
  }
}

/** What the files of a chain hold, as far as that can be told, is about what there is to copy. */
function allocated(image: Reply): number {
  let held = 0;
  for (let layer: Reply | undefined = image; layer !== undefined; layer = layer['backing-image'] as Reply | undefined) held += Number(layer['actual-size'] ?? Infinity);
  return Math.min(Number(image['virtual-size']), held);
}

/** Counts for a moment what bitmaps see of the guests' writes. They are emptied again and again, as by a mirror. */
async function guestRates(client: DaemonClient, node: string, signal: AbortSignal): Promise<Omit<Demand, 'bytes'>> {
  const bitmaps = GRANULARITIES.map((granularity) => ({ granularity, name: `forecast-${process.pid}-${granularity}`, dirtied: 0 }));
  try {
    for (const { name, granularity } of bitmaps) await client.execute('block-dirty-bitmap-add', { node, name, granularity });
    const startedMs = performance.now();
    while (performance.now() - startedMs < LOOK_MS) {
      await new Promise((resolve) => { setTimeout(resolve, WINDOW_MS); });
      signal.throwIfAborted();
      const found = (await client.execute<Reply[]>('query-named-block-nodes', { flat: true })).find((one) => one['node-name'] === node);
      for (const bitmap of bitmaps) {
        const told = ((found?.['dirty-bitmaps'] ?? []) as Reply[]).find((one) => one['name'] === bitmap.name);
        if (told === undefined) throw new BlockError('PROTOCOL', `the daemon does not tell of its bitmap '${bitmap.name}'`);
        bitmap.dirtied += Number(told['count']);
        await client.execute('block-dirty-bitmap-clear', { node, name: bitmap.name });
      }
    }
    const [dirtyRate, writeRate] = bitmaps.map(({ dirtied }) => dirtied * 1000 / (performance.now() - startedMs)) as [number, number];
    return { dirtyRate, writeRate };
  } finally {
    for (const { name } of bitmaps) await client.execute('block-dirty-bitmap-remove', { node, name }).catch(() => undefined);
  }
}

async function targetRate({ target, daemon, speed }: ForecastArgs): Promise<number> {
  if (isNbdName(target)) return probeByReading(target);
  // it may be a node
  return daemon !== undefined && speed !== undefined ? Infinity : probeByWriting(target);
}

/** Writes beside the target for a moment, to the disk and not just into memory, and takes it away again. */
function probeByWriting(target: string): number {
  const probe = join(dirname(target), `.quiesce-forecast-${process.pid}`);
  const fd = openSync(probe, 'wx', 0o600);
  try {
    const chunk = Buffer.alloc(MiB, 0x5a);
    const startedMs = performance.now();
    let done = 0;
    while (done < PROBE_BYTES && performance.now() - startedMs < PROBE_MS) done += writeSync(fd, chunk);
    fdatasyncSync(fd);
    return done * 1000 / (performance.now() - startedMs);
  } finally {
    closeSync(fd);
    rmSync(probe, { force: true });
  }
}

/** What is on a server must not be written to find out: reading tells about the same. What it does in the first moment, it may not do for long. */
async function probeByReading(target: string): Promise<number> {
  const node = await openImage(target, { readOnly: true, format: 'raw' });
  try {
    const startedMs = performance.now();
    const began = { ms: startedMs, done: 0 };
    let [at, done] = [0, 0];
    const passed = (): number => performance.now() - startedMs;
    await Promise.all(Array.from({ length: READS }, async () => {
      const buffer = Buffer.alloc(Math.min(READ_BYTES, node.length()));
      while (at + buffer.byteLength <= node.length() && passed() < PROBE_MS) {
        const from = at;
        at += buffer.byteLength;
        await node.read(from, buffer);
        done += buffer.byteLength;
        if (began.done === 0 && passed() > PROBE_MS / 3) Object.assign(began, { ms: performance.now(), done });
      }
    }));
    // one that was read to its end within the first moment
    if (done === began.done) Object.assign(began, { ms: startedMs, done: 0 });
    return (done - began.done) * 1000 / Math.max(1, performance.now() - began.ms);
  } finally {
    await node.close();
  }
}
