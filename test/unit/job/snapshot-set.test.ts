/** A snapshot over several nodes that a crash interrupts: the next run on the images finds it half made, and removes it. */
import { copyFileSync, readdirSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { VirtualClock } from '../../support/virtual-clock.js';
import { BlockGraph } from '../../../src/block/graph.js';
import type { CreateSnapshot } from '../../../src/block/driver.js';
import { createSnapshotSet } from '../../../src/job/snapshot-set.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { createImage } from '../../../src/image/open.js';
import { createSnapshot } from '../../../src/job/snapshot-create.js';
import { listSnapshots } from '../../../src/job/snapshot-use.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const SNAPSHOT: CreateSnapshot = { name: 't', vmStateSize: 0, dateSeconds: 1000, dateNanoseconds: 5 };
const IMAGES = ['a', 'b'] as const;

async function open(): Promise<{ graph: BlockGraph; targets: Parameters<typeof createSnapshotSet>[0][number][] }> {
  const graph = new BlockGraph();
  const nodes = [];
  for (const name of IMAGES) nodes.push(await openBlockdev(graph, { driver: 'qcow2', 'node-name': name, file: { driver: 'file', filename: tmp(name) } }));
  return { graph, targets: nodes.map((node) => ({ node, table: node.driver.snapshots! })) };
}

const notes = (): string[] => readdirSync(tmp()).filter((name) => name.endsWith('.quiesce-set'));
const names = async (): Promise<string[][]> => Promise.all(IMAGES.map(async (name) => (await listSnapshots(tmp(name))).map((snapshot) => snapshot.name)));

test('before the last image has it', async () => {
  for (const name of IMAGES) await createImage(tmp(name), { format: 'qcow2', size: 2 ** 20 });
  const { graph, targets } = await open();
  // what a crash would leave at this point
  const files = (): string[] => [...IMAGES, ...notes()];
  let left: string[] = [];
  const { node, table } = targets[0]!;
  const crashing = Object.assign(Object.create(table) as typeof table, {
    list: () => table.list(),
    create: async () => {
      left = files();
      for (const file of left) copyFileSync(tmp(file), tmp(`${file}-left`));
      throw new Error('no more');
    },
  });
  await expect(createSnapshotSet([{ node, table: crashing }, targets[1]!], SNAPSHOT, new VirtualClock())).rejects.toThrow('no more');
  expect(left).toHaveLength(4);
  expect(notes()).toEqual([]);
  await graph.closeAll();
  expect(await names()).toEqual([[], []]);
  for (const file of left) copyFileSync(tmp(`${file}-left`), tmp(file));
  expect(await names()).toEqual([[], ['t']]);
  const again = await open();
  await expect(createSnapshotSet(again.targets, SNAPSHOT, new VirtualClock())).rejects.toThrow("an interrupted run left the snapshot 't' half made");
  await again.graph.closeAll();
  await createSnapshot({ image: tmp('a'), tag: 'next' });
  expect(await names()).toEqual([['next'], []]);
  expect(notes()).toEqual([]);
});
