/** Disks beyond 4 GiB and of 8 TiB with data at their far ends, and host offsets beyond 4 GiB. */
import { statSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { createImage } from '../../src/index.js';
import { allAgree, infoAgrees, weReadAs, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { stepsByQemu, stepsByUs, Twin, type Step } from '../support/twin.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;
const TiB = 1024 * GiB;

/** Around every edge where 32 bits end, and at both ends of the disk. */
function farSteps(size: number, seed: number): Step[] {
  const edges = [0, 2 * GiB, 4 * GiB, size / 2, size - MiB].filter((offset) => offset + MiB <= size);
  return edges.flatMap((offset, index) => [
    { op: 'write', offset: Math.max(0, offset - 3000), bytes: 100_000, seed: seed + index },
    { op: 'zeroes', offset: offset + 64 * KiB, bytes: 64 * KiB, seed },
    { op: 'write', offset: offset + MiB - 4096, bytes: 4096, seed: seed + 100 + index },
  ] as const);
}

const SIZES = [
  { size: 4 * GiB + 1536, clusterSize: 64 * KiB }, { size: 5 * GiB, clusterSize: 4 * KiB }, { size: 8 * TiB, clusterSize: 64 * KiB },
  { size: 8 * TiB, clusterSize: 2 * MiB },
];

peers('qemu-img', 'qemu-io')('a large disk', () => {
  test.each(SIZES)('of ours, with %j', async ({ size, clusterSize }) => {
    const path = tmp('ours.qcow2');
    await createImage(path, { format: 'qcow2', size, clusterSize });
    const twin = new Twin(tmp('twin.raw'), size);
    const ours = farSteps(size, 1);
    await withImage(path, {}, (node) => stepsByUs(node, ours));
    for (const step of ours) twin.apply(step, clusterSize);
    await allAgree(path, twin);
    await infoAgrees(path);
  });

  test.each(SIZES)('of QEMU, with %j', async ({ size, clusterSize }) => {
    const path = tmp('theirs.qcow2');
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `cluster_size=${clusterSize}`, path, String(size)]);
    const twin = new Twin(tmp('twin.raw'), size);
    const theirs = farSteps(size, 1);
    await stepsByQemu(path, theirs);
    for (const step of theirs) twin.apply(step, clusterSize);
    await weReadAs(path, twin);
    const ours = farSteps(size, 2);
    await withImage(path, {}, (node) => stepsByUs(node, ours));
    for (const step of ours) twin.apply(step, clusterSize);
    await allAgree(path, twin);
  });

  test.each(['us', 'QEMU'])('preallocated by %s, with data beyond 4 GiB of the file', async (maker) => {
    const size = 5 * GiB;
    const path = tmp('preallocated.qcow2');
    if (maker === 'us') await createImage(path, { format: 'qcow2', size, preallocation: 'metadata' });
    else await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', path, String(size)]);
    expect(statSync(path).size).toBeGreaterThan(size);
    const twin = new Twin(tmp('twin.raw'), size);
    const steps = farSteps(size, 3);
    if (maker === 'us') await stepsByQemu(path, steps);
    else await withImage(path, {}, (node) => stepsByUs(node, steps));
    for (const step of steps) twin.apply(step, 64 * KiB);
    await allAgree(path, twin);
  });
});
