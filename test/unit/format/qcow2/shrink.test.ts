/** A smaller disk: old or new wherever the power goes, and what it lost is given back. */
import { expect, test } from '@jest/globals';
import { BlockNode } from '../../../../src/block/node.js';
import { openQcow2 } from '../../../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../../../src/protocol/memory.js';
import { ImageModel, KeptOpen } from '../../../support/image-model.js';
import { readReferences } from '../../../support/qcow2-references.js';
import { fileBytes, memoryOf } from '../../../support/storage.js';

const KiB = 1024;
const SIZE = 256 * KiB; // 8 L2 tables of 512-byte clusters

/** Every state of the file between a call and its end. */
async function statesOf(storage: MemoryDriver, work: (watched: KeptOpen) => Promise<void>): Promise<Uint8Array[]> {
  const states = [await fileBytes(storage)];
  const watched = new KeptOpen(storage);
  const [submit, resize] = [watched.submit.bind(watched), watched.resize.bind(watched)];
  watched.submit = async (request) => {
    await submit(request);
    if (request.op !== 'read' && request.op !== 'flush') states.push(await fileBytes(storage));
  };
  watched.resize = async (bytes) => {
    await resize(bytes);
    states.push(await fileBytes(storage));
  };
  await work(watched);
  return states;
}

async function diskIn(state: Uint8Array): Promise<Uint8Array> {
  const driver = await openQcow2(new BlockNode({ name: 'survivor', driver: await memoryOf(state) }), { readOnly: true });
  const node = new BlockNode({ name: 'disk', driver, readOnly: true });
  const disk = new Uint8Array(node.length());
  await node.read(0, disk);
  return disk;
}

test.each([
  [100 * KiB + 512, 'in the middle of a table'], [96 * KiB, 'between two tables'], [SIZE - 512, 'in the last table'], [512, 'in the first table'], [0, 'nothing is left'],
])('to %d bytes (%s)', async (bytes) => {
  const storage = new MemoryDriver();
  const model = await ImageModel.make(storage, { size: SIZE, clusterSize: 512 });
  await model.write(0, new Uint8Array(SIZE).fill(5));
  await model.createSnapshot('whole', new Uint8Array(0));
  await model.write(90 * KiB, new Uint8Array(SIZE - 90 * KiB).fill(6));
  const disk = model.disk.slice();
  await model.node.close();
  const states = await statesOf(storage, async (watched) => {
    const driver = await openQcow2(new BlockNode({ name: 'image', driver: watched }), { discard: 'unmap' });
    await new BlockNode({ name: 'disk', driver }).drained(() => driver.resize(bytes));
    await driver.close();
  });
  expect(states.length).toBeGreaterThan(4);
  const lengths: number[] = [];
  for (const state of states) {
    expect(readReferences(state).problems).toEqual([]);
    const found = await diskIn(state);
    expect(Buffer.compare(found, disk.subarray(0, found.byteLength))).toBe(0);
    lengths.push(found.byteLength);
  }
  expect([...new Set(lengths)]).toEqual([SIZE, bytes]); // and never back
  expect(readReferences(states.at(-1)!)).toMatchObject({ problems: [], leaks: 0 });
  expect(states.at(-1)!.byteLength).toBeLessThan(states[0]!.byteLength);
});

test('what comes back with a larger disk is zeros', async () => {
  const storage = new MemoryDriver();
  const model = await ImageModel.make(storage, { size: SIZE, clusterSize: 4 * KiB });
  await model.write(0, new Uint8Array(SIZE).fill(5));
  await model.node.drained(() => model.driver.resize(10 * KiB));
  await model.node.drained(() => model.driver.resize(SIZE));
  const disk = new Uint8Array(SIZE);
  await model.node.read(0, disk);
  expect(disk.subarray(0, 10 * KiB).every((byte) => byte === 5)).toBe(true);
  expect(disk.subarray(10 * KiB).every((byte) => byte === 0)).toBe(true);
});

test('refcount blocks that count nothing any more are given back', async () => {
  const storage = new MemoryDriver();
  const model = await ImageModel.make(storage, { size: 1024 * KiB, clusterSize: 512, refcountBits: 64 }); // 64 clusters per block
  await model.write(0, new Uint8Array(1024 * KiB).fill(5));
  const { refcounts } = model.driver.image;
  const blocks = (): number => Array.from({ length: refcounts.tableEntries }, (_, index) => refcounts.blockOffset(index)).filter((offset) => offset !== 0).length;
  expect(blocks()).toBeGreaterThan(30);
  await model.node.drained(() => model.driver.resize(4 * KiB));
  expect(blocks()).toBeLessThan(4);
  await model.node.close();
  expect(readReferences(await fileBytes(storage))).toMatchObject({ problems: [], leaks: 0 });
  expect(storage.length()).toBeLessThan(64 * KiB);
  await model.open();
  await model.node.write(0, new Uint8Array(4 * KiB).fill(6)); // and the image goes on
  await model.node.close();
  expect(readReferences(await fileBytes(storage))).toMatchObject({ problems: [], leaks: 0 });
});

test('is refused where QEMU refuses', async () => {
  const old = await ImageModel.make(new MemoryDriver(), { size: SIZE, clusterSize: 512, version: 2 });
  await old.createSnapshot('one', new Uint8Array(0));
  for (const bytes of [SIZE / 2, SIZE * 2]) {
    await expect(old.driver.resize(bytes)).rejects.toMatchObject({ code: 'NOT_SUPPORTED', message: "Can't resize a v2 image which has snapshots" });
  }
  const { driver } = await ImageModel.make(new MemoryDriver(), { size: SIZE, clusterSize: 512 });
  await expect(driver.resize(1000)).rejects.toThrow('The new size must be a multiple of 512');
  await expect(driver.resize(512, 'metadata')).rejects.toThrow("Preallocation can't be used for shrinking an image");
  expect(driver.length()).toBe(SIZE);
});
