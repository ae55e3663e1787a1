/** The corners of the format: huge disks, narrow refcounts, deep chains, snapshots of other sizes, foreign table entries. */
import { describe, expect, test } from '@jest/globals';
import { Random } from '../../src/base/clock.js';
import { BlockNode } from '../../src/block/node.js';
import { createQcow2 } from '../../src/format/qcow2/create.js';
import type { Qcow2CreateOptions } from '../../src/format/qcow2/options.js';
import { openQcow2 } from '../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { ImageModel, KeptOpen } from '../support/image-model.js';
import { readReferences } from '../support/qcow2-references.js';
import { fileBytes, memoryOf } from '../support/storage.js';

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;
const TiB = 1024 * GiB;

function bytes(count: number, seed: number): Uint8Array {
  const data = new Uint8Array(count);
  new Random(seed).fill(data);
  return data;
}

async function openNode(storage: MemoryDriver, snapshot?: string): Promise<BlockNode> {
  const file = new BlockNode({ name: 'image', driver: new KeptOpen(storage) });
  const driver = await openQcow2(file, { snapshot });
  return new BlockNode({ name: 'qcow2', driver, readOnly: snapshot !== undefined });
}

describe('huge disks', () => {
  test.each([
    [5 * GiB, 64 * KiB], [3 * TiB, 64 * KiB], [8 * TiB, 64 * KiB], [8 * TiB, 2 * MiB], [64 * GiB, 4 * KiB], [100 * MiB, 512],
  ])('of %d bytes with clusters of %d keep what is written near their ends', async (size, clusterSize) => {
    const storage = new MemoryDriver();
    await createQcow2(new BlockNode({ name: 'image', driver: new KeptOpen(storage) }), { size, clusterSize });
    const places = [0, 4 * GiB - 300, 2 * TiB - 300, Math.floor(size / 2) - 77, size - 5000].filter((at) => at >= 0 && at + 5000 <= size);
    let node = await openNode(storage);
    for (const at of places) await node.write(at, bytes(5000, at));
    await node.driver.snapshots!.create({ name: 'one', vmStateSize: 0, dateSeconds: 0, dateNanoseconds: 0 });
    for (const at of places) await node.write(at + 1000, new Uint8Array(1000).fill(9));
    await node.close();
    for (const [snapshot, middle] of [[undefined, 9], ['one', null]] as const) {
      node = await openNode(storage, snapshot);
      for (const at of places) {
        const expected = bytes(5000, at);
        if (middle !== null) expected.fill(middle, 1000, 2000);
        const actual = new Uint8Array(5000);
        await node.read(at, actual);
        expect(Buffer.compare(actual, expected)).toBe(0);
      }
      expect(await node.driver.check!({})).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
      await node.close();
    }
  });
});

describe('narrow refcounts', () => {
  test.each([[1, 0], [2, 2]])('of %d bits hold %d snapshots; one more is refused and changes nothing', async (refcountBits, fit) => {
    const storage = new MemoryDriver();
    const model = await ImageModel.make(storage, { size: 200 * KiB, clusterSize: 512, refcountBits });
    await model.write(0, bytes(150 * KiB, 1));
    for (let i = 0; i < fit; i++) await model.createSnapshot(`s${i}`, bytes(3000, i));
    await model.driver.vmState!.save(0, bytes(3000, 7));
    const create = model.driver.snapshots.create({ name: 'more', vmStateSize: 3000, dateSeconds: 0, dateNanoseconds: 0 });
    await expect(create).rejects.toMatchObject({ code: 'NO_SPACE' });
    await model.driver.vmState!.discard();
    await model.verify();
    await model.check();
    if (fit > 0) await expect(model.applySnapshot('s0')).rejects.toMatchObject({ code: 'NO_SPACE' });
    await model.verify();
    await model.write(1000, bytes(5000, 2));
    await model.reopen();
    await model.verify();
    await model.check();
    expect(readReferences(await fileBytes(storage))).toMatchObject({ problems: [], leaks: 0 });
  });
});

test('a backing chain of four images reads, copies and zeroes through all of them', async () => {
  const size = 256 * KiB;
  const model = new Uint8Array(size);
  let below: BlockNode | null = null;
  const clusterSizes = [65536, 512, 4096, 1024];
  for (const [depth, clusterSize] of clusterSizes.entries()) {
    const storage = new MemoryDriver();
    const backing: BlockNode | null = below;
    const layerSize = size - depth * 20_480; // shorter and shorter
    await createQcow2(new BlockNode({ name: `layer ${depth}`, driver: new KeptOpen(storage) }),
      { size: layerSize, clusterSize, ...(backing === null ? {} : { backingFile: 'below', backingFormat: 'qcow2' }) });
    const driver = await openQcow2(new BlockNode({ name: `layer ${depth}`, driver: new KeptOpen(storage) }), { openBacking: async () => backing });
    const node: BlockNode = new BlockNode({ name: `disk ${depth}`, driver });
    const random = new Random(depth);
    for (let i = 0; i < 25; i++) {
      const at = random.below(layerSize - 3000);
      const data = bytes(1 + random.below(3000), depth * 100 + i);
      await node.write(at, data);
      model.set(data, at);
      const hole = random.below(layerSize - 6000);
      await node.writeZeroes(hole, 5000);
      model.fill(0, hole, hole + 5000);
    }
    const disk = new Uint8Array(layerSize);
    await node.read(0, disk);
    expect(Buffer.compare(disk, model.subarray(0, layerSize))).toBe(0);
    below = node;
  }
});

describe('snapshots', () => {
  test('V-11: applying one of another disk size restores the size first, and its VM state stays in reach', async () => {
    const storage = new MemoryDriver();
    const model = await ImageModel.make(storage, { size: 96 * KiB, clusterSize: 512 });
    await model.write(0, bytes(96 * KiB, 1));
    await model.createSnapshot('small', bytes(40_000, 2));
    const small = model.disk;
    await model.driver.resize(400 * KiB);
    model.disk = new Uint8Array(400 * KiB);
    model.disk.set(small);
    await model.verify();
    await model.write(300 * KiB, bytes(60 * KiB, 3));
    await model.createSnapshot('large', bytes(50_000, 4));
    for (const name of ['small', 'large', 'small', 'large']) {
      await model.applySnapshot(name);
      expect(model.node.length()).toBe(model.disk.byteLength);
      await model.verify();
      await model.reopen();
      await model.verify();
      await model.check();
    }
  });

  test('V-10: k snapshots with VM state take k states and no more', async () => {
    const storage = new MemoryDriver();
    const clusterSize = 4096;
    const model = await ImageModel.make(storage, { size: MiB, clusterSize });
    await model.write(0, bytes(256 * KiB, 1));
    const state = bytes(512 * KiB, 2);
    const lengths: number[] = [];
    for (let k = 0; k < 6; k++) {
      await model.createSnapshot(`s${k}`, state);
      await model.check();
      lengths.push(storage.length());
    }
    for (let k = 1; k < lengths.length; k++) {
      const grown = lengths[k]! - lengths[k - 1]!;
      expect(grown).toBeLessThanOrEqual(state.byteLength + 16 * clusterSize);
    }
    for (let k = 0; k < 6; k++) await model.deleteSnapshot(`s${k}`);
    await model.createSnapshot('again', state);
    expect(storage.length()).toBe(lengths.at(-1)); // all of it was free again
  });

  test('V-15: unknown extra data, strange ids and names that are no UTF-8 survive a rewrite of the table', async () => {
    const image = await imageWithSnapshot({ size: 64 * KiB, clusterSize: 4096 });
    const table = Number(image.readBigUInt64BE(64));
    const entry = foreignEntry(image.subarray(table, table + 64), 24 + 16, (view) => { view.fill(0xab, 64, 80); });
    image.set(entry, table);
    const storage = await memoryOf(image);
    const node = await openNode(storage);
    await node.driver.snapshots!.create({ name: 'new', vmStateSize: 0, dateSeconds: 0, dateNanoseconds: 0 });
    expect(node.driver.snapshots!.list().map(({ id }) => id)).toEqual(['x7', '1']);
    await node.close();
    const after = Buffer.from(await fileBytes(storage));
    const rewritten = Number(after.readBigUInt64BE(64));
    expect(rewritten).not.toBe(table);
    expect(Buffer.compare(after.subarray(rewritten, rewritten + entry.byteLength), entry)).toBe(0);
  });

  test('V-5: an entry of version 2 has its VM state size in 32 bits, and no disk size', async () => {
    const image = await imageWithSnapshot({ size: 64 * KiB, clusterSize: 4096, version: 2 });
    const table = Number(image.readBigUInt64BE(64));
    const entry = foreignEntry(image.subarray(table, table + 64), 0, () => {});
    image.fill(0, table, table + 128);
    image.set(entry, table);
    const node = await openNode(await memoryOf(image));
    expect(node.driver.snapshots!.list()).toMatchObject([{ id: 'x7', vmStateSize: 10_000, diskSize: 64 * KiB, icount: null }]);
    const state = await node.driver.snapshots!.openVmState('x7');
    const actual = new Uint8Array(12_000);
    expect(await state.load(0, actual)).toBe(10_000);
    expect(Buffer.compare(actual.subarray(0, 10_000), bytes(10_000, 5))).toBe(0);
    expect(await state.load(10_000, actual)).toBe(0);
    await node.driver.snapshots!.apply('x7');
    await node.close();
  });

  test('V-5: a VM state size above 4 GiB is kept', async () => {
    const storage = new MemoryDriver();
    await createQcow2(new BlockNode({ name: 'image', driver: new KeptOpen(storage) }), { size: MiB });
    let node = await openNode(storage);
    await node.driver.vmState!.save(5 * GiB - 100, bytes(100, 1));
    await node.driver.snapshots!.create({ name: 'large', vmStateSize: 5 * GiB, dateSeconds: 0, dateNanoseconds: 0 });
    await node.close();
    node = await openNode(storage);
    expect(node.driver.snapshots!.list()[0]!.vmStateSize).toBe(5 * GiB);
    const end = new Uint8Array(200);
    expect(await (await node.driver.snapshots!.openVmState('1')).load(5 * GiB - 100, end)).toBe(100);
    expect(Buffer.compare(end.subarray(0, 100), bytes(100, 1))).toBe(0);
    await node.close();
  });
});

async function imageWithSnapshot(create: Qcow2CreateOptions): Promise<Buffer> {
  const storage = new MemoryDriver();
  const model = await ImageModel.make(storage, create);
  await model.write(0, bytes(20_000, 1));
  await model.createSnapshot('s', bytes(10_000, 5));
  await model.node.close();
  return Buffer.from(await fileBytes(storage));
}

/** An entry as another program may have written it: other extra data, an id that is no number, a name that is no text. */
function foreignEntry(entry: Buffer, extraBytes: number, fillExtra: (entry: Buffer) => void): Buffer {
  const foreign = Buffer.alloc(Math.ceil((40 + extraBytes + 2 + 3) / 8) * 8);
  entry.copy(foreign, 0, 0, 40 + Math.min(extraBytes, 24));
  foreign.writeUInt16BE(2, 12);
  foreign.writeUInt16BE(3, 14);
  foreign.writeUInt32BE(extraBytes, 36);
  fillExtra(foreign);
  foreign.write('x7', 40 + extraBytes, 'latin1');
  foreign.set([0xff, 0x80, 0x41], 42 + extraBytes);
  return foreign;
}
