/** Images that qemu-img makes and qemu-io writes, in every geometry: we read them byte for byte, and write into them. */
import { test } from '@jest/globals';
import { Random } from '../../src/index.js';
import { allAgree, infoAgrees, weFindNothing, weReadAs, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { randomSteps, stepsByQemu, stepsByUs, Twin } from '../support/twin.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;

const GEOMETRIES = [
  ...[512, 4 * KiB, 64 * KiB, MiB, 2 * MiB].flatMap((clusterSize) => ([
    { compat: '0.10', clusterSize, refcountBits: 16 }, { compat: '1.1', clusterSize, refcountBits: 16 },
  ] as const)),
  ...[1, 2, 4, 8, 32, 64].map((refcountBits) => ({ compat: '1.1', clusterSize: 4 * KiB, refcountBits } as const)),
  ...[1, 64].map((refcountBits) => ({ compat: '1.1', clusterSize: 512, refcountBits } as const)),
];

peers('qemu-img', 'qemu-io')('an image of QEMU', () => {
  test.each(GEOMETRIES)('with %j', async ({ compat, clusterSize, refcountBits }) => {
    const random = new Random(clusterSize + refcountBits + compat.length);
    const size = Math.max(3 * MiB, 6 * clusterSize) + 512 * random.below(9);
    const path = tmp('theirs.qcow2');
    const options = `compat=${compat},cluster_size=${clusterSize},refcount_bits=${refcountBits}`;
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, path, String(size)]);
    const twin = new Twin(tmp('twin.raw'), size);
    const theirs = randomSteps(random, size, clusterSize, 25);
    await stepsByQemu(path, theirs);
    for (const step of theirs) twin.apply(step, clusterSize);
    await weReadAs(path, twin);
    await weFindNothing(path);
    await infoAgrees(path);

    const ours = randomSteps(random, size, clusterSize, 25);
    await withImage(path, { discard: random.pick(['unmap', 'ignore']) }, (node) => stepsByUs(node, ours));
    for (const step of ours) twin.apply(step, clusterSize);
    await allAgree(path, twin);

    const again = randomSteps(random, size, clusterSize, 10);
    await stepsByQemu(path, again);
    for (const step of again) twin.apply(step, clusterSize);
    await allAgree(path, twin);
  });
});
