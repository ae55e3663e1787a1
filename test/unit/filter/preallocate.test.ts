import { expect, test } from '@jest/globals';
import { KiB, MiB } from '../../../src/base/bytes.js';
import { Random } from '../../../src/base/clock.js';
import { BlockError } from '../../../src/base/errors.js';
import { BlockNode } from '../../../src/block/node.js';
import { NO_USE, Permission } from '../../../src/block/permissions.js';
import { RequestFlag, type BlockRequest } from '../../../src/block/request.js';
import { PreallocateFilter } from '../../../src/filter/preallocate.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';

class Watched extends MemoryDriver {
  readonly seen: string[] = [];
  zeroes: 'work' | 'fail' | 'dawdle' = 'work';
  closed = -1;

  override async submit(request: BlockRequest): Promise<void> {
    this.seen.push(`${request.op} ${request.offset}+${request.bytes}`);
    if (request.op === 'write-zeroes' && this.zeroes === 'fail') throw new BlockError('NOT_SUPPORTED', 'no zeroes');
    if (this.zeroes === 'dawdle') for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
    return super.submit(request);
  }

  override async close(): Promise<void> {
    this.closed = this.length();
    await super.close();
  }
}

function preallocated(bytes = 0): { readonly below: Watched; readonly node: BlockNode; readonly filter: PreallocateFilter } {
  const below = new Watched({ bytes });
  const filter = new PreallocateFilter({ child: new BlockNode({ name: 'file', driver: below }), align: 64 * KiB, size: 256 * KiB });
  return { below, filter, node: new BlockNode({ name: 'preallocate', driver: filter }) };
}

test('a write past the end makes room first, and shows no more than was written', async () => {
  const { below, node } = preallocated(1000);
  await node.write(900, new Uint8Array(200).fill(1));
  expect(below.seen).toEqual([`write-zeroes 1000+${320 * KiB - 1000}`, 'write 900+200']);
  expect([node.length(), below.length()]).toEqual([1100, 320 * KiB]);
  below.seen.length = 0;
  await node.write(1100, new Uint8Array(100 * KiB).fill(2));
  expect(below.seen).toEqual([`write 1100+${100 * KiB}`]);
  const beyond = new Uint8Array(10).fill(9);
  await node.read(200 * KiB, beyond);
  expect(beyond).toEqual(new Uint8Array(10));
  await node.close();
  expect(below.closed).toBe(1100 + 100 * KiB);
});

test('zeroes past the end are those that were made, unless data was written among them', async () => {
  const { below, node } = preallocated();
  await node.writeZeroes(0, 10 * KiB);
  expect(below.seen).toEqual([`write-zeroes 0+${320 * KiB}`]);
  await node.writeZeroes(10 * KiB, 10 * KiB, RequestFlag.NO_FALLBACK);
  expect(below.seen).toHaveLength(1);
  await node.write(15 * KiB, new Uint8Array(KiB).fill(3));
  await node.writeZeroes(14 * KiB, 10 * KiB);
  const found = new Uint8Array(24 * KiB).fill(9);
  await node.read(0, found);
  expect(found.every((byte) => byte === 0)).toBe(true);
  await node.writeZeroes(24 * KiB, KiB, RequestFlag.MAY_UNMAP);
  expect(below.seen.at(-1)).toBe(`write-zeroes ${24 * KiB}+${KiB}`);
});

test('writes at once never meet the zeros of each other’s step', async () => {
  for (let seed = 1; seed <= 5; seed++) {
    const random = new Random(seed);
    const { below, node } = preallocated();
    below.zeroes = 'dawdle';
    const model = new Uint8Array(MiB);
    const writes: Promise<void>[] = [];
    for (let at = 0; at < MiB - 20_000;) {
      const data = new Uint8Array(1 + random.below(20_000)).fill(1 + random.below(255));
      model.set(data, at);
      writes.push(node.write(at, data));
      at += data.byteLength + random.below(3000);
    }
    await Promise.all(writes.toSorted(() => random.chance(0.5) ? 1 : -1));
    const found = new Uint8Array(node.length());
    await node.read(0, found);
    expect({ seed, same: Buffer.compare(found, model.subarray(0, found.byteLength)) }).toEqual({ seed, same: 0 });
  }
});

test('where no zeros can be made the file grows with the writes', async () => {
  const { below, node } = preallocated();
  below.zeroes = 'fail';
  await node.write(0, new Uint8Array(1000));
  await node.write(1000, new Uint8Array(1000));
  expect(below.seen.filter((request) => request.startsWith('write-zeroes'))).toHaveLength(1);
  expect([node.length(), below.length()]).toEqual([2000, 2000]);
  await node.close();
  expect(below.closed).toBe(2000);
});

test('resize: longer and shorter', async () => {
  const { below, filter, node } = preallocated();
  await node.write(0, new Uint8Array(1000).fill(1));
  await filter.resize(5000);
  expect([node.length(), below.length()]).toEqual([5000, 5000]);
  await node.write(5000, new Uint8Array(10).fill(1));
  await filter.resize(100);
  expect([node.length(), below.length()]).toEqual([100, 100]);
});

test('the room is given back when nobody may write any more', async () => {
  const { below, filter, node } = preallocated();
  await node.write(0, new Uint8Array(1000));
  const prepared = await filter.prepareUse({ used: Permission.CONSISTENT_READ, shared: NO_USE.shared });
  prepared.commit();
  expect(below.length()).toBe(1000);
  await node.write(1000, new Uint8Array(10)); // nobody asked for it, so nothing is made
  expect(below.length()).toBe(1010);
});
