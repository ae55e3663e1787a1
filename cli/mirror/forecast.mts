/** `quiesce mirror --forecast`: measures what a mirror would meet, and changes nothing. */
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { BlockError, findLiveDisk, forecast, formatSize, isNbdName, openImage, type ConvergenceOptions } from '../../src/index.js';
import type { CommandContext } from '../command.mjs';
import { DaemonClient, type Reply } from '../daemon-client.mjs';
import { seconds } from '../job-text.mjs';

export interface ForecastArgs {
  readonly daemon: string | undefined;
  readonly source: string;
  readonly target: string;
  readonly sourceFormat: 'raw' | 'qcow2' | undefined;
  readonly speed: number | undefined;
  readonly convergence: ConvergenceOptions;
  readonly json: boolean;
}

const MiB = 1024 * 1024;
const LOOK_MS = 3000;
const PROBE_MS = 1000;
const PROBE_BYTES = 256 * MiB;
const GRANULARITY = 65_536;

export async function tellForecast(args: ForecastArgs, { signal, out }: CommandContext): Promise<void> {
  const { bytes, dirtyRate } = args.daemon === undefined ? { bytes: await dataIn(args), dirtyRate: 0 } : await look(args.daemon, args.source, signal);
  const found = isNbdName(args.target) ? await readRate(args.target) : writeRate(args.target);
  const copyRate = Math.min(found, args.speed ?? Infinity);
  const told = forecast({ bytes, copyRate, dirtyRate, convergence: args.convergence });
  if (args.json) {
    out.json({ bytes, 'copy-rate': Math.round(copyRate), 'dirty-rate': Math.round(dirtyRate), 'background-ms': told.background, 'auto-ms': told.auto, phases: told.phases, 'guest-share': told.guestShare });
    return;
  }
  const when = (ms: number | null): string => (ms === null ? 'never ready' : `ready in about ${seconds(ms)}`);
  out.line(`to copy: ${formatSize(bytes)}; the target takes ${formatSize(Math.round(copyRate))}/s${isNbdName(args.target) ? ' (as it reads)' : ''}; guests make ${formatSize(Math.round(dirtyRate))}/s dirty`);
  out.line(`background: ${when(told.background)}`);
  out.line(`auto: ${when(told.auto)}${told.guestShare < 0.95 ? `; guests get ${Math.round(told.guestShare * 100)}% of what they write now` : ''}`);
}

async function dataIn({ source, sourceFormat }: ForecastArgs): Promise<number> {
  const node = await openImage(source, { readOnly: true, forceShare: true, format: sourceFormat, backing: 'allow' });
  try {
    return node.length();
  } finally {
    await node.close();
  }
}

/** Counts for a moment what a bitmap sees of the guests' writes. */
async function look(daemon: string, source: string, signal: AbortSignal): Promise<{ bytes: number; dirtyRate: number }> {
  const client = await DaemonClient.connect(daemon, signal);
  const name = `forecast-${process.pid}`;
  try {
    const node = String((await findLiveDisk(client.qmp, source)).node['node-name']);
    await client.execute('block-dirty-bitmap-add', { node, name, granularity: GRANULARITY });
    try {
      const startedMs = performance.now();
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, LOOK_MS);
        signal.addEventListener('abort', () => {
          clearTimeout(timer);
          resolve();
        }, { once: true });
      });
      signal.throwIfAborted();
      const nodes = await client.execute<Reply[]>('query-named-block-nodes', { flat: true });
      const found = nodes.find((one) => one['node-name'] === node);
      const bitmap = ((found?.['dirty-bitmaps'] ?? []) as Reply[]).find((one) => one['name'] === name);
      if (found === undefined || bitmap === undefined) throw new BlockError('PROTOCOL', `the daemon at '${daemon}' does not tell of its bitmap '${name}'`);
      return { bytes: Number((found['image'] as Reply)['virtual-size']), dirtyRate: Number(bitmap['count']) * 1000 / (performance.now() - startedMs) };
    } finally {
      await client.execute('block-dirty-bitmap-remove', { node, name });
    }
  } finally {
    client.close();
  }
}

/** Writes beside the target for a moment, to the disk and not just into memory, and takes it away again. */
function writeRate(target: string): number {
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

/** What is on a server must not be written to find out: reading tells about the same. */
async function readRate(target: string): Promise<number> {
  const node = await openImage(target, { readOnly: true, format: 'raw' });
  try {
    const buffer = Buffer.alloc(Math.min(MiB, node.length()));
    const startedMs = performance.now();
    let done = 0;
    for (let at = 0; at + buffer.byteLength <= node.length() && performance.now() - startedMs < PROBE_MS; at += buffer.byteLength) {
      await node.read(at, buffer);
      done += buffer.byteLength;
    }
    return done * 1000 / Math.max(1, performance.now() - startedMs);
  } finally {
    await node.close();
  }
}
