/** Commit and stream on a clock that stands still. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { BlockGraph } from '../../../src/block/graph.js';
import type { BlockNode } from '../../../src/block/node.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { createImage } from '../../../src/image/open.js';
import { reopenBlockdevs } from '../../../src/image/reopen.js';
import { BlockJobs, type BlockJob } from '../../../src/job/block-job.js';
import { startCommit } from '../../../src/job/commit.js';
import { JobTable } from '../../../src/job/job-table.js';
import { startStream } from '../../../src/job/stream.js';
import { VirtualClock } from '../../support/virtual-clock.js';

const MiB = 2 ** 20;
let folder = '';
let graph = new BlockGraph();
let nodes: BlockNode[] = [];
const clock = new VirtualClock();

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'quiesce-chain-'));
  graph = new BlockGraph();
  nodes = [];
  for (const [index, name] of ['base', 'mid', 'top'].entries()) {
    const filename = join(folder, name);
    const backing = index === 0 ? {} : { backingFile: join(folder, index === 1 ? 'base' : 'mid'), backingFormat: 'qcow2', backing: 'allow' as const };
    await createImage(filename, { format: 'qcow2', size: 2 * MiB, ...backing });
    await openBlockdev(graph, { driver: 'file', 'node-name': `${name}-file`, filename });
    const node = await openBlockdev(graph, { driver: 'qcow2', 'node-name': name, file: `${name}-file`, backing: null });
    await node.write(0, Buffer.alloc((3 - index) * MiB / 2, index + 1));
    nodes.push(node);
  }
  for (const name of ['mid', 'top']) await reopenBlockdevs(graph, [{ driver: 'qcow2', 'node-name': name, file: `${name}-file`, backing: name === 'mid' ? 'base' : 'mid' }]);
});

afterEach(async () => {
  await graph.closeAll();
  rmSync(folder, { recursive: true });
});

function start(kind: 'commit' | 'stream'): Promise<BlockJob> {
  const jobs = new BlockJobs(new JobTable(() => undefined), { emit: () => undefined }, clock);
  const [base, mid, top] = nodes as [BlockNode, BlockNode, BlockNode];
  return kind === 'commit' ? startCommit(graph, jobs, { jobId: 'j', active: top, top: mid, base, speed: 1 }) : startStream(graph, jobs, { jobId: 'j', node: top, base, speed: 1 });
}

const turn = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve); });

async function asleep({ job }: BlockJob): Promise<void> {
  while (job.busy || clock.sleeping === 0) await turn();
}

test.each(['commit', 'stream'] as const)('J-13: at 1 byte per second a %s can be paused and cancelled at once', async (kind) => {
  const blockJob = await start(kind);
  await asleep(blockJob);
  const { offset } = blockJob.info();
  expect(offset).toBeGreaterThan(0);
  expect(offset).toBeLessThan(2 * MiB);
  blockJob.job.pause();
  while (blockJob.job.status !== 'paused') await turn();
  blockJob.job.cancel();
  await blockJob.job.ended;
  expect(blockJob.job.error).toBe('Operation canceled');
  expect(clock.monotonicMs()).toBe(0);
  expect(graph.nodes().map(({ nodeName }) => nodeName)).toEqual(['base-file', 'base', 'mid-file', 'mid', 'top-file', 'top']);
  const read = Buffer.alloc(2 * MiB);
  await nodes[2]!.read(0, read);
  expect([read[0], read[MiB / 2], read[MiB], read[1.5 * MiB]]).toEqual([3, 2, 1, 0]);
});

test.each(['commit', 'stream'] as const)('links that a %s relies on cannot be changed under it', async (kind) => {
  const blockJob = await start(kind);
  await asleep(blockJob);
  const [name, below] = kind === 'commit' ? ['mid', 'base'] as const : ['top', 'mid'] as const;
  const cut = reopenBlockdevs(graph, [{ driver: 'qcow2', 'node-name': name, file: `${name}-file`, backing: null }]);
  await expect(cut).rejects.toThrow(`Cannot change frozen 'backing' link from '${name}' to '${below}'`);
  blockJob.setSpeed(0);
  await blockJob.job.ended;
  expect(blockJob.job.error).toBeNull();
  expect(nodes[2]!.backing).toBe(nodes[0]);
  await reopenBlockdevs(graph, [{ driver: 'qcow2', 'node-name': name, file: `${name}-file`, backing: null }]);
});
