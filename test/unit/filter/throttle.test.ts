import { expect, test } from '@jest/globals';
import { BlockNode } from '../../../src/block/node.js';
import { ThrottleGroup } from '../../../src/block/throttle.js';
import { ThrottleFilter } from '../../../src/filter/throttle.js';
import { RawDriver } from '../../../src/format/raw.js';
import { createQcow2 } from '../../../src/format/qcow2/create.js';
import { openQcow2 } from '../../../src/format/qcow2/qcow2.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';
import { VirtualClock } from '../../support/virtual-clock.js';

function throttled(group: ThrottleGroup): BlockNode {
  const child = new BlockNode({ name: 'memory', driver: new MemoryDriver({ bytes: 65536 }) });
  return new BlockNode({ name: 'throttle', driver: new ThrottleFilter({ child, group }) });
}

test('requests wait for their turn, and draining lets them through', async () => {
  const clock = new VirtualClock();
  await using node = throttled(new ThrottleGroup('group', { 'iops-total': 10 }, clock));
  let done = 0;
  const writes = Array.from({ length: 20 }, (_, i) => node.write(i * 512, new Uint8Array(512).fill(i)).then(() => { done++; }));
  await clock.advance(500);
  expect(done).toBe(2 + 5);
  await node.drained(async () => { expect(node.inFlight).toBe(0); });
  expect(done).toBe(20);
  await Promise.all(writes);
  const last = new Uint8Array(1);
  const read = node.read(19 * 512, last);
  await clock.advance(3_000);
  await read;
  expect(last[0]).toBe(19);
});

test('closing lets waiting requests through and leaves the group', async () => {
  const clock = new VirtualClock();
  const group = new ThrottleGroup('group', { 'bps-total': 1 }, clock);
  const node = throttled(group);
  const writes = [1, 2, 3].map((value) => node.write(0, new Uint8Array(512).fill(value)));
  await node.close();
  await Promise.all(writes);
  expect(group.memberCount).toBe(0);
});

test('draining or closing a node above lets through what waits below', async () => {
  const clock = new VirtualClock();
  const file = throttled(new ThrottleGroup('group', { 'bps-total': 1 }, clock));
  const raw = new BlockNode({ name: 'raw', driver: new RawDriver(file) });
  const first = [1, 2, 3].map(() => raw.write(0, new Uint8Array(512)));
  await raw.drained(async () => { expect(raw.inFlight).toBe(0); });
  await Promise.all(first);
  let done = false;
  const held = raw.write(0, new Uint8Array(512)).then(() => { done = true; });
  await clock.advance(10);
  expect(done).toBe(false);
  await raw.close();
  await held;
});

test('snapshots are those of the image below', async () => {
  const file = new BlockNode({ name: 'file', driver: new MemoryDriver() });
  await createQcow2(file, { size: 65536 });
  const image = new BlockNode({ name: 'image', driver: await openQcow2(file) });
  await using node = new BlockNode({ name: 'throttle', driver: new ThrottleFilter({ child: image, group: new ThrottleGroup('group') }) });
  await node.write(0, new Uint8Array(512).fill(1));
  const { id } = await node.drained(() => node.driver.snapshots!.create({ name: 'one', vmStateSize: 0, dateSeconds: 1, dateNanoseconds: 0 }));
  await node.write(0, new Uint8Array(512).fill(2));
  await node.drained(() => node.driver.snapshots!.apply(id));
  const found = new Uint8Array(512);
  await node.read(0, found);
  expect(found).toEqual(new Uint8Array(512).fill(1));
  await node.drained(() => node.driver.snapshots!.delete(id));
  expect(node.driver.snapshots!.list()).toEqual([]);
  expect(throttled(new ThrottleGroup('group')).driver.snapshots).toBeUndefined();
});

test('moves to another group', async () => {
  const clock = new VirtualClock();
  const [slow, fast] = [new ThrottleGroup('slow', { 'bps-total': 1 }, clock), new ThrottleGroup('fast', {}, clock)];
  await using node = throttled(slow);
  await node.write(0, new Uint8Array(512));
  await node.drained(() => node.drained(async () => (node.driver as ThrottleFilter).setGroup(fast)));
  expect([slow.memberCount, fast.memberCount]).toEqual([0, 1]);
  await node.write(0, new Uint8Array(512));
  await node.write(0, new Uint8Array(512));
  await node.drained(async () => (node.driver as ThrottleFilter).setGroup(slow));
  const held = node.write(0, new Uint8Array(512));
  await clock.advance(1000);
  await node.drained(() => held); // a section let it through, those before had all ended
});
