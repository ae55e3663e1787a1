/**
 * Mirrors of the top layer to an overlay with large clusters whose backing file is not open (J-15, J-17): a cluster that is
 * written in part must not hide what lies below it. Afterwards QEMU reads the same from both chains.
 */
import { expect, test } from '@jest/globals';
import { BlockGraph, BlockJobs, JobTable, makeRequest, openByName, Permission, Random, startMirror, type BlockBackend, type MirrorOptions } from '../../src/index.js';
import { makeImage, MiB } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const CLUSTER = MiB;

/** A base full of data, an overlay that holds bits of its own, and an empty overlay with clusters of 1 MiB to copy these to. */
async function images(): Promise<void> {
  await makeImage(tmp('base'), '12M');
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -P 11 0 12M', tmp('base')]);
  for (const [name, size] of [['top', '64k'], ['copy', '1M']] as const) await makeImage(tmp(name), '12M', '-F', 'qcow2', '-b', tmp('base'), '-o', `cluster_size=${size}`);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -P 1 3000k 4k', '-c', 'write -P 2 5M 64k', '-c', 'write -z 7M 100k', '-c', 'write -P 3 12280k 8k', tmp('top')]);
}

const write = (door: BlockBackend, offset: number, data: Buffer): Promise<void> => door.submit(makeRequest('write', offset, data.byteLength, data));

async function guest(door: BlockBackend, stop: AbortSignal, slots: number): Promise<void> {
  const random = new Random(3);
  while (!stop.aborted) await write(door, random.below(slots) * 3 * 1024 + 512, Buffer.alloc(700, 1 + random.below(255)));
}

peers('qemu-img', 'qemu-io')('sync=top to clusters larger than the granularity', () => {
  test.each<[string, Partial<MirrorOptions>]>([
    ['background', { copyMode: 'background', granularity: 4096 }],
    ['write-blocking', { copyMode: 'write-blocking', granularity: 4096 }],
    ['auto', { copyMode: 'auto', granularity: 65_536 }],
    ['write-blocking, buffers smaller than a cluster', { copyMode: 'write-blocking', granularity: 4096, bufSize: 64 * 1024 }],
  ])('%s', async (_, options) => {
    await images();
    const graph = new BlockGraph();
    try {
      const source = (await openByName(graph, tmp('top'), 'qcow2', {}, { backing: 'allow' })).node;
      const target = (await openByName(graph, tmp('copy'), 'qcow2', { backing: null }, { backing: 'allow' })).node;
      const door = await graph.attach(source, { used: Permission.CONSISTENT_READ | Permission.WRITE, shared: Permission.ALL & ~Permission.RESIZE });
      const jobs = new BlockJobs(new JobTable(() => undefined), { emit: () => undefined });
      const stop = new AbortController();
      const writing = guest(door, stop.signal, 40);
      const { blockJob: { job } } = await startMirror(graph, jobs, { jobId: 'j', source, target, sync: 'top', ...options });
      setTimeout(() => stop.abort(), 500);
      await writing;
      while (!job.isReady && !job.ran) await new Promise((resolve) => { setTimeout(resolve, 10); });
      // one more after it is ready, so that it goes the way of the copy mode
      await write(door, 9 * CLUSTER + 12_345, Buffer.alloc(77, 7));
      job.cancel(false);
      await job.ended;
      expect(job.error).toBeNull();
      await graph.detach(door);
    } finally {
      await graph.closeAll();
    }
    await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', tmp('top'), tmp('copy')]);
    await runOk('qemu-img', ['check', '-q', tmp('copy')]);
    // what only the base holds was not copied
    const map = JSON.parse(await runOk('qemu-img', ['map', '--output=json', '-f', 'qcow2', tmp('copy')])) as readonly { readonly start: number; readonly length: number; readonly depth: number }[];
    const own = (offset: number): boolean => map.find(({ start, length }) => start <= offset && offset < start + length)!.depth === 0;
    expect([1.5, 3, 5, 8.5, 9, 10.5].map((at) => own(Math.floor(at * CLUSTER)))).toEqual([false, false, true, false, true, false]);
  });
});
