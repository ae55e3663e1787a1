/** Every job on images of which the data lies beyond 4 GiB, 2 TiB and 8 TiB: no offset is cut off, and the emptiness before it costs nothing. */
import { mkdirSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import {
  addBitmap, BlockGraph, BlockJobs, JobTable, makeRequest, openBlockdev, Permission, startActiveCommit, startBackup, startCommit, startMirror, startStream, type BlockBackend, type BlockJob,
  type BlockNode,
} from '../../src/index.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const GiB = 2 ** 30;
const TiB = 2 ** 40;
/** Not a multiple of anything. */
const TAIL = 64 * KiB + 512;
/** Just below and above where 32 bits of bytes and of sectors end, and the end of the disk. */
const places = (size: number): number[] => [0, 4 * GiB - KiB, 4 * GiB, 2 * TiB - KiB, 2 * TiB + 4 * KiB, 8 * TiB - 512, size - TAIL, size - 512].filter((at) => at < size);

interface Lab {
  readonly graph: BlockGraph;
  readonly jobs: BlockJobs;
  readonly folder: string;
  readonly size: number;
  readonly doors: BlockBackend[];
}

async function create(folder: string, name: string, size: number, backing?: string): Promise<void> {
  const below = backing === undefined ? [] : ['-b', `${folder}/${backing}.qcow2`, '-F', 'qcow2'];
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=2M', ...below, `${folder}/${name}.qcow2`, String(size)]);
}

async function fill(folder: string, name: string, size: number, value: number): Promise<void> {
  const writes = places(size).filter((_, index) => index % 2 === value % 2 || size - _ <= TAIL).flatMap((at) => ['-c', `write -q -P ${value} ${at} 512`]);
  await runOk('qemu-io', ['-f', 'qcow2', ...writes, `${folder}/${name}.qcow2`]);
}

function open({ graph, folder }: Lab, name: string, more: Readonly<Record<string, unknown>> = {}): Promise<BlockNode> {
  return openBlockdev(graph, { driver: 'qcow2', 'node-name': name, discard: 'unmap', file: { driver: 'file', filename: `${folder}/${name}.qcow2` }, ...more });
}

async function guest({ graph, doors }: Lab, node: BlockNode): Promise<BlockBackend> {
  const door = await graph.attach(node, { used: Permission.CONSISTENT_READ | Permission.WRITE, shared: Permission.ALL & ~Permission.RESIZE });
  doors.push(door);
  return door;
}

async function ready({ job }: BlockJob): Promise<void> {
  while (!job.isReady && !job.ran) await new Promise<void>((resolve) => { setImmediate(resolve); });
}

async function ended({ job }: BlockJob): Promise<void> {
  await job.ended;
  expect(job.error).toBe(null);
}

const write = (door: BlockBackend, offset: number, value: number): Promise<void> => door.submit(makeRequest('write', offset, 512, Buffer.alloc(512, value)));

/** Each leaves in `expected` the image that shows the disk, and in `actual` the one that is to show the same. */
const JOBS: Readonly<Record<string, (lab: Lab) => Promise<{ readonly actual: string; readonly expected: string }>>> = {
  mirror: async (lab) => {
    const { graph, jobs, size } = lab;
    const [source, target] = [await open(lab, 'top'), await open(lab, 'dst')];
    const door = await guest(lab, source);
    const { blockJob } = await startMirror(graph, jobs, { jobId: 'j', source, target, sync: 'full', targetIsZero: true, copyMode: 'write-blocking' });
    await ready(blockJob);
    for (const at of places(size)) await write(door, at, 9);
    blockJob.job.cancel(false);
    await ended(blockJob);
    return { actual: 'dst', expected: 'top' };
  },
  'mirror by a bitmap': async (lab) => {
    const { graph, jobs, size } = lab;
    const [source, target] = [await open(lab, 'top'), await open(lab, 'dst')];
    const door = await guest(lab, source);
    await addBitmap(source, { name: 'b', granularity: 2 ** 21 });
    const { blockJob } = await startMirror(graph, jobs, { jobId: 'j', source, target, sync: 'full', targetIsZero: true });
    await ready(blockJob);
    blockJob.job.cancel(false);
    await ended(blockJob);
    await write(door, size - 512, 8);
    await write(door, places(size).at(-3)!, 7);
    const again = (await startMirror(graph, jobs, { jobId: 'k', source, target, sync: 'incremental', bitmap: 'b' })).blockJob;
    await ready(again);
    again.job.cancel(false);
    await ended(again);
    return { actual: 'dst', expected: 'top' };
  },
  commit: async (lab) => {
    const { graph, jobs } = lab;
    await create(lab.folder, 'active', lab.size, 'top');
    const top = await open(lab, 'top', { 'read-only': true });
    const active = await open(lab, 'active', { backing: 'top' });
    await ended(await startCommit(graph, jobs, { jobId: 'j', active, top, base: top.backing! }));
    return { actual: 'base', expected: 'copy' };
  },
  'active commit': async (lab) => {
    const { graph, jobs } = lab;
    const top = await open(lab, 'top');
    const { blockJob } = await startActiveCommit(graph, jobs, { jobId: 'j', top, base: top.backing! });
    await ready(blockJob);
    blockJob.job.complete();
    await ended(blockJob);
    return { actual: 'base', expected: 'copy' };
  },
  stream: async (lab) => {
    const node = await open(lab, 'top');
    await ended(await startStream(lab.graph, lab.jobs, { jobId: 'j', node }));
    expect(node.backing).toBe(null);
    return { actual: 'top', expected: 'copy' };
  },
  backup: async (lab) => {
    const { graph, jobs, size } = lab;
    const [source, target] = [await open(lab, 'top'), await open(lab, 'dst')];
    const door = await guest(lab, source);
    const job = await startBackup(graph, jobs, { jobId: 'j', source, target, sync: 'full' });
    for (const at of places(size)) await write(door, at, 9);
    await ended(job);
    return { actual: 'dst', expected: 'copy' };
  },
};

peers('qemu-img', 'qemu-io')('with the data at the far end', () => {
  for (const [what, size] of [['4 GiB', 4 * GiB + 5 * 512], ['2 TiB', 2 * TiB + 3 * GiB + 512], ['8 TiB', 8 * TiB + 4 * GiB + 512]] as const) {
    // the largest has the places of the others in it
    for (const [name, work] of Object.entries(JOBS).filter(([job]) => job === 'mirror' || size > 8 * TiB)) {
      test(`${name}, more than ${what}`, async () => {
        const folder = tmp('images');
        mkdirSync(folder);
        for (const image of ['base', 'top', 'copy', 'dst']) await create(folder, image, size, image === 'top' || image === 'copy' ? 'base' : undefined);
        await fill(folder, 'base', size, 1);
        for (const image of ['top', 'copy']) await fill(folder, image, size, 2);
        const graph = new BlockGraph();
        const doors: BlockBackend[] = [];
        const { actual, expected } = await work({ graph, jobs: new BlockJobs(new JobTable(() => undefined), { emit: () => undefined }), folder, size, doors });
        for (const door of doors) await graph.detach(door);
        await graph.closeAll();
        // a commit changes the base of the copy as well, to what it shows
        const { code, stdout, stderr } = await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', `${folder}/${expected}.qcow2`, `${folder}/${actual}.qcow2`]);
        expect([code, stdout, stderr]).toEqual([0, 'Images are identical.\n', '']);
        expect(await runOk('qemu-img', ['check', `${folder}/${actual}.qcow2`])).toContain('No errors');
        const info = JSON.parse(await runOk('qemu-img', ['info', '--output=json', `${folder}/${actual}.qcow2`])) as { readonly 'actual-size': number };
        expect(info['actual-size']).toBeLessThan(100 * 2 ** 20);
      }, 120_000);
    }
  }
});
