/** Images that we make and write, in every geometry: QEMU finds nothing wrong and reads what we wrote. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { createImage, Random } from '../../src/index.js';
import { allAgree, infoAgrees, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { randomSteps, stepsByUs, Twin } from '../support/twin.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;

const GEOMETRIES = [
  ...[512, 4 * KiB, 64 * KiB, MiB, 2 * MiB].flatMap((clusterSize) => ([
    { version: 2, clusterSize, refcountBits: 16 }, { version: 3, clusterSize, refcountBits: 16 },
  ] as const)),
  ...[1, 2, 4, 8, 32, 64].map((refcountBits) => ({ version: 3, clusterSize: 4 * KiB, refcountBits } as const)),
  ...[1, 64].map((refcountBits) => ({ version: 3, clusterSize: 512, refcountBits } as const)),
  ...[1, 64].map((refcountBits) => ({ version: 3, clusterSize: 2 * MiB, refcountBits } as const)),
];

peers('qemu-img')('an image of ours', () => {
  test.each(GEOMETRIES)('with %j', async (geometry) => {
    const { clusterSize } = geometry;
    const random = new Random(clusterSize + geometry.refcountBits + geometry.version);
    const size = Math.max(3 * MiB, 6 * clusterSize) + 512 * random.below(9);
    const path = tmp('ours.qcow2');
    await createImage(path, { format: 'qcow2', size, ...geometry });
    const twin = new Twin(tmp('twin.raw'), size);
    const steps = randomSteps(random, size, clusterSize, 30);
    await withImage(path, { discard: random.pick(['unmap', 'ignore']) }, (node) => stepsByUs(node, steps));
    for (const step of steps) twin.apply(step, clusterSize);
    await allAgree(path, twin);
    expect(await infoAgrees(path)).toMatchObject({ 'virtual-size': size, 'cluster-size': clusterSize });
    await runOk('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', path, tmp('converted.raw')]);
    expect(readFileSync(tmp('converted.raw')).equals(readFileSync(twin.path))).toBe(true);
  });
});
