/** What holds for jobs of every kind: a rate limit keeps nobody waiting, pauses are counted, and what is not there is never read. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { BlockGraph } from '../../../src/block/graph.js';
import type { BlockNode } from '../../../src/block/node.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { createImage } from '../../../src/image/open.js';
import { startBackup } from '../../../src/job/backup/backup.js';
import { BlockJobs, type BlockJob } from '../../../src/job/block-job.js';
import { startActiveCommit } from '../../../src/job/commit-active.js';
import { startCommit } from '../../../src/job/commit.js';
import { JobTable } from '../../../src/job/job-table.js';
import { startMirror } from '../../../src/job/mirror/mirror.js';
import { startStream } from '../../../src/job/stream.js';
import type { TracedRequest } from '../../../src/trace/sink.js';
import { IoLog } from '../../support/io-log.js';
import { VirtualClock } from '../../support/virtual-clock.js';

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;
const SIZE = 4 * GiB;
/** 1 MiB of the base, 1 MiB of the layer above it, 512 KiB of the one above that: all in different places. */
const DATA = { base: [0, MiB], mid: [3 * GiB, MiB], top: [SIZE - 512 * KiB, 512 * KiB] } as const;

let folder = '';
let graph = new BlockGraph();
let seen: string[] = [];
const nodes = new Map<string, BlockNode>();
/** Bytes that were read from images, by the name of the file. */
const read = new Map<string, number>();
const trace = new class extends IoLog {
  override issue(device: number, request: TracedRequest): void {
    super.issue(device, request);
    const { action, layer, name, request: { op, bytes } } = this.events.at(-1)!;
    if (action === 'D' && layer === 'disk' && op === 'read') read.set(name, (read.get(name) ?? 0) + bytes);
  }
}();
const clock = new VirtualClock();
const turn = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve); });

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'quiesce-limits-'));
  graph = new BlockGraph();
  nodes.clear();
  seen = [];
  for (const name of ['base', 'mid', 'top', 'dst'] as const) {
    const below = name === 'mid' ? 'base' : name === 'top' ? 'mid' : null;
    const filename = join(folder, name);
    await createImage(filename, { format: 'qcow2', size: SIZE, ...(below === null ? {} : { backingFile: join(folder, below), backingFormat: 'qcow2', backing: 'allow' }) });
    await openBlockdev(graph, { driver: 'file', 'node-name': `${name}-file`, filename, discard: 'unmap' });
    // `mid` and `top` show nothing of each other while they are filled
    const node = await openBlockdev(graph, { driver: 'qcow2', 'node-name': name, discard: 'unmap', file: `${name}-file`, backing: below }, { trace });
    nodes.set(name, node);
    if (name !== 'dst') await node.write(DATA[name][0], Buffer.alloc(DATA[name][1], name.length + name.codePointAt(0)!));
    // zeros that are there and hide something, and zeros that are there for nothing
    if (name === 'mid') await node.writeZeroes(0, 512 * KiB);
    if (name === 'top') await node.writeZeroes(GiB, GiB);
  }
  read.clear();
});

afterEach(async () => {
  await graph.closeAll();
  rmSync(folder, { recursive: true });
});

interface Options { readonly speed?: number }

const KINDS: Readonly<Record<string, (jobs: BlockJobs, options: Options) => Promise<BlockJob>>> = {
  mirror: async (jobs, options) => (await startMirror(graph, jobs, { jobId: 'j', source: node('top'), target: node('dst'), sync: 'full', ...options })).blockJob,
  backup: (jobs, options) => startBackup(graph, jobs, { jobId: 'j', source: node('top'), target: node('dst'), sync: 'full', ...options }),
  'active commit': async (jobs, options) => (await startActiveCommit(graph, jobs, { jobId: 'j', top: node('top'), base: node('mid'), ...options })).blockJob,
  commit: (jobs, options) => startCommit(graph, jobs, { jobId: 'j', active: node('top'), top: node('mid'), base: node('base'), ...options }),
  stream: (jobs, options) => startStream(graph, jobs, { jobId: 'j', node: node('top'), ...options }),
};
const KIND_NAMES = Object.keys(KINDS);

function node(name: string): BlockNode {
  return nodes.get(name)!;
}

async function until({ job }: BlockJob, status: string): Promise<void> {
  while (job.status !== status) await turn();
}

function start(kind: string, options: Options = {}): Promise<BlockJob> {
  const table = new JobTable(({ status }) => seen.push(status));
  return KINDS[kind]!(new BlockJobs(table, { emit: () => undefined }, clock), options);
}

test.each(KIND_NAMES)('J-13: at 1 byte per second a %s is paused, resumed and cancelled while no time passes', async (kind) => {
  const blockJob = await start(kind, { speed: 1 });
  const { job } = blockJob;
  while (clock.sleeping === 0) await turn();
  const sleepers = clock.sleeping;
  job.pause();
  await until(blockJob, 'paused');
  job.resume();
  await until(blockJob, 'running');
  while (clock.sleeping < sleepers) await turn();
  job.cancel();
  await job.ended;
  expect(job.error).toBe('Operation canceled');
  expect(clock.monotonicMs()).toBe(0);
  expect(graph.nodes()).toHaveLength(8);
});

test.each(KIND_NAMES)('J-21: a %s that is paused by a client and from inside goes on when both let it', async (kind) => {
  const blockJob = await start(kind, { speed: 1 });
  const { job } = blockJob;
  while (clock.sleeping === 0) await turn();
  seen.length = 0;
  job.pause();
  job.holdPaused();
  job.holdPaused();
  await until(blockJob, 'paused');
  expect(() => job.pause()).toThrow('Job is already paused');
  job.releasePaused();
  job.resume();
  for (let turns = 0; turns < 20; turns++) await turn();
  expect([job.status, job.paused, job.userPaused]).toEqual(['paused', true, false]);
  expect(() => job.resume()).toThrow("Can't resume a job that was not paused");
  job.releasePaused();
  await until(blockJob, 'running');
  job.cancel();
  await job.ended;
  expect(seen.filter((status) => status === 'paused')).toHaveLength(1);
});

/** Data that each must read: no more than that, but for a cluster at each end. */
const MUST_READ: Readonly<Record<string, number>> = { mirror: 2 * MiB, backup: 2 * MiB, 'active commit': 512 * KiB, commit: MiB, stream: 1.5 * MiB };

test.each(KIND_NAMES)('a %s reads data, and nothing where there is none', async (kind) => {
  const { job } = await start(kind);
  while (!job.ran && !job.isReady) await turn();
  if (job.isReady) job.complete();
  await job.ended;
  expect(job.error).toBe(null);
  const images = ['base', 'mid', 'top'].map((name) => read.get(join(folder, name)) ?? 0);
  const most = Math.max(...images);
  expect(most).toBeGreaterThanOrEqual(MUST_READ[kind]! / 2);
  // a layer passes on what it does not hold: each byte is told of once for each layer that it was looked for in
  expect(most).toBeLessThanOrEqual(MUST_READ[kind]! + 1.5 * MiB);
});
