/** Filters put in and taken out below a disk that is read and written all the while: nothing fails, nothing is lost. */
import { writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { KiB, MiB } from '../../src/base/bytes.js';
import { Random } from '../../src/base/clock.js';
import type { BlockBackend } from '../../src/block/backend.js';
import { BlockGraph } from '../../src/block/graph.js';
import { Permission } from '../../src/block/permissions.js';
import { makeRequest } from '../../src/block/request.js';
import { ThrottleGroup } from '../../src/block/throttle.js';
import { openBlockdev, type BlockdevContext } from '../../src/image/blockdev.js';
import { createImage } from '../../src/image/open.js';
import type { OptionTree } from '../../src/image/options.js';
import { reopenBlockdevs } from '../../src/image/reopen.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const SIZE = MiB;
const SLOTS = 4;

/** One of several that read and write a stretch of the disk each, until told to stop. */
async function useStretch(door: BlockBackend, slot: number, model: Uint8Array, random: Random, goesOn: () => boolean): Promise<number> {
  const start = (slot * SIZE) / SLOTS;
  let count = 0;
  for (; goesOn(); count++) {
    const offset = start + random.below(SIZE / SLOTS - 9000);
    const data = new Uint8Array(1 + random.below(9000));
    if (random.chance(0.5)) {
      random.fill(data);
      model.set(data, offset);
      await door.submit(makeRequest('write', offset, data.byteLength, data));
    } else {
      await door.submit(makeRequest('read', offset, data.byteLength, data));
      expect(Buffer.compare(data, model.subarray(offset, offset + data.byteLength))).toBe(0);
    }
    if (random.chance(0.2)) await new Promise((resolve) => setImmediate(resolve));
  }
  return count;
}

test('filters come and go below a disk in use', async () => {
  const model = new Uint8Array(SIZE).fill(7);
  writeFileSync(tmp('base'), model);
  await createImage(tmp('image'), { format: 'qcow2', backingFile: 'base', backingFormat: 'raw', clusterSize: 4 * KiB });
  const graph = new BlockGraph();
  const groups = new Map([['fast', new ThrottleGroup('fast', { 'iops-total': 50_000 })], ['slow', new ThrottleGroup('slow', { 'iops-total': 300 })]]);
  const context: BlockdevContext = { throttleGroup: (name) => groups.get(name) };
  const add = (options: OptionTree) => openBlockdev(graph, options, context);
  await add({ driver: 'qcow2', 'node-name': 'image', file: { driver: 'file', filename: tmp('image') } });
  const disk = await add({ driver: 'raw', 'node-name': 'disk', file: 'image' });
  const door = await graph.attach(disk, { used: Permission.CONSISTENT_READ | Permission.WRITE, shared: Permission.ALL });
  let stop = false;
  const users = Array.from({ length: SLOTS }, (_, slot) => useStretch(door, slot, model, new Random(slot + 1), () => !stop));
  const filters: readonly OptionTree[] = [
    { driver: 'throttle', 'throttle-group': 'fast', file: 'image' }, { driver: 'copy-on-read', file: 'image' }, { driver: 'throttle', 'throttle-group': 'slow', file: 'image' },
    { driver: 'blkdebug', image: 'image', align: 512, 'max-transfer': 4096 }, { driver: 'preallocate', file: 'image' },
  ];
  try {
    for (const filter of [...filters, ...filters]) {
      await add({ ...filter, 'node-name': 'filter' });
      await reopenBlockdevs(graph, [{ driver: 'raw', 'node-name': 'disk', file: 'filter' }], context);
      await new Promise((resolve) => setTimeout(resolve, 20));
      await reopenBlockdevs(graph, [{ driver: 'raw', 'node-name': 'disk', file: 'image' }], context);
      await graph.remove('filter');
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  } finally {
    stop = true;
  }
  const counts = await Promise.all(users);
  expect(Math.min(...counts)).toBeGreaterThan(20);
  const found = new Uint8Array(SIZE);
  await door.submit(makeRequest('read', 0, SIZE, found));
  expect(Buffer.compare(found, model)).toBe(0);
  await graph.detach(door);
  expect(await graph.get('image').driver.check!({})).toMatchObject({ corruptions: 0 });
  await graph.closeAll();
});
