/** Many requests in flight at once, down to pieces of one sector: each lands whole, and none disturbs its neighbours. */
import { expect, test } from '@jest/globals';
import { Random } from '../../src/base/clock.js';
import { BlockNode } from '../../src/block/node.js';
import { createQcow2 } from '../../src/format/qcow2/create.js';
import { openQcow2 } from '../../src/format/qcow2/qcow2.js';
import { SimDisk } from '../support/sim-disk.js';
import { readReferences } from '../support/qcow2-references.js';

interface Piece {
  readonly offset: number;
  readonly bytes: number;
}

/** The whole disk in pieces of random length, in random order. */
function pieces(size: number, longest: number, random: Random): Piece[] {
  const all: Piece[] = [];
  for (let offset = 0; offset < size;) {
    const bytes = Math.min(size - offset, 1 + random.below(longest));
    all.push({ offset, bytes });
    offset += bytes;
  }
  for (let i = all.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [all[i], all[j]] = [all[j]!, all[i]!];
  }
  return all;
}

/** Random requests on pieces that are apart, `depth` of them in flight. */
async function storm(node: BlockNode, model: Uint8Array, random: Random, depth: number): Promise<void> {
  const queue = pieces(model.byteLength, random.pick([100, 1500, 9000]), random);
  const worker = async (): Promise<void> => {
    for (let piece = queue.pop(); piece !== undefined; piece = queue.pop()) await request(node, model, random, piece);
  };
  await Promise.all(Array.from({ length: depth }, worker));
}

async function request(node: BlockNode, model: Uint8Array, random: Random, { offset, bytes }: Piece): Promise<void> {
  const kind = random.below(10);
  if (kind < 6) {
    const data = new Uint8Array(bytes);
    random.fill(data);
    model.set(data, offset);
    await node.write(offset, data);
  } else if (kind < 7) {
    model.fill(0, offset, offset + bytes);
    await node.writeZeroes(offset, bytes);
  } else if (kind < 8) {
    await node.flush();
  } else {
    const expected = model.slice(offset, offset + bytes);
    const actual = new Uint8Array(bytes);
    await node.read(offset, actual);
    expect(Buffer.compare(actual, expected)).toBe(0);
  }
}

test.each([
  { clusterSize: 512, alignment: 1, caches: 1 }, { clusterSize: 512, alignment: 512, caches: 1 },
  { clusterSize: 4096, alignment: 1, caches: 1 }, { clusterSize: 4096, alignment: 512, caches: undefined },
  { clusterSize: 65536, alignment: 512, caches: undefined },
] as const)('requests on pieces of a disk do not disturb each other: %j', async ({ clusterSize, alignment, caches }) => {
  for (let seed = 1; seed <= 2; seed++) {
    const random = new Random(seed);
    const disk = new SimDisk({ random: new Random(seed + 1000), alignment });
    const file = new BlockNode({ name: 'image', driver: disk });
    const size = 512 * (200 + random.below(300));
    await createQcow2(file, { size, clusterSize });
    const driver = await openQcow2(file, { discard: random.chance(0.5) ? 'unmap' : 'ignore', l2CacheSize: caches, refcountCacheSize: caches });
    const node = new BlockNode({ name: 'qcow2', driver });
    const model = new Uint8Array(size);
    for (let round = 0; round < 3; round++) {
      await storm(node, model, random, random.pick([2, 8, 32]));
      const actual = new Uint8Array(size);
      await node.read(0, actual);
      expect(Buffer.compare(actual, model)).toBe(0);
      await node.drained(() => driver.snapshots.create({ name: `s${round}`, vmStateSize: 0, dateSeconds: 0, dateNanoseconds: 0 }));
    }
    await node.close();
    expect(readReferences(disk.content())).toMatchObject({ problems: [], leaks: 0 });
  }
});

test('V-16: a snapshot waits for the requests in flight, and those behind it wait for the snapshot', async () => {
  const disk = new SimDisk({ random: new Random(1) });
  const file = new BlockNode({ name: 'image', driver: disk });
  await createQcow2(file, { size: 64 * 1024, clusterSize: 4096 });
  const driver = await openQcow2(file);
  const node = new BlockNode({ name: 'qcow2', driver });
  const before = [0, 8192, 16384].map((at) => node.write(at, new Uint8Array(5000).fill(1)));
  const created = node.drained(() => driver.snapshots.create({ name: 's', vmStateSize: 0, dateSeconds: 0, dateNanoseconds: 0 }));
  const after = [0, 8192, 16384].map((at) => node.write(at, new Uint8Array(5000).fill(2)));
  await Promise.all([...before, created, ...after]);
  await node.flush();
  for (const [snapshot, value] of [['s', 1], [undefined, 2]] as const) {
    const view = new BlockNode({ name: 'view', driver: await openQcow2(file, { snapshot, readOnly: true }), readOnly: true });
    const actual = new Uint8Array(5000);
    for (const at of [0, 8192, 16384]) {
      await view.read(at, actual);
      expect(actual.every((byte) => byte === value)).toBe(true);
    }
  }
});
