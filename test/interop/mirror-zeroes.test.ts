/**
 * Zeros of a mirrored layer that hide what lies below it hide it in the copy as well, though nothing lies below the target
 * while it is made: QEMU finds the disk in the target and the image below it.
 */
import { mkdirSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { BlockGraph, BlockJobs, JobTable, makeRequest, openBlockdev, Permission, RequestFlag, startCommit, startMirror, type BlockNode } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;

/** base.qcow2 ← top.qcow2, of which some clusters are zero, written and discarded, and not there; dst.qcow2 is to lie on the base. */
async function makeImages(folder: string, targetOptions: string): Promise<void> {
  mkdirSync(folder);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', `${folder}/base.qcow2`, '8M']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 1 0 8M', `${folder}/base.qcow2`]);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', `${folder}/top.qcow2`]);
  const top = ['write -z 0 1M', 'write -P 2 2M 1M', 'discard 2M 512k', 'write -P 3 4M 64k', 'write -z 4128k 4k', 'write -P 0 5M 64k'];
  await runOk('qemu-io', ['-f', 'qcow2', ...top.flatMap((command) => ['-c', command.replace(/^(\w+)/, '$1 -q')]), `${folder}/top.qcow2`]);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-u', '-b', 'base.qcow2', '-F', 'qcow2', '-o', targetOptions, `${folder}/dst.qcow2`, '8M']);
}

/** A copy of a moment after a guest has written zeros through to both. */
async function mirror(folder: string, sync: 'top' | 'full', copyMode: 'background' | 'write-blocking'): Promise<void> {
  const graph = new BlockGraph();
  const open = (name: string, more: Readonly<Record<string, unknown>> = {}): Promise<BlockNode> =>
    openBlockdev(graph, { driver: 'qcow2', 'node-name': name, file: { driver: 'file', filename: `${folder}/${name}.qcow2` }, discard: 'unmap', ...more });
  const [source, target] = [await open('top'), await open('dst', { backing: null })];
  const door = await graph.attach(source, { used: Permission.CONSISTENT_READ | Permission.WRITE, shared: Permission.ALL & ~Permission.RESIZE });
  const { blockJob } = await startMirror(graph, new BlockJobs(new JobTable(() => undefined), { emit: () => undefined }), {
    jobId: 'j', source, target, sync, copyMode, granularity: 4096,
  });
  const { job } = blockJob;
  const ready = async (): Promise<void> => { while (!job.isReady && !job.ran) await new Promise<void>((resolve) => { setImmediate(resolve); }); };
  await ready();
  await door.submit(makeRequest('write-zeroes', 6 * MiB, MiB, null, RequestFlag.MAY_UNMAP));
  await door.submit(makeRequest('discard', 7 * MiB, 256 * KiB, null));
  await door.submit(makeRequest('write-zeroes', 7 * MiB + 300 * KiB, 5 * KiB, null));
  job.cancel(false);
  await job.ended;
  expect(job.error).toBe(null);
  await graph.detach(door);
  await graph.closeAll();
}

peers('qemu-img', 'qemu-io')('a mirror over a backing file that is not open', () => {
  for (const [targetOptions, sync] of [['compat=1.1', 'top'], ['compat=0.10', 'top'], ['compat=1.1,cluster_size=4k', 'top'], ['compat=1.1', 'full'], ['compat=0.10', 'full']] as const) {
    for (const copyMode of ['background', 'write-blocking'] as const) {
      test(`sync=${sync} to an image with ${targetOptions}, ${copyMode}`, async () => {
        const folder = tmp('images');
        await makeImages(folder, targetOptions);
        await mirror(folder, sync, copyMode);
        const { code, stdout } = await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', `${folder}/top.qcow2`, `${folder}/dst.qcow2`]);
        expect([code, stdout]).toEqual([0, 'Images are identical.\n']);
        expect(await runOk('qemu-img', ['check', `${folder}/dst.qcow2`])).toContain('No errors');
      });
    }
  }
});

peers('qemu-img', 'qemu-io')('a commit into an image whose backing file is not open', () => {
  test('leaves zeros there that hide it', async () => {
    const folder = tmp('images');
    await makeImages(folder, 'compat=1.1');
    for (const name of ['mid', 'copy']) {
      await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'dst.qcow2', '-F', 'qcow2', `${folder}/${name}.qcow2`]);
      await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -z 1M 2M', '-c', 'write -q -P 5 2M 64k', `${folder}/${name}.qcow2`]);
    }
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'mid.qcow2', '-F', 'qcow2', `${folder}/active.qcow2`]);
    const graph = new BlockGraph();
    const open = (name: string, backing: string | null): Promise<BlockNode> =>
      openBlockdev(graph, { driver: 'qcow2', 'node-name': name, 'read-only': name !== 'active', file: { driver: 'file', filename: `${folder}/${name}.qcow2` }, backing });
    const [base, top, active] = [await open('dst', null), await open('mid', 'dst'), await open('active', 'mid')];
    const { job } = await startCommit(graph, new BlockJobs(new JobTable(() => undefined), { emit: () => undefined }), { jobId: 'j', active, top, base });
    await job.ended;
    expect(job.error).toBe(null);
    await graph.closeAll();
    const { code, stdout } = await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', `${folder}/copy.qcow2`, `${folder}/dst.qcow2`]);
    expect([code, stdout]).toEqual([0, 'Images are identical.\n']);
  });
});
