/** The runtime options of qcow2 do what they say: units and sizes of the caches, their cleaning, and which clusters are punched. */
import { afterEach, expect, jest, test } from '@jest/globals';
import { BlockNode } from '../../../../src/block/node.js';
import type { BlockRequest } from '../../../../src/block/request.js';
import { createQcow2 } from '../../../../src/format/qcow2/create.js';
import type { Qcow2OpenOptions } from '../../../../src/format/qcow2/options.js';
import { openQcow2, type Qcow2Driver } from '../../../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../../../src/protocol/memory.js';

const KiB = 1024;
const MiB = 1024 * KiB;

class Watched extends MemoryDriver {
  readonly reads: number[] = [];
  punched = 0;

  override submit(request: BlockRequest): Promise<void> {
    if (request.op === 'read') this.reads.push(request.bytes);
    if (request.op === 'discard') this.punched += request.bytes;
    return super.submit(request);
  }
}

async function image(options: Qcow2OpenOptions, create: { readonly version?: 2 | 3 } = {}): Promise<{ readonly below: Watched; readonly node: BlockNode; readonly driver: Qcow2Driver }> {
  const below = new Watched();
  const file = new BlockNode({ name: 'file', driver: below });
  await createQcow2(file, { size: 64 * MiB, clusterSize: 4 * KiB, ...create }); // 32 L2 tables, of 2 MiB each
  const driver = await openQcow2(file, options);
  below.reads.length = 0;
  return { below, driver, node: new BlockNode({ name: 'disk', driver }) };
}

/** Sizes of the metadata reads that one byte of every L2 table's range needs. */
async function readEverywhere({ below, node }: Awaited<ReturnType<typeof image>>): Promise<number[]> {
  below.reads.length = 0;
  for (let at = 0; at < 64 * MiB; at += 2 * MiB) await node.read(at, new Uint8Array(256));
  return below.reads.filter((bytes) => bytes !== 256);
}

afterEach(() => { jest.useRealTimers(); });

test('l2-cache-entry-size is the unit in which L2 tables are read, and may change while the image is open', async () => {
  const opened = await image({ l2CacheEntrySize: 1 * KiB });
  for (let at = 0; at < 64 * MiB; at += 2 * MiB) await opened.node.write(at, new Uint8Array(512).fill(1));
  await opened.node.flush();
  const reopen = async (options: Qcow2OpenOptions): Promise<void> => {
    const prepared = await opened.driver.prepareReopen(options);
    prepared.commit();
  };
  await reopen({ l2CacheEntrySize: 4 * KiB });
  expect(await readEverywhere(opened)).toEqual(Array.from({ length: 32 }, () => 4 * KiB));
  await reopen({ l2CacheEntrySize: 512 });
  expect(await readEverywhere(opened)).toEqual(Array.from({ length: 32 }, () => 512));
  await opened.node.write(3 * MiB, new Uint8Array(512).fill(2));
  await opened.node.close();
});

test('l2-cache-size and cache-size bound what stays in memory', async () => {
  const opened = await image({});
  for (let at = 0; at < 64 * MiB; at += 2 * MiB) await opened.node.write(at, new Uint8Array(512).fill(1));
  await opened.node.flush();
  await readEverywhere(opened);
  expect(await readEverywhere(opened)).toEqual([]);
  for (const [options, most] of [
    [{ l2CacheSize: 16 * KiB }, 4], [{ cacheSize: 32 * KiB, refcountCacheSize: 8 * KiB }, 6], [{ cacheSize: 24 * KiB }, 2], [{ cacheSize: 1 * MiB }, 32],
  ] as const) {
    (await opened.driver.prepareReopen(options)).commit();
    await readEverywhere(opened);
    expect({ options, kept: opened.driver.image.l2.size }).toEqual({ options, kept: most });
  }
  await opened.node.close();
});

test('cache-clean-interval drops what nobody used for so long, and nothing that is not written yet', async () => {
  jest.useFakeTimers({ doNotFake: ['setImmediate', 'nextTick', 'queueMicrotask'] });
  const opened = await image({ cacheCleanInterval: 10 });
  const { l2 } = opened.driver.image;
  for (let at = 0; at < 64 * MiB; at += 2 * MiB) await opened.node.write(at, new Uint8Array(512).fill(1));
  jest.advanceTimersByTime(25_000);
  expect(l2.size).toBe(32); // dirty
  await opened.node.flush();
  jest.advanceTimersByTime(10_000);
  await opened.node.read(2 * MiB, new Uint8Array(512));
  jest.advanceTimersByTime(10_000);
  expect(l2.size).toBe(1);
  jest.advanceTimersByTime(10_000);
  expect(l2.size).toBe(0);
  const found = new Uint8Array(512);
  await opened.node.read(4 * MiB, found);
  expect(found.every((byte) => byte === 1)).toBe(true);
  await opened.node.close();
  expect(jest.getTimerCount()).toBe(0);
});

test.each([
  [{ request: true, snapshot: false, other: false }, [4, 0]], [{ request: false, snapshot: true, other: false }, [0, 4]], [{ request: false, snapshot: false, other: false }, [0, 0]],
] as const)('pass-discard: %j', async (passDiscard, [afterDiscard, afterDelete]) => {
  const { below, node, driver } = await image({ passDiscard });
  await node.write(0, new Uint8Array(16 * KiB).fill(1));
  await node.discard(0, 16 * KiB);
  await node.flush();
  expect(below.punched).toBe(afterDiscard * 4 * KiB);
  await node.write(0, new Uint8Array(16 * KiB).fill(1));
  await node.drained(() => driver.snapshots.create({ name: 's', vmStateSize: 0, dateSeconds: 0, dateNanoseconds: 0 }));
  await node.write(0, new Uint8Array(16 * KiB).fill(2));
  await node.flush();
  const before = below.punched;
  await node.drained(() => driver.snapshots.delete('1'));
  expect(below.punched - before).toBeGreaterThanOrEqual(afterDelete * 4 * KiB);
  expect(below.punched - before > 0).toBe(afterDelete > 0);
  await node.close();
});

test.each([
  [{ cacheSize: 1, l2CacheSize: 1, refcountCacheSize: 1 }, 'cache-size, l2-cache-size and refcount-cache-size may not be set at the same time'],
  [{ cacheSize: MiB, l2CacheSize: 2 * MiB }, 'l2-cache-size may not exceed cache-size'], [{ cacheSize: MiB, refcountCacheSize: 2 * MiB }, 'refcount-cache-size may not exceed cache-size'],
  [{ l2CacheEntrySize: 8 * KiB }, 'L2 cache entry size must be a power of two between 512 and the cluster size (4096)'],
  [{ refcountCacheSize: 2 ** 60 }, 'Refcount cache size too big'], [{ cacheCleanInterval: 2 ** 32 }, 'Cache clean interval too big'],
])('%j is refused', async (options, why) => {
  await expect(image(options)).rejects.toThrow(why);
});

test('lazy refcounts need version 3', async () => {
  await expect(image({ lazyRefcounts: true }, { version: 2 })).rejects.toThrow('Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level');
});
