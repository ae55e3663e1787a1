/** Preallocated images: every cluster is mapped, reads as zeros, and is written in place. */
import { statSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { createImage, Random } from '../../src/index.js';
import { allAgree, weFindNothing, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { randomSteps, stepsByQemu, stepsByUs, Twin } from '../support/twin.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;

peers('qemu-img', 'qemu-io')('preallocation', () => {
  test.each([4 * KiB, 64 * KiB, 2 * MiB])('of metadata by us, with clusters of %d bytes', async (clusterSize) => {
    const size = 24 * MiB + 512;
    const path = tmp('ours.qcow2');
    await createImage(path, { format: 'qcow2', size, clusterSize, preallocation: 'metadata' });
    const twin = new Twin(tmp('twin.raw'), size);
    await allAgree(path, twin);
    expect((await weFindNothing(path)).allocatedClusters).toBe(Math.ceil(size / clusterSize));
    expect(statSync(path).blocks * 512).toBeLessThan(size / 2); // metadata only
    const steps = randomSteps(new Random(clusterSize), size, clusterSize, 15);
    await stepsByQemu(path, steps);
    for (const step of steps) twin.apply(step, clusterSize);
    await allAgree(path, twin);
  });

  test.each(['metadata', 'falloc', 'full'])('%s by QEMU', async (mode) => {
    const size = 5 * MiB + 512;
    const path = tmp('theirs.qcow2');
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `preallocation=${mode}`, path, String(size)]);
    const twin = new Twin(tmp('twin.raw'), size);
    await allAgree(path, twin);
    const before = statSync(path).size;
    const whole = { op: 'write', offset: 0, bytes: size, seed: 1 } as const;
    await withImage(path, {}, (node) => stepsByUs(node, [whole]));
    twin.apply(whole, 64 * KiB);
    await allAgree(path, twin);
    // no new cluster was needed
    expect(statSync(path).size).toBeLessThanOrEqual(Math.max(before, Math.ceil(before / (64 * KiB)) * 64 * KiB));
  });
});
