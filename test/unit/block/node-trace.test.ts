/** What traces hear of requests while the graph changes: each that is queued on a device ends on that device. */
import { expect, test } from '@jest/globals';
import { BlockError } from '../../../src/base/errors.js';
import { Random } from '../../../src/base/clock.js';
import { BlockBackend } from '../../../src/block/backend.js';
import { BlockNode } from '../../../src/block/node.js';
import { makeRequest } from '../../../src/block/request.js';
import { ThrottleGroup } from '../../../src/block/throttle.js';
import { ThrottleFilter } from '../../../src/filter/throttle.js';
import { RawDriver } from '../../../src/format/raw.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';
import { IoLog } from '../../support/io-log.js';
import { VirtualClock } from '../../support/virtual-clock.js';

const BYTES = 65_536;
const soon = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve); });

function read(door: BlockBackend, offset: number): Promise<void> {
  return door.submit(makeRequest('read', offset, 512, new Uint8Array(512)));
}

function memory(name: string, trace: IoLog): BlockNode {
  return new BlockNode({ name, driver: new MemoryDriver({ bytes: BYTES, growable: false }), pinned: true, trace });
}

function raw(name: string, file: BlockNode, trace: IoLog): BlockNode {
  return new BlockNode({ name, driver: new RawDriver(file), pinned: true, trace });
}

/** As `action layer name`, in order. */
function told({ events }: IoLog): string[] {
  return events.map(({ action, layer, name }) => `${action} ${layer} ${name}`);
}

/** Each request on each device: queued once, and ended once. */
function expectEnds({ events }: IoLog): void {
  const open = new Map<string, number>();
  for (const { action, layer, name, request } of events) {
    const key = `${layer} ${name} #${request.id}`;
    if (action === 'Q') open.set(key, (open.get(key) ?? 0) + 1);
    if (action === 'C') open.set(key, (open.get(key) ?? 0) - 1);
  }
  expect([...open].filter(([, count]) => count !== 0)).toEqual([]);
  expect(open.size).toBeGreaterThan(0);
}

test('over an edge, where another node takes the place of the one that is drained', async () => {
  const log = new IoLog();
  const [first, second] = [memory('first', log), memory('second', log)];
  const top = raw('top', first, log);
  let reading = Promise.resolve();
  await first.drained(async () => {
    reading = top.read(4096, new Uint8Array(512));
    await soon();
    top.children[0]!.replace(second);
  });
  await reading;
  expect(told(log)).toEqual([
    'Q disk top', 'D disk top', 'A file first', 'Q file first', 'GI file first', 'D file first',
    'A file second', 'Q file second', 'D file second', 'C file second', 'C file first', 'C disk top',
  ]);
  expect(log.of('A', 'file').map(({ from }) => from)).toEqual([{ layer: 'disk', offset: 4096 }, { layer: 'disk', offset: 4096 }]);
  expectEnds(log);
});

test('at a door, where a filter comes over a disk while its user waits for a limit', async () => {
  const log = new IoLog();
  const clock = new VirtualClock();
  const disk = raw('disk', memory('file', log), log);
  const door = new BlockBackend('', disk);
  const member = new ThrottleGroup('g', { 'iops-total': 1 }, clock).join();
  door.admission = (request) => member.admit(request);
  const reading = [1, 2, 3].map((page) => read(door, page * 4096));
  await soon();
  const filter = new BlockNode({ name: 'filter', driver: new ThrottleFilter({ child: disk, group: new ThrottleGroup('h', {}, clock) }), trace: log });
  door.replace(filter);
  await clock.advance(10_000);
  await Promise.all(reading);
  expectEnds(log);
  // what waited is the disk's own row, from being asked to being answered, and the filter's is made for it
  expect(log.of('A', 'filter').map(({ from }) => from)).toEqual([{ layer: 'disk', offset: 8192 }, { layer: 'disk', offset: 12_288 }]);
});

test('at a door, where who waits is refused after the change', async () => {
  const log = new IoLog();
  const [first, second] = [memory('first', log), memory('second', log)];
  const door = new BlockBackend('', first);
  let refuse = (_error: Error): void => { /* set below */ };
  door.admission = () => new Promise((_resolve, reject) => { refuse = reject; });
  const reading = read(door, 0);
  door.replace(second);
  refuse(new BlockError('CLOSED', 'no more'));
  await expect(reading).rejects.toThrow('no more');
  expectEnds(log);
  expect(log.of('C', 'disk').map(({ errno }) => errno)).not.toContain(0);
});

test('at a node that makes zeros of what it would have had to copy', async () => {
  const log = new IoLog();
  const node = new BlockNode({ name: 'file', driver: new MemoryDriver({ bytes: BYTES, growable: false, limits: { memoryAlignment: 4096 } }), trace: log, detectZeroes: 'on' });
  const door = new BlockBackend('', node);
  const unaligned = new Uint8Array(8193).subarray(1);
  await door.submit(makeRequest('write', 4096, 8192, unaligned));
  await door.submit(makeRequest('write', 4096, 8192, unaligned.fill(1)));
  expectEnds(log);
  expect(log.of('D', 'file').map(({ request: { op, offset, bytes } }) => [op, offset, bytes])).toEqual([['write-zeroes', 4096, 8192], ['write', 4096, 8192]]);
  expect(log.of('C', 'disk').map(({ request: { op } }) => op)).toEqual(['write', 'write']);
});

test.each([1, 2, 3])('under load, while nodes come and go at random (seed %d)', async (seed) => {
  const random = new Random(seed);
  const pick = <T>(of: readonly T[]): T => of[random.below(of.length)]!;
  const log = new IoLog();
  const clock = new VirtualClock();
  const files = ['a', 'b', 'c'].map((name) => memory(name, log));
  const disks = ['x', 'y'].map((name) => raw(name, pick(files), log));
  const group = new ThrottleGroup('g', { 'iops-total': 500 }, clock);
  const filters = disks.map((disk) => new BlockNode({ name: `over ${disk.name}`, driver: new ThrottleFilter({ child: disk, group }), pinned: true, trace: log }));
  const tops = [...disks, ...filters];
  const doors = tops.map((node) => new BlockBackend('', node));
  const member = group.join();
  doors[0]!.admission = (request) => member.admit(request);
  const running: Promise<void>[] = [];
  for (let step = 0; step < 300; step++) {
    const door = pick(doors);
    for (let i = 0; i < 4; i++) running.push(random.chance(0.5) ? read(door, 4096 * i) : door.submit(makeRequest('write', 4096 * i, 512, new Uint8Array(512), random.below(2))));
    if (random.chance(0.3)) void pick(files).drained(async () => { await soon(); pick(disks).children[0]!.replace(pick(files)); });
    if (random.chance(0.3)) void pick(tops).drained(async () => { await soon(); pick(doors).replace(pick(tops)); });
    await clock.advance(20);
    await soon();
  }
  await clock.advance(100_000);
  for (let i = 0; i < 20; i++) await soon();
  await clock.advance(100_000);
  await Promise.all(running);
  expectEnds(log);
});
