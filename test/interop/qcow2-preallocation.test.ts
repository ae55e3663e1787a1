/** Preallocated images: every cluster is mapped, reads as zeros, and is written in place. */
import { statSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { createImage, Random, resizeNode } from '../../src/index.js';
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

  test.each(['falloc', 'full'] as const)('%s by us, of new images and of those that grow', async (preallocation) => {
    const size = 5 * MiB + 512;
    const path = tmp('ours.qcow2');
    await createImage(path, { format: 'qcow2', size, preallocation });
    const twin = new Twin(tmp('twin.raw'), size);
    await allAgree(path, twin);
    expect(statSync(path).blocks * 512).toBeGreaterThan(size);
    const before = statSync(path).blocks;
    const grown = new Twin(tmp('grown.raw'), 9 * MiB);
    await withImage(path, {}, async (node) => {
      await stepsByUs(node, [{ op: 'write', offset: 3 * MiB, bytes: 2 * MiB, seed: 1 }, { op: 'discard', offset: 3 * MiB, bytes: MiB, seed: 0 }]);
      await resizeNode(node, 9 * MiB, preallocation);
    });
    await withImage(path, { readOnly: true }, async (node) => {
      const tail = new Uint8Array(4 * MiB - 512);
      await node.read(size, tail);
      expect(tail.every((byte) => byte === 0)).toBe(true); // also where it took over what had been freed
      const whole = new Uint8Array(grown.size);
      await node.read(0, whole);
      grown.write(0, Buffer.from(whole));
    });
    await allAgree(path, grown);
    expect((statSync(path).blocks - before) * 512).toBeGreaterThan(2.5 * MiB);
  });

  test.each(['falloc', 'full'] as const)('%s of a raw image by us, made and grown', async (preallocation) => {
    const path = tmp('ours.raw');
    await createImage(path, { format: 'raw', size: 3 * MiB + 512, preallocation });
    expect(statSync(path)).toMatchObject({ size: 3 * MiB + 512 });
    expect(statSync(path).blocks * 512).toBeGreaterThanOrEqual(3 * MiB);
    await withImage(path, { format: 'raw' }, (node) => resizeNode(node, 5 * MiB, preallocation));
    expect(statSync(path)).toMatchObject({ size: 5 * MiB });
    expect(statSync(path).blocks * 512).toBeGreaterThanOrEqual(5 * MiB);
    await withImage(path, { format: 'raw' }, (node) => expect(resizeNode(node, 6 * MiB, 'metadata')).rejects.toThrow('Unsupported preallocation mode: metadata'));
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
