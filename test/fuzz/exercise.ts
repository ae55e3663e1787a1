/** Everything that can be done with an image, done to a damaged one: only typed errors, and nothing written unasked. */
import { BlockError } from '../../src/base/errors.js';
import { addBitmap, clearBitmap, mergeBitmaps, removeBitmap } from '../../src/block/bitmap-verbs.js';
import { BlockNode } from '../../src/block/node.js';
import type { BlockRequest } from '../../src/block/request.js';
import type { Qcow2OpenOptions } from '../../src/format/qcow2/options.js';
import { openQcow2, type Qcow2Driver } from '../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { KeptOpen } from '../support/image-model.js';
import type { SparseImage } from './sparse-image.js';

const CHUNK = 64 * 1024;
const READ_LIMIT = 1024 * 1024;
const backing = new BlockNode({ name: 'backing', driver: new KeptOpen(new MemoryDriver({ bytes: 100_000 })), pinned: true });

class CountingDriver extends KeptOpen {
  changes = 0;
  override submit(request: BlockRequest): Promise<void> {
    if (request.op !== 'read' && request.op !== 'flush') this.changes++;
    return super.submit(request);
  }
}

export async function exercise(image: SparseImage): Promise<void> {
  await readOnly(image, {});
  await readOnly(image, { forCheck: true, l2CacheSize: 1, refcountCacheSize: 1 });
  await readWrite(image, {}, writes);
  await readWrite(image, { discard: 'unmap', l2CacheSize: 1, refcountCacheSize: 1 }, snapshots);
  await readWrite(image, {}, bitmaps);
  await readWrite(image, { forCheck: true }, (driver) => attempt(() => driver.check({ repair: 'leaks' })));
  await readWrite(image, { forCheck: true }, (driver) => attempt(() => driver.check({ repair: 'all' })));
  // drivers that nobody closes would live on in it
  backing.parents.clear();
}

/** Typed errors are an answer; anything else is a bug. */
async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof BlockError && error.message !== '') return undefined;
    throw error;
  }
}

async function readOnly(image: SparseImage, options: Qcow2OpenOptions): Promise<void> {
  const storage = new CountingDriver(await image.toMemory());
  const file = new BlockNode({ name: 'image', driver: storage });
  const open = (snapshot?: string): Promise<Qcow2Driver | undefined> =>
    attempt(() => openQcow2(file, { ...options, readOnly: true, openBacking: async () => backing, snapshot }));
  const driver = await open();
  if (driver !== undefined) {
    await readEverywhere(driver);
    await attempt(async () => driver.describe());
    await attempt(() => driver.check({}));
    for (const { id } of driver.snapshots.list().slice(0, 4)) {
      await readState(driver, id);
      const view = await open(id);
      if (view !== undefined) await readEverywhere(view);
    }
    await attempt(() => driver.close());
  }
  if (storage.changes > 0 || storage.length() !== image.length) throw new Error('an image that was opened read-only was changed');
}

/** The start, the end and the middle: a disk may claim to be huge. */
async function readEverywhere(driver: Qcow2Driver): Promise<void> {
  const node = new BlockNode({ name: 'qcow2', driver, readOnly: true });
  const length = node.length();
  const buffer = new Uint8Array(CHUNK);
  for (const from of new Set([0, Math.floor(length / 2), Math.max(0, length - READ_LIMIT)])) {
    for (let at = from; at < Math.min(length, from + READ_LIMIT); at += CHUNK) {
      const bytes = Math.min(CHUNK, length - at);
      await attempt(() => node.read(at, buffer.subarray(0, bytes)));
      await attempt(() => node.blockStatus(at, bytes));
    }
  }
}

async function readState(driver: Qcow2Driver, id: string): Promise<void> {
  const source = await attempt(() => driver.snapshots.openVmState(id));
  if (source === undefined) return;
  const buffer = new Uint8Array(CHUNK);
  for (const at of [0, CHUNK, Math.max(0, source.size - 1000), source.size]) await attempt(() => source.load(at, buffer));
}

async function readWrite(image: SparseImage, options: Qcow2OpenOptions, work: (driver: Qcow2Driver, node: BlockNode) => Promise<unknown>): Promise<void> {
  const storage = new CountingDriver(await image.toMemory());
  const file = new BlockNode({ name: 'image', driver: storage });
  const driver = await attempt(() => openQcow2(file, { ...options, openBacking: async () => backing }));
  if (driver === undefined) {
    if (storage.changes > 0) throw new Error('an image that could not be opened was changed');
    return;
  }
  const node = new BlockNode({ name: 'qcow2', driver });
  await work(driver, node);
  await attempt(() => node.close());
}

async function writes(driver: Qcow2Driver, node: BlockNode): Promise<void> {
  const length = node.length();
  const data = new Uint8Array(10_000).fill(5);
  for (const at of [0, 49_000, 66_000, Math.floor(length / 2), length - data.byteLength]) {
    if (at < 0 || at + data.byteLength > length) continue;
    await attempt(() => node.write(at, data));
    await attempt(() => node.writeZeroes(at, data.byteLength));
  }
  await attempt(() => node.writeZeroes(0, Math.min(length, READ_LIMIT)));
  await attempt(() => node.flush());
  await attempt(() => node.discard(0, Math.min(length, READ_LIMIT)));
  await attempt(() => driver.resize(length + 1_000_000));
  await attempt(() => node.flush());
}

async function snapshots(driver: Qcow2Driver, node: BlockNode): Promise<void> {
  const state = new Uint8Array(20_000).fill(7);
  const before = driver.snapshots.list().slice(0, 4);
  await attempt(() => driver.vmState!.save(0, state));
  await attempt(() => driver.snapshots.create({ name: 'new', vmStateSize: state.byteLength, dateSeconds: 0, dateNanoseconds: 0 }));
  await attempt(() => node.write(0, state.subarray(0, Math.min(state.byteLength, node.length()))));
  for (const { id } of before) {
    await attempt(() => driver.snapshots.apply(id));
    await attempt(() => node.write(0, state.subarray(0, Math.min(state.byteLength, node.length()))));
    await attempt(() => driver.snapshots.delete(id));
  }
}

async function bitmaps(_driver: Qcow2Driver, node: BlockNode): Promise<void> {
  const names = [...node.bitmaps].map(({ name }) => name).slice(0, 4);
  await attempt(() => addBitmap(node, { name: 'new', persistent: true }));
  await attempt(() => node.write(0, new Uint8Array(Math.min(10_000, node.length()))));
  for (const name of names) {
    await attempt(() => mergeBitmaps(node, 'new', [name]));
    await attempt(() => clearBitmap(node, name));
  }
  if (names.length > 0) await attempt(() => removeBitmap(node, names[0]!));
}
