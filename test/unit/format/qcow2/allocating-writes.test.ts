/** What reaches the host when a small write takes a new cluster: only itself, where the rest of the cluster is zeros already. */
import { expect, test } from '@jest/globals';
import { createImage, openImage } from '../../../../src/image/open.js';
import type { BlockNode } from '../../../../src/block/node.js';
import { IoLog } from '../../../support/io-log.js';
import { useTmp } from '../../../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;
const CLUSTER = 64 * KiB;

/** The sizes of the data writes to the file from here on. */
async function traced(node: BlockNode, work: () => Promise<void>): Promise<number[]> {
  const log = new IoLog();
  const file = node.children[0]!.node;
  file.traceTo(log);
  await work();
  file.traceTo(null);
  return log.of('D', 'file').filter(({ request }) => request.op === 'write').map(({ request }) => request.bytes);
}

async function bytesAt(node: BlockNode, offset: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes, 0xee);
  await node.read(offset, buffer);
  return buffer;
}

/** The cluster that a 4 KiB write of `value` at 8 KiB leaves. */
function clusterWith(value: number, around = 0): Buffer {
  return Buffer.alloc(CLUSTER, around).fill(value, 8 * KiB, 12 * KiB);
}

async function openFresh(backingFile?: string): Promise<BlockNode> {
  await createImage(tmp('image.qcow2'), { format: 'qcow2', size: 64 * MiB, ...(backingFile === undefined ? {} : { backingFile, backingFormat: 'raw' }) });
  const node = await openImage(tmp('image.qcow2'), { discard: 'unmap', backing: 'allow' });
  await node.write(0, Buffer.alloc(CLUSTER, 1)); // the L2 table and the refcount block are in memory now
  return node;
}

test('past the end of the file a cluster needs only the data itself', async () => {
  const node = await openFresh();
  const sizes = await traced(node, () => node.write(MiB + 8 * KiB, Buffer.alloc(4 * KiB, 7)));
  expect(sizes).toEqual([4 * KiB]);
  expect(await bytesAt(node, MiB, CLUSTER)).toEqual(clusterWith(7));
  await node.close();
  await using again = await openImage(tmp('image.qcow2'), { readOnly: true });
  expect(await bytesAt(again, MiB, CLUSTER)).toEqual(clusterWith(7));
  expect(await again.driver.check!({})).toMatchObject({ corruptions: 0, leaks: 0 });
});

test('a cluster that held other data before is written as a whole', async () => {
  const node = await openFresh();
  await node.write(MiB, Buffer.alloc(CLUSTER, 0xaa));
  await node.write(2 * MiB, Buffer.alloc(CLUSTER, 0xbb)); // so that the freed one is inside the file
  const { hostOffset } = await node.blockStatus(MiB, CLUSTER);
  await node.discard(MiB, CLUSTER);
  await node.flush();
  const sizes = await traced(node, () => node.write(3 * MiB + 8 * KiB, Buffer.alloc(4 * KiB, 7)));
  expect((await node.blockStatus(3 * MiB, CLUSTER)).hostOffset).toBe(hostOffset);
  expect(sizes).toEqual([CLUSTER]);
  expect(await bytesAt(node, 3 * MiB, CLUSTER)).toEqual(clusterWith(7));
  await node.close();
});

test('over a backing file the rest of the cluster is copied', async () => {
  await createImage(tmp('base.raw'), { format: 'raw', size: 64 * MiB });
  await using base = await openImage(tmp('base.raw'), { format: 'raw' });
  await base.write(MiB, Buffer.alloc(CLUSTER, 0x55));
  await base.close();
  const node = await openFresh(tmp('base.raw'));
  const sizes = await traced(node, () => node.write(MiB + 8 * KiB, Buffer.alloc(4 * KiB, 7)));
  expect(sizes).toEqual([CLUSTER]);
  expect(await bytesAt(node, MiB, CLUSTER)).toEqual(clusterWith(7, 0x55));
  await node.close();
});
