/** What the tables of bitmaps may claim, and what is refused before anything is allocated for it. */
import { beforeEach, describe, expect, test } from '@jest/globals';
import { addBitmap } from '../../../../src/block/bitmap-verbs.js';
import { BlockNode } from '../../../../src/block/node.js';
import { createQcow2 } from '../../../../src/format/qcow2/create.js';
import { openQcow2 } from '../../../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../../../src/protocol/memory.js';
import { KeptOpen } from '../../../support/image-model.js';

const CLUSTER = 4096;
/** Of 512 bytes each: the bits fill three clusters of bits. */
const SIZE = 3 * CLUSTER * 8 * 512 - 512;
let file: BlockNode;
let extension = 0;
let directory = 0;
let table = 0;

async function get(at: number): Promise<DataView> {
  const bytes = new Uint8Array(8);
  await file.read(at, bytes);
  return new DataView(bytes.buffer);
}

async function put(at: number, width: 1 | 2 | 4 | 8, value: bigint | number): Promise<void> {
  const bytes = new Uint8Array(width);
  for (let i = 0; i < width; i++) bytes[i] = Number((BigInt(value) >> BigInt(8 * (width - 1 - i))) % 256n);
  await file.write(at, bytes);
}

const open = (forCheck = false): ReturnType<typeof openQcow2> => openQcow2(file, { forCheck });

beforeEach(async () => {
  file = new BlockNode({ name: 'image', driver: new KeptOpen(new MemoryDriver()), pinned: true });
  await createQcow2(file, { size: SIZE, clusterSize: CLUSTER });
  const node = new BlockNode({ name: 'qcow2', driver: await open() });
  await addBitmap(node, { name: 'one', granularity: 512, persistent: true });
  await node.write(0, new Uint8Array(512));
  await node.writeZeroes(CLUSTER * 8 * 512, CLUSTER * 8 * 512); // all of the second cluster of bits
  await node.write(SIZE - 512, new Uint8Array(512));
  await node.close();
  const { header } = await open();
  extension = header.extensions.find(({ type }) => type === 0x2385_2875)!.offset + 8;
  directory = Number((await get(extension + 16)).getBigUint64(0));
  table = Number((await get(directory)).getBigUint64(0));
});

describe('a bitmap table', () => {
  test('holds clusters only for what is not all alike; the tail of the last one is zeros', async () => {
    const entries = await Promise.all([0, 1, 2].map(async (index) => (await get(table + index * 8)).getBigUint64(0)));
    expect(entries.map((entry) => entry > 1n)).toEqual([true, false, true]);
    expect(entries[1]).toBe(1n);
    const last = await get(Number(entries[2]) + CLUSTER - 8);
    expect(last.getBigUint64(0)).toBe(0x40n); // the last bit of the byte lies beyond the disk
  });

  test.each([
    ['a reserved bit', 0, 1n << 60n], ['a low reserved bit', 0, 2n], ['all ones with an offset', 0, BigInt(8 * CLUSTER + 1)],
    ['an offset between clusters', 0, BigInt(CLUSTER + 512)], ['an offset beyond the file', 2, 1n << 40n],
  ])('with %s is refused', async (_, index, value) => {
    await put(table + index * 8, 8, value);
    await expect(open()).rejects.toMatchObject({ code: 'INVALID_IMAGE' });
    const checked = await (await open(true)).check({});
    expect(checked.corruptions).toBeGreaterThan(0);
  });

  test.each([2, 4])('of %i entries does not fit the disk', async (entries) => {
    await put(directory + 8, 4, entries);
    await expect(open()).rejects.toThrow(`its table has ${entries} entries, which does not fit a disk of ${SIZE} bytes`);
  });
});

describe('the directory', () => {
  test.each([
    ['a table at no cluster', 0, 8, 100], ['a table of no entries', 8, 4, 0], ['a table for more than 512 MiB of bits', 8, 4, 2 ** 17 + 1], ['no name', 18, 2, 0],
    ['a name beyond the directory', 18, 2, 100], ['extra data beyond the directory', 20, 4, 0xffff_fff0],
  ] as const)('with %s is refused', async (_, at, width, value) => {
    await put(directory + at, width, value);
    await expect(open()).rejects.toMatchObject({ code: 'INVALID_IMAGE' });
  });

  test.each([
    ['a reserved flag', 12, 4, 10], ['another type', 16, 1, 2], ['granules of 256 bytes', 17, 1, 8], ['granules of 4 GiB', 17, 1, 32],
  ] as const)('with %s has a bitmap that nobody uses, and that stays as it is', async (_, at, width, value) => {
    await put(directory + at, width, value);
    const driver = await open();
    const node = new BlockNode({ name: 'qcow2', driver });
    expect(node.bitmaps.size).toBe(0);
    expect(driver.describe().specific['bitmaps']).toMatchObject([{ name: 'one' }]);
    await node.write(0, new Uint8Array(512));
    expect((await get(directory + 8)).getUint32(4) % 2).toBe(1); // in use, if it is one that should have heard of the write
    await node.close();
    expect(await (await open(true)).check({})).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test.each([
    ['no bitmaps', 0, 4, 0], ['one bitmap more', 0, 4, 2], ['too many bitmaps', 0, 4, 65536], ['a reserved field', 4, 4, 1], ['no bytes', 8, 8, 0],
    ['more than 64 MiB', 8, 8, 65535 * 1024 + 8], ['a length beyond 2^53', 8, 8, 2n ** 60n], ['a place between clusters', 16, 8, CLUSTER + 512], ['a place beyond the file', 16, 8, 2 ** 40],
  ] as const)('of which the header says: %s, is refused', async (_, at, width, value) => {
    await put(extension + at, width, value);
    await expect(open()).rejects.toMatchObject({ code: 'INVALID_IMAGE' });
    expect((await (await open(true)).check({})).corruptions).toBeGreaterThan(0);
  });

  test('with one bitmap twice is refused', async () => {
    const copy = new Uint8Array(32);
    await file.read(directory, copy);
    await file.write(directory + 32, copy);
    await put(extension, 4, 2);
    await put(extension + 8, 8, 64);
    await expect(open()).rejects.toThrow("there are two of the name 'one'");
  });
});

test('a discard that frees nothing is in the bitmap after the close, too', async () => {
  const node = new BlockNode({ name: 'qcow2', driver: await open() });
  await node.discard(512, 512);
  expect(node.bitmaps.get('one')!.get(512)).toBe(true);
  await node.close();
  const again = await open();
  expect(again.bitmapStore.bitmaps.get('one')!.get(512)).toBe(true);
});

test('an image whose bitmaps are damaged can still be written by who opens it for a repair: they are dropped', async () => {
  await put(directory + 8, 4, 0);
  const driver = await open(true);
  await new BlockNode({ name: 'qcow2', driver }).write(0, new Uint8Array(512));
  await driver.close();
  expect((await open()).header.autoclear).toBe(0n);
});
