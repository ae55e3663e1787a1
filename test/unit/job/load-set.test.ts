/** Loading one snapshot on several nodes: a crash at any moment leaves, once the images are opened again, all of them loaded or none. */
import { createHash } from 'node:crypto';
import { copyFileSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { VirtualClock } from '../../support/virtual-clock.js';
import { run } from '../../support/run.js';
import { addBlockdev, StorageDaemon } from '../../../src/index.js';
import { drained } from '../../../src/block/drain.js';
import { BlockGraph } from '../../../src/block/graph.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { createImage, openImage } from '../../../src/image/open.js';
import { openByName } from '../../../src/image/open-name.js';
import { restoreOpened } from '../../../src/job/interrupted-load.js';
import { loadSet } from '../../../src/job/load-set.js';
import { createSnapshot } from '../../../src/job/snapshot-create.js';
import { deleteSnapshot, listSnapshots, revertSnapshot } from '../../../src/job/snapshot-use.js';
import type { SnapshotTarget } from '../../../src/job/snapshot-set.js';
import { findOnPath } from '../../support/peers.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const IMAGES = ['a', 'b', 'c'] as const;
const SIZE = 2 ** 18;
const [OLD, NEW] = [0x11, 0x22];

/** Images whose snapshot `t` holds the old content, and whose disks the new one. */
async function prepare(): Promise<void> {
  for (const name of IMAGES) {
    await createImage(tmp(name), { format: 'qcow2', size: SIZE, clusterSize: 4096 });
    const node = await openImage(tmp(name), { format: 'qcow2' });
    await node.write(0, Buffer.alloc(SIZE / 2, OLD));
    await node.drained(() => node.driver.snapshots!.create({ name: 't', vmStateSize: 0, dateSeconds: 5, dateNanoseconds: 0 }));
    await node.write(SIZE / 4, Buffer.alloc(SIZE / 2, NEW));
    await node.close();
  }
}

const graphs: BlockGraph[] = [];

async function open(): Promise<SnapshotTarget[]> {
  const graph = new BlockGraph();
  graphs.push(graph);
  const targets: SnapshotTarget[] = [];
  for (const name of IMAGES) {
    const node = await openBlockdev(graph, { driver: 'qcow2', 'node-name': name, file: { driver: 'file', filename: tmp(name) } });
    targets.push({ node, table: node.driver.snapshots! });
  }
  return targets;
}

async function close(): Promise<void> {
  for (const graph of graphs.splice(0)) await graph.closeAll();
}

const files = (): string[] => readdirSync(tmp()).filter((name) => !name.includes('-left-'));
const notes = (): string[] => files().filter((name) => name.endsWith('.quiesce-set'));

/** What the disks of the images hold. */
async function content(): Promise<string[]> {
  return Promise.all(IMAGES.map(async (name) => {
    const node = await openImage(tmp(name), { format: 'qcow2', readOnly: true, forceShare: true });
    const disk = Buffer.alloc(SIZE);
    await node.read(0, disk);
    await node.close();
    const loaded = disk.subarray(0, SIZE / 2).every((byte) => byte === OLD) && disk.subarray(SIZE / 2).every((byte) => byte === 0);
    const before = disk.subarray(0, SIZE / 4).every((byte) => byte === OLD) && disk.subarray(SIZE / 4, 3 * SIZE / 4).every((byte) => byte === NEW);
    return loaded ? 'loaded' : before ? 'before' : 'neither';
  }));
}

/** A note may go while it is copied. */
function copyOne(name: string, count: number): void {
  try {
    copyFileSync(tmp(name), tmp(`${name}-left-${count}`));
  } catch (error) {
    if ((IMAGES as readonly string[]).includes(name)) throw error;
  }
}

async function loadNodes(): Promise<void> {
  const targets = await open();
  await drained(targets.map(({ node }) => node), () => loadSet(targets, 't', new VirtualClock()));
}

/** As the command line does; an id names the snapshot as well. */
async function loadFiles(): Promise<void> {
  await revertSnapshot({ image: tmp('a'), also: [tmp('b'), tmp('c')], tag: '1' });
}

/** The steps of a load after each of which a crash leaves what is copied then. */
async function loadWithCopies(load: () => Promise<void> = loadNodes): Promise<number> {
  await prepare();
  let count = 0;
  const copy = (): void => {
    for (const name of files()) copyOne(name, count);
    count++;
  };
  let running = true;
  const loading = load().finally(() => { running = false; });
  while (running) {
    copy();
    await new Promise((resolve) => { setImmediate(resolve); });
  }
  await loading;
  copy();
  await close();
  return count;
}

function crashedAt(index: number): boolean {
  const left = readdirSync(tmp()).filter((name) => name.endsWith(`-left-${index}`));
  for (const name of files()) rmSync(tmp(name));
  for (const name of left) copyFileSync(tmp(name), tmp(name.slice(0, -`-left-${index}`.length)));
  return notes().length > 0;
}

/** States that differ, about as many as asked for, and those in which images differ in what they are. */
function picked(count: number, wanted: number): number[] {
  const hashes = new Map<string, number>();
  for (let index = 0; index < count; index++) {
    const hash = createHash('sha1');
    for (const name of readdirSync(tmp()).filter((file) => file.endsWith(`-left-${index}`))) hash.update(name.split('-left-')[0]!).update(readFileSync(tmp(name)));
    const digest = hash.digest('hex');
    if (!hashes.has(digest)) hashes.set(digest, index);
  }
  const distinct = [...hashes.values()];
  const every = Math.max(1, Math.floor(distinct.length / wanted));
  return distinct.filter((_, index) => index % every === 0 || index === distinct.length - 1);
}

async function restart(): Promise<string[]> {
  const told: string[] = [];
  const daemon = new StorageDaemon({ version: { major: 7, minor: 2, micro: 22, package: 'test' }, say: (_where, line) => { told.push(line); } });
  try {
    for (const name of IMAGES) await addBlockdev(daemon, { driver: 'qcow2', 'node-name': name, file: { driver: 'file', filename: tmp(name) } });
    return told;
  } finally {
    await daemon.close();
  }
}

async function expectWhole(index: number): Promise<string> {
  const states = await content();
  expect([index, new Set(states).size, states[0]]).toEqual([index, 1, expect.stringMatching(/loaded|before/)]);
  expect([index, notes()]).toEqual([index, []]);
  const names = await Promise.all(IMAGES.map(async (name) => (await listSnapshots(tmp(name))).map((snapshot) => snapshot.name)));
  expect([index, names]).toEqual([index, [['t'], ['t'], ['t']]]);
  return states[0]!;
}

test('opened again by a daemon', async () => {
  const count = await loadWithCopies();
  const seen = new Set<string>();
  let mixed = 0;
  let checked = false;
  for (const index of picked(count, 14)) {
    crashedAt(index);
    if (new Set(await content()).size > 1) mixed++;
    await restart();
    seen.add(await expectWhole(index));
    if (findOnPath('qemu-img') !== undefined && seen.size === 1 && mixed > 0 && !checked) {
      checked = true;
      for (const name of IMAGES) expect([0, 3]).toContain((await run('qemu-img', ['check', tmp(name)])).code);
    }
  }
  expect([...seen].toSorted()).toEqual(['before', 'loaded']);
  expect(mixed).toBeGreaterThan(0); // or nothing was tried
}, 120_000);

/** As a server does with the one image that it is for. */
async function openedAlone(): Promise<void> {
  for (const name of IMAGES) {
    const graph = new BlockGraph();
    const { node } = await openByName(graph, tmp(name), 'qcow2', {});
    await restoreOpened(node);
    await graph.closeAll();
  }
}

test('of files, met by the next snapshot command, or by servers of one image each', async () => {
  const count = await loadWithCopies(loadFiles);
  let mixed = 0;
  const amid = picked(count, Infinity).filter(crashedAt);
  for (const index of amid.filter((_, at) => at % Math.ceil(amid.length / 8) === 0)) {
    crashedAt(index);
    if (new Set(await content()).size > 1) mixed++;
    const [image, ...also] = [...IMAGES].toReversed().map((name) => tmp(name));
    if (index % 2 === 0) {
      await openedAlone();
    } else {
      await createSnapshot({ image: image!, also, tag: 'next' });
      await deleteSnapshot({ image: image!, also, tag: 'next' });
    }
    await expectWhole(index);
  }
  expect(mixed).toBeGreaterThan(0);
}, 120_000);

/** Image `c`, one of whose requests fails: the one after that event has come so many times. */
function failing(event: string, count: number): string {
  const states = Array.from({ length: count - 1 }, (_, index) => ({ event, state: index + 1, new_state: index + 2 }));
  return `json:${JSON.stringify({ driver: 'qcow2', file: {
    driver: 'blkdebug', image: { driver: 'file', filename: tmp('c') }, 'set-state': states, 'inject-error': [{ event, state: count, errno: 28, once: true }],
  } })}`;
}

test('of files, one of which fails: none is loaded, or all of them', async () => {
  const seen = new Set<string>();
  for (const [event, first, last] of [['cluster_alloc', 5, 8], ['flush_to_disk', 2, 7]] as const) {
    for (let count = first; count <= last; count++) {
      for (const name of files()) rmSync(tmp(name));
      await prepare();
      const error = await revertSnapshot({ image: tmp('a'), also: [tmp('b'), failing(event, count)], tag: 't' }).then(() => null, (reason: Error) => reason.message);
      const left = notes().length > 0;
      if (left) {
        await createSnapshot({ image: tmp('b'), tag: 'next' });
        await deleteSnapshot({ image: tmp('b'), tag: 'next' });
      }
      const state = await expectWhole(count);
      if (state === 'before') expect(error).toMatch(/^Could not load snapshot 't' on|fails a flush/);
      seen.add(`${error === null ? 'worked' : 'failed'}, ${state}${left ? ' after the next command' : ''}`);
    }
  }
  expect([...seen].toSorted()).toEqual(['failed, before', 'failed, before after the next command', 'failed, loaded', 'failed, loaded after the next command', 'worked, loaded']);
}, 120_000);

test('what was written since stays: nobody knows any more which moment the images are to be of', async () => {
  const count = await loadWithCopies();
  for (let index = 0; index < count; index++) {
    crashedAt(index);
    if (new Set(await content()).size === 1) continue;
    const node = await openImage(tmp('c'), { format: 'qcow2' });
    await node.write(0, Buffer.alloc(10, 7));
    await node.close();
    const before = await content();
    const told = await restart();
    expect(told.join()).toContain("loading snapshot 't' was interrupted, and images were written since");
    expect(await content()).toEqual(before);
    expect(notes()).toEqual([]);
    return;
  }
  throw new Error('no moment at which the images differ');
}, 60_000);

/** All but the last are loaded. */
async function crashedAmid(): Promise<void> {
  await prepare();
  const targets = await open();
  const { node, table } = targets[2]!;
  const crashing = async (): Promise<never> => {
    for (const name of files()) copyOne(name, 0);
    throw new Error('no more');
  };
  const last = new Proxy(table, { get: (_table, name) => (name === 'apply' ? crashing : (Reflect.get(table, name) as () => unknown).bind(table)) });
  await expect(drained(targets.map((target) => target.node), () => loadSet([targets[0]!, targets[1]!, { node, table: last }], 't', new VirtualClock()))).rejects.toThrow('no more');
  await close();
  expect(crashedAt(0)).toBe(true);
  expect(await content()).toEqual(['loaded', 'loaded', 'before']);
}

const bytesOfAll = (): Map<string, Buffer> => new Map(files().map((name) => [name, readFileSync(tmp(name))]));

test('while one of the images is not there, nothing is changed: it is all of them or none', async () => {
  await crashedAmid();
  const warnings: string[] = [];
  const onWarning = (message: string): void => { warnings.push(message); };
  // the one whose note decides, and another; as where their file systems are not mounted
  for (const [missing, there] of [['a', 'b'], ['b', 'a'], ['c', 'b']] as const) {
    const away = [missing, `.${missing}.quiesce-set`];
    for (const name of away) renameSync(tmp(name), tmp(`${name}-left-away`));
    const before = bytesOfAll();
    const refused = `interrupted, and '${tmp(missing)}' of them cannot be found: bring it back, or remove '${tmp(`.${there}.quiesce-set`)}'`;
    await expect(revertSnapshot({ image: tmp(there), tag: 't', onWarning })).rejects.toThrow(refused);
    await expect(createSnapshot({ image: tmp(there), tag: 'next', onWarning })).rejects.toThrow(refused);
    await expect(deleteSnapshot({ image: tmp(there), tag: 't', onWarning })).rejects.toThrow(refused);
    const graph = new BlockGraph();
    const { node } = await openByName(graph, tmp(there), 'qcow2', {});
    await expect(restoreOpened(node)).rejects.toThrow(refused);
    await graph.closeAll();
    expect((await listSnapshots(tmp(there))).map(({ name }) => name)).toEqual(['t', expect.stringContaining('quiesce-undo-')]);
    for (const [name, bytes] of bytesOfAll()) expect([name, before.get(name)?.equals(bytes)]).toEqual([name, true]);
    for (const name of away) renameSync(tmp(`${name}-left-away`), tmp(name));
  }
  expect(warnings).toEqual([]);
  await createSnapshot({ image: tmp('b'), tag: 'next', onWarning });
  await deleteSnapshot({ image: tmp('b'), tag: 'next', onWarning });
  expect(warnings).toEqual(["loading snapshot 't' was interrupted: the images are what they were before it"]);
  expect(await expectWhole(0)).toBe('before');
}, 60_000);

test('one that was taken back already is used without the others, which follow once they are there', async () => {
  await crashedAmid();
  const restored = async (name: string): Promise<string | null> => {
    const graph = new BlockGraph();
    const { node } = await openByName(graph, tmp(name), 'qcow2', {});
    try {
      return await restoreOpened(node);
    } finally {
      await graph.closeAll();
    }
  };
  expect(await restored('b')).toContain(`'${tmp('b')}' is what it was before it`);
  const away = ['a', '.a.quiesce-set'];
  for (const name of away) renameSync(tmp(name), tmp(`${name}-left-away`));
  expect(await restored('b')).toBe(null);
  await expect(restored('c')).rejects.toThrow(`'${tmp('a')}' of them cannot be found`);
  for (const name of away) renameSync(tmp(`${name}-left-away`), tmp(name));
  for (const name of ['c', 'b', 'a']) await restored(name);
  expect(await expectWhole(0)).toBe('before');
}, 60_000);

test('removing the note lets one go on without the others', async () => {
  await crashedAmid();
  for (const name of ['b', '.b.quiesce-set', '.a.quiesce-set']) rmSync(tmp(name));
  await createSnapshot({ image: tmp('a'), tag: 'next' });
  expect((await listSnapshots(tmp('a'))).map(({ name }) => name)).toEqual(['t', expect.stringContaining('quiesce-undo-'), 'next']);
}, 60_000);

test('where one cannot be loaded, those before it are taken back', async () => {
  await prepare();
  const targets = await open();
  const { node, table } = targets[2]!;
  const failing = new Proxy(table, { get: (_table, name) => (name === 'apply' ? () => Promise.reject(new Error('no more')) : (Reflect.get(table, name) as () => unknown).bind(table)) });
  await expect(drained(targets.map((target) => target.node), () => loadSet([targets[0]!, targets[1]!, { node, table: failing }], 't', new VirtualClock()))).rejects.toThrow('no more');
  await close();
  expect(await expectWhole(0)).toBe('before');
}, 60_000);
