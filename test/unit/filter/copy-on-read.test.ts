import { expect, test } from '@jest/globals';
import { KiB } from '../../../src/base/bytes.js';
import { Random } from '../../../src/base/clock.js';
import { BlockNode } from '../../../src/block/node.js';
import { CopyOnReadFilter } from '../../../src/filter/copy-on-read.js';
import { createQcow2 } from '../../../src/format/qcow2/create.js';
import { openQcow2 } from '../../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';

const SIZE = 256 * KiB;
const CLUSTER = 4 * KiB;

async function overlay(name: string, backing: BlockNode | null, size = SIZE): Promise<BlockNode> {
  const file = new BlockNode({ name: `${name} file`, driver: new MemoryDriver() });
  await createQcow2(file, { size, clusterSize: CLUSTER, ...(backing === null ? {} : { backingFile: backing.name, backingFormat: 'qcow2' }) });
  const options = backing === null ? {} : { openBacking: async () => backing };
  return new BlockNode({ name, driver: await openQcow2(file, options) });
}

interface Chain {
  readonly base: BlockNode;
  readonly middle: BlockNode;
  readonly top: BlockNode;
}

/** base has 0 … 64 KiB (1), middle 32 … 96 KiB (2), top 48 … 56 KiB (3). */
async function chain(): Promise<Chain> {
  const base = await overlay('base', null, SIZE / 2);
  await base.write(0, new Uint8Array(64 * KiB).fill(1));
  const middle = await overlay('middle', base);
  await middle.write(32 * KiB, new Uint8Array(64 * KiB).fill(2));
  const top = await overlay('top', middle);
  await top.write(48 * KiB, new Uint8Array(8 * KiB).fill(3));
  return { base, middle, top };
}

async function read(node: BlockNode, offset: number, bytes: number): Promise<Uint8Array> {
  const into = new Uint8Array(bytes).fill(0xee);
  await node.read(offset, into);
  return into;
}

/** Which parts of the top layer are its own, as `from-to` in KiB. */
async function own(node: BlockNode): Promise<string[]> {
  const found: string[] = [];
  for (let at = 0; at < node.length();) {
    const { kind, bytes } = await node.blockStatus(at, node.length() - at);
    if (kind !== 'unallocated') found.push(`${at / KiB}-${(at + bytes) / KiB} ${kind}`);
    at += bytes;
  }
  return found;
}

test('what is read is copied by whole clusters, and reads as before', async () => {
  const { top } = await chain();
  const before = await read(top, 0, SIZE);
  await using node = new BlockNode({ name: 'cor', driver: new CopyOnReadFilter({ child: top }) });
  expect(await read(node, 5000, 10)).toEqual(before.subarray(5000, 5010));
  expect(await own(top)).toEqual(['4-8 data', '48-56 data']);
  expect(Buffer.compare(await read(node, 1, 96 * KiB - 1), before.subarray(1, 96 * KiB))).toBe(0);
  expect(Buffer.compare(await read(node, 96 * KiB, SIZE - 96 * KiB), before.subarray(96 * KiB))).toBe(0);
  expect(new Set((await own(top)).map((part) => part.split(' ')[1]))).toEqual(new Set(['data', 'zero']));
  expect((await own(top)).at(-1)).toBe('96-256 zero');
  expect(Buffer.compare(await read(top, 0, SIZE), before)).toBe(0);
});

test('with a bottom node only what lies above it is copied', async () => {
  const { middle, top } = await chain();
  const before = await read(top, 0, SIZE);
  await using node = new BlockNode({ name: 'cor', driver: new CopyOnReadFilter({ child: top, bottom: middle }) });
  expect(Buffer.compare(await read(node, 0, SIZE), before)).toBe(0);
  expect((await own(top)).filter((part) => part.endsWith('data'))).toEqual(['32-48 data', '48-56 data', '56-96 data']);
  expect(await own(top)).not.toContain('96-256 zero');
});

test('a bottom node must be a layer below', async () => {
  const { base, top } = await chain();
  const stranger = await overlay('stranger', null);
  expect(() => new CopyOnReadFilter({ child: top, bottom: stranger })).toThrow("Bottom node 'stranger' is not in the backing chain of 'top'");
  const filter = new BlockNode({ name: 'filter', driver: new CopyOnReadFilter({ child: base }) });
  expect(() => new CopyOnReadFilter({ child: top, bottom: filter })).toThrow("Bottom node 'filter' is a filter");
});

test('a copy never undoes a write that came meanwhile', async () => {
  for (let seed = 1; seed <= 4; seed++) {
    const random = new Random(seed);
    const { top } = await chain();
    const model = await read(top, 0, SIZE);
    const node = new BlockNode({ name: 'cor', driver: new CopyOnReadFilter({ child: top }) });
    const requests: Promise<unknown>[] = [];
    for (let at = 0; at < 128 * KiB; at += 1 + random.below(3000)) {
      requests.push(read(node, Math.max(0, at - 2000), 6000));
      if (random.chance(0.5)) continue;
      const data = new Uint8Array(1 + random.below(900)).fill(100 + random.below(100));
      model.set(data, at);
      requests.push(node.write(at, data));
      at += data.byteLength;
    }
    await Promise.all(requests);
    expect({ seed, same: Buffer.compare(await read(node, 0, SIZE), model) }).toEqual({ seed, same: 0 });
    await node.close();
  }
});

test('a read-only layer is read without being written', async () => {
  const memory = new BlockNode({ name: 'memory', driver: new MemoryDriver({ bytes: SIZE }), readOnly: true });
  await using node = new BlockNode({ name: 'cor', driver: new CopyOnReadFilter({ child: memory }), readOnly: true });
  expect(await read(node, 0, 100)).toEqual(new Uint8Array(100));
});
