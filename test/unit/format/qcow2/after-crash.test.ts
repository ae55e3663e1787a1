/** What the crash simulator found, each as the shortest way there. */
import { expect, test } from '@jest/globals';
import { BlockNode } from '../../../../src/block/node.js';
import { createQcow2 } from '../../../../src/format/qcow2/create.js';
import { openQcow2 } from '../../../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../../../src/protocol/memory.js';
import { ImageModel, KeptOpen } from '../../../support/image-model.js';
import { readReferences } from '../../../support/qcow2-references.js';
import { fileBytes } from '../../../support/storage.js';

const KiB = 1024;

test('the repair of lazy refcounts is on disk before the dirty bit goes', async () => {
  const storage = new MemoryDriver();
  const model = await ImageModel.make(storage, { size: 64 * KiB, clusterSize: 512, lazyRefcounts: true });
  await model.write(0, new Uint8Array(8192).fill(1));
  await model.node.flush();
  expect(readReferences(await fileBytes(storage)).dirty).toBe(true);
  await openQcow2(new BlockNode({ name: 'after the crash', driver: new KeptOpen(storage) }));
  // and here the power goes again
  expect(readReferences(await fileBytes(storage))).toMatchObject({ dirty: false, problems: [], leaks: 0 });
});

test('a dirty image that no repair can put in order is refused and left as it is', async () => {
  const storage = new MemoryDriver();
  const model = await ImageModel.make(storage, { size: 64 * KiB, clusterSize: 512, lazyRefcounts: true });
  await model.write(0, new Uint8Array(8192).fill(1));
  await model.node.flush();
  const file = new BlockNode({ name: 'image', driver: new KeptOpen(storage) });
  const table = model.driver.image.activeL1.l2Offset(0);
  await file.write(table, new Uint8Array([0x80, 0x40, 0, 0, 0, 0, 2, 0])); // a cluster far beyond the end of the file
  const before = await fileBytes(storage);
  await expect(openQcow2(file)).rejects.toMatchObject({ code: 'CORRUPT' });
  expect(Buffer.compare(await fileBytes(storage), before)).toBe(0);
});

test('refcount blocks that a repair makes are not taken for leaks by it', async () => {
  const storage = new MemoryDriver();
  const model = await ImageModel.make(storage, { size: 256 * KiB, clusterSize: 512, refcountBits: 64 });
  await model.write(0, new Uint8Array(200 * KiB).fill(1));
  await model.node.close();
  const file = new BlockNode({ name: 'image', driver: new KeptOpen(storage) });
  await file.write(512 + 3 * 8, new Uint8Array(8)); // the fourth entry of the refcount table
  const driver = await openQcow2(file, { forCheck: true });
  expect(await driver.check({ repair: 'all' })).toMatchObject({ corruptions: 0, leaks: 0 });
  expect(await driver.check({})).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
  await driver.close();
  expect(readReferences(await fileBytes(storage))).toMatchObject({ problems: [], leaks: 0 });
});

test('a leaked reference does not keep the COPIED flag off once it is repaired', async () => {
  const storage = new MemoryDriver();
  const model = await ImageModel.make(storage, { size: 64 * KiB, clusterSize: 512 });
  await model.write(0, new Uint8Array(512).fill(1));
  await model.createSnapshot('old', new Uint8Array(0));
  const cluster = (await model.driver.blockStatus(0, 512)).hostOffset! / 512;
  await model.driver.image.mutex.runExclusive(() => model.driver.image.refcounts.adjust(cluster, 1, 1));
  await model.deleteSnapshot('old');
  expect(await model.driver.check({})).toMatchObject({ leaks: 1, corruptions: 0 });
  await model.driver.check({ repair: 'leaks' });
  expect(await model.driver.check({})).toMatchObject({ leaks: 0, corruptions: 0 });
});

test('COPIED flags of many tables are repaired with a cache that holds few', async () => {
  const storage = new MemoryDriver();
  const model = await ImageModel.make(storage, { size: 512 * KiB, clusterSize: 512 }, { l2CacheSize: 1 });
  await model.write(0, new Uint8Array(512 * KiB).fill(1));
  await model.createSnapshot('old', new Uint8Array(0));
  const { refcounts, mutex } = model.driver.image;
  const tables = model.driver.image.activeL1;
  await mutex.runExclusive(async () => {
    for (let at = 0; at < 512 * KiB; at += 512) {
      await refcounts.adjust((await model.driver.blockStatus(at, 512)).hostOffset! / 512, 1, 1);
    }
  });
  await model.deleteSnapshot('old');
  expect(tables.entries).toBe(16);
  await model.driver.check({ repair: 'leaks' });
  expect(await model.driver.check({})).toMatchObject({ leaks: 0, corruptions: 0 });
});

test('a resize over a longer backing file never shows its data, wherever the power goes', async () => {
  const backing = new BlockNode({ name: 'backing', driver: new KeptOpen(new MemoryDriver({ bytes: 128 * KiB })), pinned: true });
  await backing.write(0, new Uint8Array(128 * KiB).fill(9));
  const storage = new MemoryDriver();
  await createQcow2(new BlockNode({ name: 'image', driver: new KeptOpen(storage) }),
    { size: 40 * KiB, clusterSize: 512, backingFile: 'backing', backingFormat: 'raw' });
  const states: Uint8Array[] = [];
  const watched = new KeptOpen(storage);
  const submit = watched.submit.bind(watched);
  watched.submit = async (request) => {
    await submit(request);
    states.push(await fileBytes(storage));
  };
  const driver = await openQcow2(new BlockNode({ name: 'image', driver: watched }), { openBacking: async () => backing });
  await driver.resize(100 * KiB);
  expect(driver.length()).toBe(100 * KiB);
  const lengths = new Set<number>();
  for (const state of states) lengths.add(await lengthIfZeroTail(state, backing));
  expect([...lengths]).toEqual([40 * KiB, 100 * KiB]);
});

async function lengthIfZeroTail(state: Uint8Array, backing: BlockNode): Promise<number> {
  const memory = new MemoryDriver();
  const file = new BlockNode({ name: 'image', driver: memory });
  await file.write(0, state);
  const driver = await openQcow2(file, { readOnly: true, openBacking: async () => backing });
  const node = new BlockNode({ name: 'qcow2', driver, readOnly: true });
  const disk = new Uint8Array(node.length());
  await node.read(0, disk);
  expect(disk.subarray(0, 40 * KiB).every((byte) => byte === 9)).toBe(true);
  expect(disk.subarray(40 * KiB).every((byte) => byte === 0)).toBe(true);
  return disk.byteLength;
}
