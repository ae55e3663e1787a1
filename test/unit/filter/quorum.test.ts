import { expect, test } from '@jest/globals';
import { Random } from '../../../src/base/clock.js';
import { BlockError } from '../../../src/base/errors.js';
import { BlockNode } from '../../../src/block/node.js';
import type { BlockOp, BlockRequest } from '../../../src/block/request.js';
import { BlkverifyFilter } from '../../../src/filter/blkverify.js';
import { QuorumDriver, type QuorumEvent, type QuorumOptions } from '../../../src/filter/quorum.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';

const SIZE = 8192;

class Failing extends MemoryDriver {
  readonly fails = new Map<BlockOp, string>();

  override async submit(request: BlockRequest): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    const errno = this.fails.get(request.op);
    if (errno !== undefined) throw new BlockError(errno === 'ENOSPC' ? 'NO_SPACE' : 'IO', `the ${request.op} failed: ${errno}`, { errno });
    return super.submit(request);
  }
}

interface Setup {
  readonly disks: readonly Failing[];
  readonly nodes: readonly BlockNode[];
  readonly node: BlockNode;
  readonly events: QuorumEvent[];
}

function quorum(count: number, voteThreshold: number, options: Partial<QuorumOptions> = {}): Setup {
  const disks = Array.from({ length: count }, () => new Failing({ bytes: SIZE, growable: false }));
  const nodes = disks.map((driver, index) => new BlockNode({ name: `disk ${index}`, nodeName: `n${index}`, driver }));
  const events: QuorumEvent[] = [];
  const driver = new QuorumDriver({ children: nodes, voteThreshold, onEvent: (event) => events.push(event), ...options });
  return { disks, nodes, events, node: new BlockNode({ name: 'quorum', nodeName: 'q', driver }) };
}

async function read(node: BlockNode, offset = 0, bytes = 512): Promise<number> {
  const into = new Uint8Array(bytes).fill(0xee);
  await node.read(offset, into);
  return into[0]!;
}

const bad = (type: string, node: string, more: object = {}): object =>
  ({ event: 'QUORUM_REPORT_BAD', data: { type, 'node-name': node, 'sector-num': 0, 'sectors-count': 1, ...more } });
const data = (value: number): Uint8Array => new Uint8Array(512).fill(value);

test('a write succeeds where enough children take it; those that do not are named', async () => {
  const { disks, node, events } = quorum(3, 2);
  disks[1]!.fails.set('write', 'ENOSPC');
  await node.write(0, data(1));
  expect(events).toEqual([bad('write', 'n1', { error: 'No space left on device' })]);
  expect(Object.keys(events[0]!.data)).toEqual(['type', 'error', 'node-name', 'sector-num', 'sectors-count']);
  disks[0]!.fails.set('write', 'EIO');
  await expect(node.write(0, data(2))).rejects.toMatchObject({ errno: 'ENOSPC' }); // of equally many, the later kind, as in QEMU
  disks[2]!.fails.set('write', 'EIO');
  await expect(node.write(0, data(2))).rejects.toMatchObject({ errno: 'EIO' });
  expect(events.at(-1)).toEqual({ event: 'QUORUM_FAILURE', data: { reference: 'q', 'sector-num': 0, 'sectors-count': 1 } });
});

test('what is read is what most agree on; the others are named', async () => {
  const { nodes, node, events } = quorum(3, 2);
  await node.write(0, data(1));
  await nodes[2]!.write(0, data(2));
  expect(await read(node)).toBe(1);
  expect(events).toEqual([bad('read', 'n2')]);
  await nodes[1]!.write(0, data(3));
  await expect(read(node)).rejects.toMatchObject({ code: 'IO', errno: 'EIO' });
  expect(events.at(-1)).toMatchObject({ event: 'QUORUM_FAILURE' });
});

test('a read survives children that fail, as long as enough are left', async () => {
  const { disks, node, events } = quorum(3, 2);
  await node.write(0, data(1));
  disks[0]!.fails.set('read', 'EIO');
  expect(await read(node)).toBe(1);
  expect(events).toEqual([bad('read', 'n0', { error: 'Input/output error' })]);
  disks[1]!.fails.set('read', 'EIO');
  await expect(read(node)).rejects.toMatchObject({ errno: 'EIO' });
});

test('outvoted children get the right data where they are to', async () => {
  for (const rewriteCorrupted of [false, true]) {
    const { nodes, node } = quorum(3, 2, { rewriteCorrupted });
    await node.write(0, data(1));
    await nodes[2]!.write(0, data(2));
    await read(node);
    expect(await read(nodes[2]!)).toBe(rewriteCorrupted ? 1 : 2);
  }
});

test('a rewrite never undoes a write that came meanwhile', async () => {
  for (let seed = 1; seed <= 10; seed++) {
    const random = new Random(seed);
    const { nodes, node } = quorum(3, 2, { rewriteCorrupted: true });
    await nodes[0]!.write(0, new Uint8Array(SIZE).fill(9));
    const model = new Uint8Array(SIZE);
    const work: Promise<unknown>[] = [];
    for (let sector = 0; sector < SIZE / 512; sector++) {
      work.push(node.read(sector * 512, new Uint8Array(512)));
      for (let turns = random.below(4); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
      if (random.chance(0.3)) continue;
      work.push(node.write(sector * 512, data(sector + 20)));
      model.fill(sector + 20, sector * 512, sector * 512 + 512);
    }
    await Promise.all(work);
    for (const child of nodes) {
      const found = new Uint8Array(SIZE);
      await child.read(0, found);
      expect({ seed, same: Buffer.compare(found, model) }).toEqual({ seed, same: 0 });
    }
  }
});

test('the fifo pattern reads from the first child that can', async () => {
  const { disks, nodes, node, events } = quorum(3, 2, { readPattern: 'fifo' });
  await Promise.all(nodes.map((child, index) => child.write(0, data(index + 1))));
  expect(await read(node)).toBe(1);
  disks[0]!.fails.set('read', 'EIO');
  expect(await read(node)).toBe(2);
  expect(events).toEqual([bad('read', 'n0', { error: 'Input/output error' })]);
  for (const disk of disks) disk.fails.set('read', 'EIO');
  await expect(read(node)).rejects.toMatchObject({ errno: 'EIO' });
});

test('a flush needs as many as a write', async () => {
  const { disks, node, events } = quorum(3, 2);
  await node.write(0, data(1)); // there must be something to flush
  disks[0]!.fails.set('flush', 'EIO');
  await node.flush();
  expect(events).toEqual([bad('flush', 'n0', { error: 'Input/output error', 'sectors-count': 0 })]);
  await node.write(0, data(2));
  disks[1]!.fails.set('flush', 'EIO');
  await expect(node.flush()).rejects.toMatchObject({ errno: 'EIO' });
});

test('zeros are what all children have, discards change nothing', async () => {
  const { nodes, node } = quorum(2, 1);
  expect(await node.blockStatus(0, SIZE)).toMatchObject({ kind: 'zero', bytes: SIZE });
  await node.write(0, data(1));
  await node.discard(0, 512);
  expect(await read(node)).toBe(1);
  await node.writeZeroes(0, SIZE);
  await nodes[1]!.write(0, data(1));
  expect(await node.blockStatus(0, SIZE)).toMatchObject({ kind: 'data' });
});

test('children come and go, down to the threshold', async () => {
  const { nodes, node } = quorum(2, 2);
  const driver = node.driver as QuorumDriver;
  const [first] = node.children;
  expect(() => driver.removeChild(first!)).toThrow('The number of children cannot be lower than the vote threshold 2');
  const third = new BlockNode({ name: 'third', nodeName: 'n3', driver: new Failing({ bytes: SIZE, growable: false }) });
  const edge = driver.addChild(third);
  expect([edge.edge, edge.parent]).toEqual(['children.2', node]);
  await node.write(0, data(5));
  expect(await read(third)).toBe(5);
  driver.removeChild(first!);
  await first!.detach();
  expect(nodes[0]!.closing).toBe(true);
  expect(await read(node)).toBe(5);
  expect(() => (quorum(2, 2, { blkverify: true }).node.driver as QuorumDriver).addChild(third)).toThrow('Cannot add a child to a quorum in blkverify mode');
});

test('two children that must not differ: the first difference ends it', async () => {
  const { nodes, node } = quorum(2, 2, { blkverify: true });
  await node.write(0, data(1));
  expect(await read(node)).toBe(1);
  await nodes[1]!.write(100, new Uint8Array([7]));
  for (let i = 0; i < 2; i++) {
    await expect(node.read(0, new Uint8Array(512))).rejects.toMatchObject({ errno: 'EIO', message: 'quorum: offset=0 bytes=512 contents mismatch at offset 100' });
  }
  await expect(node.write(0, data(1))).rejects.toThrow('contents mismatch');
});

test('blkverify: contents and outcomes must agree, and a difference stays', async () => {
  const make = (): { readonly test: Failing; readonly raw: BlockNode; readonly node: BlockNode } => {
    const driver = new Failing({ bytes: SIZE, growable: false });
    const raw = new BlockNode({ name: 'raw', driver: new MemoryDriver({ bytes: SIZE, growable: false }) });
    return { test: driver, raw, node: new BlockNode({ name: 'verify', driver: new BlkverifyFilter({ test: new BlockNode({ name: 'test', driver }), raw }) }) };
  };
  const same = make();
  await same.node.writeZeroes(0, 1024);
  await same.node.write(1000, data(3));
  expect(await read(same.node, 1000)).toBe(3);
  await same.raw.write(1234, new Uint8Array([9]));
  for (let i = 0; i < 2; i++) {
    await expect(same.node.read(1024, new Uint8Array(512))).rejects.toMatchObject({ errno: 'EIO', message: 'blkverify: read offset=1024 bytes=512 contents mismatch at offset 1234' });
  }
  await expect(same.node.flush()).rejects.toThrow('contents mismatch');
  const failing = make();
  failing.test.fails.set('write', 'ENOSPC');
  await expect(failing.node.write(512, data(1))).rejects.toThrow('blkverify: write offset=512 bytes=512 return value mismatch ENOSPC != success');
});
