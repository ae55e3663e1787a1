/** Compressed clusters: QEMU writes them, we read them and copy out of them on write. */
import { expect, test } from '@jest/globals';
import { Random } from '../../src/index.js';
import { allAgree, weFindNothing, weReadAs, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { randomSteps, stepsByUs, Twin } from '../support/twin.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;

/** Text, zeros, and bytes that do not compress. */
function fill(twin: Twin, random: Random): void {
  for (let offset = 0; offset < twin.size; offset += 48 * KiB) {
    const bytes = Math.min(48 * KiB, twin.size - offset);
    const data = Buffer.alloc(bytes, `line ${offset} of some text that compresses well\n`);
    if (random.chance(0.3)) random.fill(data);
    if (random.chance(0.8)) twin.write(offset, data);
  }
}

peers('qemu-img', 'qemu-io')('compressed clusters', () => {
  test.each([4 * KiB, 64 * KiB, 2 * MiB])('of %d bytes, converted by qemu-img', async (clusterSize) => {
    const random = new Random(clusterSize);
    const size = Math.max(4 * MiB, 4 * clusterSize) + 512;
    const path = tmp('compressed.qcow2');
    const twin = new Twin(tmp('twin.raw'), size);
    fill(twin, random);
    await runOk('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', `cluster_size=${clusterSize}`, twin.path, path]);
    await weReadAs(path, twin);
    expect((await weFindNothing(path)).compressedClusters).toBeGreaterThan(0);

    const steps = randomSteps(random, size, clusterSize, 20);
    await withImage(path, { discard: 'unmap' }, (node) => stepsByUs(node, steps));
    for (const step of steps) twin.apply(step, clusterSize);
    await allAgree(path, twin);
  });

  test('over our own data', async () => {
    const size = 8 * MiB;
    const path = tmp('mixed.qcow2');
    const twin = new Twin(tmp('twin.raw'), size);
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(size)]);
    const ours = { op: 'write', offset: MiB + 100, bytes: 3 * MiB, seed: 7 } as const;
    await withImage(path, {}, (node) => stepsByUs(node, [ours]));
    twin.apply(ours, 64 * KiB);
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -c -P 0x41 0 64k', '-c', 'write -c -P 0x42 5M 1M', path]);
    twin.write(0, Buffer.alloc(64 * KiB, 0x41));
    twin.write(5 * MiB, Buffer.alloc(MiB, 0x42));
    await allAgree(path, twin);
    const over = { op: 'write', offset: 5 * MiB + 5, bytes: 10, seed: 8 } as const;
    await withImage(path, {}, (node) => stepsByUs(node, [over]));
    twin.apply(over, 64 * KiB);
    await allAgree(path, twin);
  });
});
