import { expect, test } from '@jest/globals';
import { BlockNode, makeRequest, type BlockBackend } from '../../../src/index.js';
import { DirtyBitmap } from '../../../src/block/dirty-bitmap.js';
import { CopyBeforeWriteFilter, type CopyBeforeWriteOptions } from '../../../src/filter/copy-before-write.js';
import { SnapshotAccessDriver } from '../../../src/filter/snapshot-access.js';
import { insertFilter } from '../../../src/image/graph-edit.js';
import { JobLab, LabDisk, RandomGuest, turn } from '../../support/job-lab.js';

const CLUSTER = 65536;
const BYTES = 8 * CLUSTER;

async function setUp(options: Partial<CopyBeforeWriteOptions> = {}, seed = 1) {
  const lab = new JobLab();
  const [a, b] = [new LabDisk({ bytes: BYTES, seed }), new LabDisk({ bytes: BYTES, seed: seed + 1 })];
  const [source, target] = [lab.add('s', a), lab.add('t', b)];
  await source.write(0, Buffer.alloc(BYTES, 1));
  const driver = new CopyBeforeWriteFilter({ child: source, target, ...options });
  const filter = new BlockNode({ name: 'f', nodeName: lab.graph.takeName('f'), driver, pinned: true });
  lab.graph.add(filter);
  const door = await lab.guest(source);
  await insertFilter(lab.graph, source, filter);
  const access = lab.add('a', new SnapshotAccessDriver({ child: filter }));
  return { lab, a, b, source, target, filter, driver, door, access };
}

const write = (door: BlockBackend, offset: number, bytes: number, value: number): Promise<void> => door.submit(makeRequest('write', offset, bytes, Buffer.alloc(bytes, value)));

async function readSnapshot(access: BlockNode, offset = 0, bytes = BYTES): Promise<Buffer> {
  const data = Buffer.alloc(bytes, 0xee);
  await access.read(offset, data);
  return data;
}

test('the snapshot shows the old content while guests write, zero and discard at random', async () => {
  for (let seed = 1; seed <= 6; seed++) {
    const { door, access } = await setUp({}, seed);
    const guest = new RandomGuest(door, seed, { requests: 5 });
    for (let round = 0; round < 12; round++) {
      const parts = await Promise.all([readSnapshot(access), readSnapshot(access, 1000, 3 * CLUSTER)]);
      expect(parts.every((data) => data.every((byte) => byte === 1))).toBe(true);
    }
    await guest.stop();
    expect(guest.errors).toBe(0);
  }
});

test('a read of what is not copied yet keeps guests from writing there', async () => {
  const { a, door, access } = await setUp();
  let letGo = (): void => undefined;
  const gate = new Promise<void>((resolve) => { letGo = resolve; });
  a.before = ({ op, bytes }) => (op === 'read' && bytes === 4096 ? gate : undefined);
  const reading = readSnapshot(access, 0, 4096);
  await turn();
  let written = false;
  const writing = write(door, 0, 512, 9).then(() => { written = true; });
  for (let left = 50; left > 0; left--) await turn();
  expect(written).toBe(false);
  letGo();
  expect((await reading).every((byte) => byte === 1)).toBe(true);
  await writing;
  expect((await readSnapshot(access, 0, 4096)).every((byte) => byte === 1)).toBe(true);
});

test('outside of the bitmap nothing is copied and nothing can be read; what is discarded neither', async () => {
  const bitmap = new DirtyBitmap({ name: 'b', granularity: CLUSTER, size: BYTES });
  bitmap.set(0, 4 * CLUSTER);
  const { b, door, access, driver } = await setUp({ bitmap });
  await write(door, 5 * CLUSTER, 512, 9);
  expect(b.log).toEqual([]);
  await expect(readSnapshot(access, 3 * CLUSTER, 2 * CLUSTER)).rejects.toMatchObject({ errno: 'EACCES' });
  await expect(access.blockStatus(4 * CLUSTER, 512)).rejects.toMatchObject({ errno: 'EACCES' });
  await access.discard(512, 2 * CLUSTER);
  expect(driver.copying.remaining).toBe(3 * CLUSTER);
  await expect(readSnapshot(access, CLUSTER, 512)).rejects.toMatchObject({ errno: 'EACCES' });
  expect((await readSnapshot(access, 0, 512)).every((byte) => byte === 1)).toBe(true);
  await expect(access.write(0, Buffer.alloc(512))).rejects.toMatchObject({ errno: 'ENOTSUP' });
});

test('where a copy fails, the write does, or the snapshot', async () => {
  const fails = ({ op }: { readonly op: string }): void => { if (op === 'write') throw new Error('no'); };
  const guestBreaks = await setUp();
  guestBreaks.b.fault = fails;
  await expect(write(guestBreaks.door, 0, 512, 9)).rejects.toThrow('no');
  guestBreaks.b.fault = null;
  await write(guestBreaks.door, 0, 512, 9);
  expect((await readSnapshot(guestBreaks.access)).every((byte) => byte === 1)).toBe(true);
  const snapshotBreaks = await setUp({ onError: 'break-snapshot' });
  snapshotBreaks.b.fault = fails;
  await write(snapshotBreaks.door, 0, 512, 9);
  await expect(readSnapshot(snapshotBreaks.access, BYTES - 512, 512)).rejects.toMatchObject({ errno: 'EACCES' });
});

test('a write waits for its copy no longer than it may', async () => {
  const { b, door, access, filter, lab } = await setUp({ onError: 'break-snapshot', timeoutMs: 30 });
  let letGo = (): void => undefined;
  b.before = ({ op }) => (op === 'write' ? new Promise<void>((resolve) => { letGo = resolve; }) : undefined);
  await write(door, 0, 512, 9);
  await expect(readSnapshot(access, 0, 512)).rejects.toMatchObject({ errno: 'EACCES' });
  await lab.graph.remove('a');
  await lab.graph.detach(door);
  let closed = false;
  const closing = lab.graph.remove(filter.nodeName).then(() => { closed = true; });
  for (let left = 20; left > 0; left--) await turn();
  expect(closed).toBe(false); // what was left alone is still under way
  letGo();
  await closing;
});

test('when it has ended, who waits for a copy goes on, and nothing more is copied', async () => {
  const { b, door, driver } = await setUp();
  b.before = ({ op }) => (op === 'write' ? new Promise<void>(() => undefined) : undefined);
  const writing = write(door, 0, 512, 9);
  for (let left = 20; left > 0; left--) await turn();
  driver.end();
  await writing;
  await write(door, CLUSTER, 512, 9);
  expect(b.log.filter(({ op }) => op === 'write')).toHaveLength(1);
});
