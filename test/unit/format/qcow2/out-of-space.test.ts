/** A disk that is full for a while: what could not be written waits in memory, and is written when there is space again. */
import { expect, test } from '@jest/globals';
import { BlockError } from '../../../../src/base/errors.js';
import { BlockNode } from '../../../../src/block/node.js';
import type { BlockRequest } from '../../../../src/block/request.js';
import { createQcow2 } from '../../../../src/format/qcow2/create.js';
import { openQcow2, type Qcow2Driver } from '../../../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../../../src/protocol/memory.js';

const KiB = 1024;
const CLUSTER = 4 * KiB;

class Space extends MemoryDriver {
  /** Which requests fail. */
  failing: BlockRequest['op'] | null = null;

  override submit(request: BlockRequest): Promise<void> {
    if (request.op !== this.failing || (request.op === 'write' && request.ioClass !== 'metadata')) return super.submit(request);
    return Promise.reject(new BlockError('NO_SPACE', 'no space', { errno: 'ENOSPC' }));
  }

  override async close(): Promise<void> {}
}

async function open(space: Space, l2CacheSize?: number): Promise<{ node: BlockNode; driver: Qcow2Driver }> {
  const driver = await openQcow2(new BlockNode({ name: 'file', driver: space }), l2CacheSize === undefined ? {} : { l2CacheSize });
  return { node: new BlockNode({ name: 'disk', driver }), driver };
}

async function valueAt(node: BlockNode, cluster: number): Promise<number> {
  const bytes = new Uint8Array(CLUSTER);
  await node.read(cluster * CLUSTER, bytes);
  expect(new Set(bytes).size).toBe(1);
  return bytes[0]!;
}

const put = (node: BlockNode, cluster: number, value: number): Promise<void> => node.write(cluster * CLUSTER, new Uint8Array(CLUSTER).fill(value));

async function fresh(): Promise<Space> {
  const space = new Space({});
  await createQcow2(new BlockNode({ name: 'file', driver: space }), { size: 64 * KiB * KiB, clusterSize: CLUSTER });
  return space;
}

test('a flush fails, and succeeds when there is space', async () => {
  const space = await fresh();
  const { node, driver } = await open(space);
  await put(node, 1, 1);
  space.failing = 'write';
  for (let turn = 0; turn < 3; turn++) await expect(node.flush()).rejects.toMatchObject({ errno: 'ENOSPC' });
  await put(node, 2, 2);
  await node.discard(CLUSTER, CLUSTER);
  expect([await valueAt(node, 1), await valueAt(node, 2)]).toEqual([0, 2]);
  await expect(driver.snapshots.create({ name: 's', vmStateSize: 0, dateSeconds: 0, dateNanoseconds: 0 })).rejects.toMatchObject({ errno: 'ENOSPC' });
  space.failing = null;
  await put(node, 3, 3);
  await node.flush();
  await driver.snapshots.create({ name: 's', vmStateSize: 0, dateSeconds: 0, dateNanoseconds: 0 });
  await node.close();
  const again = await open(space);
  expect(await Promise.all([1, 2, 3].map((cluster) => valueAt(again.node, cluster)))).toEqual([0, 2, 3]);
  expect(await again.driver.check({})).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
  await again.node.close();
});

test('with a cache full of what could not be written everything is read, and writes that fail take no space', async () => {
  const space = await fresh();
  const { node } = await open(space, 1);
  const slices = Array.from({ length: 12 }, (_, index) => index * 512);
  for (const cluster of slices) await put(node, cluster, 1);
  await node.flush();
  space.failing = 'write';
  const refused: number[] = [];
  for (const cluster of slices) await put(node, cluster + 1, 2).catch(() => refused.push(cluster));
  expect(refused.length).toBeGreaterThan(5);
  const { length } = { length: space.length() };
  for (let turn = 0; turn < 20; turn++) await expect(put(node, refused[0]! + 1, 2)).rejects.toMatchObject({ errno: 'ENOSPC' });
  expect(space.length()).toBeLessThanOrEqual(length + 2 * CLUSTER);
  for (const cluster of slices) expect(await valueAt(node, cluster)).toBe(1);
  space.failing = null;
  for (const cluster of slices) await put(node, cluster + 1, 3);
  await node.close();
  const again = await open(space);
  for (const cluster of slices) expect([await valueAt(again.node, cluster), await valueAt(again.node, cluster + 1)]).toEqual([1, 3]);
  expect(await again.driver.check({})).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
  await again.node.close();
});

test('a flush of the file that failed is not forgotten: what it was to make durable may be lost', async () => {
  const space = await fresh();
  const { node } = await open(space);
  await put(node, 1, 1);
  space.failing = 'flush';
  await expect(node.flush()).rejects.toMatchObject({ errno: 'ENOSPC' });
  space.failing = null;
  await expect(node.flush()).rejects.toThrow('is read-only since a metadata write failed');
  await expect(put(node, 2, 2)).rejects.toThrow('is read-only');
  expect(await valueAt(node, 1)).toBe(1);
});
