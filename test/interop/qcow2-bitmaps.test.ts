/** Persistent bitmaps: those that QEMU wrote are kept by us, and the reverse. */
import { closeSync, copyFileSync, openSync, readFileSync, writeSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import {
  addBitmap, clearBitmap, disableBitmap, enableBitmap, mergeBitmaps, openImage, Random, removeBitmap, revertSnapshot, type BlockNode, type InfoValue,
} from '../../src/index.js';
import { allAgree, qemuFindsNothing, qemuInfo, snapshotId, snapshotsOf, weFindNothing, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { qemuBitmaps, qemuSha256 } from '../support/qemu-bitmaps.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { Twin } from '../support/twin.js';

const tmp = useTmp();
const AUTOCLEAR_LOW_BYTE = 95;
const MiB = 1024 * 1024;
const SIZE = 64 * MiB;

async function empty(options = 'cluster_size=64K', size = SIZE): Promise<string> {
  const path = tmp('image.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, path, String(size)]);
  return path;
}

async function withBitmap(): Promise<string> {
  const path = await empty();
  await runOk('qemu-img', ['bitmap', '-f', 'qcow2', '--add', path, 'changes']);
  await qemuIo(path, 'write -q -P 0x12 1M 2M'); // sets bits, so that bitmap data is stored
  return path;
}

async function qemuIo(path: string, ...commands: readonly string[]): Promise<void> {
  await runOk('qemu-io', ['-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), path]);
}

const autoclear = (path: string): number => readFileSync(path)[AUTOCLEAR_LOW_BYTE]!;

function patch(path: string, at: number, ...bytes: readonly number[]): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, Uint8Array.from(bytes), 0, bytes.length, at);
  closeSync(fd);
}

/** Both sides tell the same of every bitmap. */
async function bitmapsAgree(path: string): Promise<readonly string[]> {
  const theirs = await qemuBitmaps(path);
  const shown = (await qemuInfo(path))['format-specific'].data['bitmaps'] as InfoValue;
  await withImage(path, { readOnly: true }, async (node) => {
    expect(node.bitmaps.info()).toEqual(theirs);
    expect(node.driver.describe!().specific['bitmaps']).toEqual(shown);
    for (const bitmap of node.bitmaps) if (!bitmap.inconsistent) expect([bitmap.name, bitmap.sha256()]).toEqual([bitmap.name, await qemuSha256(path, bitmap.name)]);
  });
  await qemuFindsNothing(path);
  await weFindNothing(path);
  return theirs.map(({ name }) => name);
}

/** Where the directory entry of a bitmap lies in the file. */
function entryOf(path: string, name: string): number {
  const file = readFileSync(path);
  const extension = file.indexOf(Buffer.from('23852875', 'hex'));
  return file.indexOf(name, Number(file.readBigUInt64BE(extension + 24))) - 24;
}

async function scribble(node: BlockNode, seed: number): Promise<void> {
  const random = new Random(seed);
  for (let i = 0; i < 12; i++) {
    const offset = random.below(node.length() - 300_000);
    const bytes = 1 + random.below(300_000);
    if (random.chance(0.6)) await node.write(offset, Buffer.alloc(bytes, 7));
    else if (random.chance(0.5)) await node.writeZeroes(offset, bytes);
    else await node.discard(offset, bytes);
  }
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('persistent bitmaps', () => {
  test('of an image that is opened, read and checked stay as they are', async () => {
    const path = await withBitmap();
    const before = readFileSync(path);
    await weFindNothing(path);
    await withImage(path, { readOnly: true }, (node) => node.read(0, Buffer.alloc(512)));
    await (await openImage(path)).close(); // for writing, but nothing was written
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test('by QEMU: our writes are in them, disabled ones do not change', async () => {
    const path = await withBitmap();
    for (const args of [['-g', '512', path, 'fine'], [path, 'off'], ['-g', '2M', path, 'coarse']]) await runOk('qemu-img', ['bitmap', '--add', ...args]);
    await runOk('qemu-img', ['bitmap', '--disable', path, 'off']);
    const off = await qemuSha256(path, 'off');
    await withImage(path, {}, (node) => scribble(node, 1));
    expect(await bitmapsAgree(path)).toHaveLength(4);
    expect(await qemuSha256(path, 'off')).toBe(off);
    await withImage(path, {}, async (node) => {
      expect(node.bitmaps.get('changes')!.nextDirty(0)).toBeLessThanOrEqual(MiB);
      expect(node.bitmaps.get('fine')!.count).toBeGreaterThan(0);
    });
    await qemuIo(path, 'write 30M 10k', 'discard 0 1M');
    await bitmapsAgree(path);
  });

  test.each(['cluster_size=64K', 'cluster_size=4K,lazy_refcounts=on', 'cluster_size=2M', 'cluster_size=64K,refcount_bits=1'])('by us on an image of QEMU with %s', async (options) => {
    const path = await empty(options);
    await withImage(path, {}, async (node) => {
      await addBitmap(node, { name: 'a', persistent: true });
      await addBitmap(node, { name: 'b', persistent: true, granularity: 512 });
      await addBitmap(node, { name: 'memory only' });
      await scribble(node, 2);
      await addBitmap(node, { name: 'c', persistent: true, disabled: true });
    });
    expect(await bitmapsAgree(path)).toEqual(['a', 'b', 'c']);
    await qemuIo(path, 'write 5M 300k');
    await bitmapsAgree(path);
    await withImage(path, {}, async (node) => {
      await mergeBitmaps(node, 'c', ['a', 'b']);
      await clearBitmap(node, 'a');
      await disableBitmap(node, 'b');
      await enableBitmap(node, 'c');
      await node.write(50 * MiB, Buffer.alloc(100));
    });
    expect((await qemuBitmaps(path)).find(({ name }) => name === 'a')!.count).toBeLessThanOrEqual(64 * 1024);
    await bitmapsAgree(path);
    await withImage(path, {}, (node) => removeBitmap(node, 'b'));
    await bitmapsAgree(path);
    await runOk('qemu-img', ['bitmap', '--remove', path, 'a']);
    await withImage(path, {}, (node) => removeBitmap(node, 'c'));
    expect(autoclear(path)).toBe(0);
    await qemuFindsNothing(path);
    await weFindNothing(path);
  });

  test('on an image with a backing file: its name makes room', async () => {
    const backing = tmp('a backing file with a name of some length.qcow2');
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', backing, String(SIZE)]);
    for (const clusterSize of ['4K', '64K']) {
      const path = tmp(`over-${clusterSize}.qcow2`);
      await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `cluster_size=${clusterSize}`, '-b', backing, '-F', 'qcow2', path]);
      await withImage(path, { backing: 'allow' }, async (node) => {
        await addBitmap(node, { name: 'a', persistent: true });
        await scribble(node, 3);
      });
      expect(await qemuInfo(path)).toMatchObject({ 'backing-filename': backing, 'backing-filename-format': 'qcow2' });
      await qemuFindsNothing(path);
      expect(await qemuBitmaps(path)).toMatchObject([{ name: 'a', recording: true }]);
      await withImage(path, { backing: 'allow', readOnly: true }, async (node) => expect(node.bitmaps.get('a')!.sha256()).toBe(await qemuSha256(path, 'a')));
    }
  });

  test('grow with the disk', async () => {
    const path = await withBitmap();
    await withImage(path, {}, async (node) => {
      await node.drained(() => node.driver.resize!(SIZE * 3 + 512));
      await node.write(SIZE * 3, Buffer.alloc(512, 1));
    });
    await bitmapsAgree(path);
    expect((await qemuBitmaps(path))[0]!.count).toBe(2 * MiB + 65536);
    await runOk('qemu-img', ['resize', '-q', path, '1G']);
    await withImage(path, {}, (node) => node.write(900 * MiB, Buffer.alloc(512, 1)));
    await bitmapsAgree(path);
  });

  test('live through snapshots, and forbid to go back to one, as in QEMU', async () => {
    const path = await withBitmap();
    await withImage(path, {}, async (node) => {
      await node.drained(() => snapshotsOf(node).create({ name: 'one', vmStateSize: 0, dateSeconds: 1, dateNanoseconds: 2 }));
      await node.write(0, Buffer.alloc(512, 3));
      await expect(node.drained(() => snapshotsOf(node).apply(snapshotId(node, 'one')))).rejects.toThrow('Device has active dirty bitmaps');
    });
    await bitmapsAgree(path);
    expect((await run('qemu-img', ['snapshot', '-a', 'one', path])).stderr).toContain('Device has active dirty bitmaps');
    await withImage(path, {}, (node) => node.drained(() => snapshotsOf(node).delete(snapshotId(node, 'one'))));
    await bitmapsAgree(path);
  });

  test('of one disk of a set forbid to take any of its disks back', async () => {
    const [plain, tracked] = [await empty(), tmp('tracked.qcow2')];
    copyFileSync(plain, tracked);
    for (const path of [plain, tracked]) await runOk('qemu-img', ['snapshot', '-c', 'one', path]);
    await runOk('qemu-img', ['bitmap', '--add', tracked, 'changes']);
    for (const path of [plain, tracked]) await qemuIo(path, 'write -q 0 1M');
    const before = [plain, tracked].map((path) => readFileSync(path));
    await expect(revertSnapshot({ image: plain, also: [tracked], tag: 'one' })).rejects.toThrow(`'${tracked}': Device has active dirty bitmaps`);
    expect([plain, tracked].map((path, index) => readFileSync(path).equals(before[index]!))).toEqual([true, true]);
  });

  test('J-19: of a machine that crashed are only good for removal, on both sides', async () => {
    const path = await withBitmap();
    const copy = tmp('crashed.qcow2');
    await withImage(path, {}, async (node) => {
      await node.write(5 * MiB, Buffer.alloc(512, 1));
      await node.flush();
      await runOk('cp', [path, copy]);
    });
    await bitmapsAgree(path);
    expect(await qemuBitmaps(copy)).toMatchObject([{ name: 'changes', inconsistent: true, recording: false }]);
    await bitmapsAgree(copy);
    await withImage(copy, {}, async (node) => {
      await expect(clearBitmap(node, 'changes')).rejects.toThrow("Bitmap 'changes' is inconsistent and cannot be used");
      await expect(addBitmap(node, { name: 'changes', persistent: true })).rejects.toThrow('Bitmap already exists: changes');
      await expect(node.drained(() => node.driver.resize!(SIZE * 2))).rejects.toThrow('inconsistent');
      await node.write(0, Buffer.alloc(512, 2));
    });
    await bitmapsAgree(copy);
    await withImage(copy, {}, (node) => removeBitmap(node, 'changes'));
    await qemuFindsNothing(copy);
    expect(await qemuBitmaps(copy)).toEqual([]);
  });

  test('that are not vouched for are not there; a repair frees their clusters, and new ones take their place', async () => {
    const path = await withBitmap();
    patch(path, AUTOCLEAR_LOW_BYTE, 0);
    await withImage(path, {}, async (node) => {
      expect(node.bitmaps.size).toBe(0);
      await node.write(0, Buffer.alloc(512, 1));
    });
    const result = await withImage(path, { forCheck: true }, (node) => node.driver.check!({ repair: 'leaks' }));
    expect(result).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(result.leaksFixed).toBeGreaterThan(0);
    const { code, stdout, stderr } = await run('qemu-img', ['check', '-f', 'qcow2', path]);
    expect({ code, stdout: stdout.split('\n')[0] }).toEqual({ code: 0, stdout: 'No errors were found on the image.' });
    expect(stderr).toContain('all bitmaps are now considered inconsistent');
    await withImage(path, {}, async (node) => {
      await addBitmap(node, { name: 'new', persistent: true });
      await node.write(MiB, Buffer.alloc(512, 1));
    });
    expect(await bitmapsAgree(path)).toEqual(['new']);
    const twin = new Twin(tmp('twin.raw'), SIZE);
    twin.write(MiB, Buffer.alloc(2 * MiB, 0x12));
    twin.write(0, Buffer.alloc(512, 1));
    twin.write(MiB, Buffer.alloc(512, 1));
    await allAgree(path, twin);
  });

  test('keep what an engine of tomorrow stored beside them', async () => {
    const path = await withBitmap();
    await runOk('qemu-img', ['bitmap', '--add', path, 'tomorrow']);
    patch(path, entryOf(path, 'tomorrow') + 16, 2); // a type that does not exist yet
    await withImage(path, {}, async (node) => {
      expect([...node.bitmaps].map(({ name }) => name)).toEqual(['changes']);
      await expect(addBitmap(node, { name: 'tomorrow', persistent: true })).rejects.toThrow('a bitmap of this name that cannot be used');
      await node.write(0, Buffer.alloc(512, 1));
      await clearBitmap(node, 'changes');
    });
    await weFindNothing(path);
    const file = readFileSync(path);
    const now = entryOf(path, 'tomorrow');
    expect([file[now + 15], file[now + 16]]).toEqual([3, 2]); // in use, since we wrote and it did not hear of it
    patch(path, now + 16, 1);
    expect(await bitmapsAgree(path)).toEqual(['tomorrow', 'changes']);
  });

  test('are refused where they cannot be stored, in the words of QEMU', async () => {
    const old = await empty('compat=0.10');
    await withImage(old, {}, (node) => expect(addBitmap(node, { name: 'a', persistent: true })).rejects
      .toThrow(`Can't make bitmap 'a' persistent in '${old}': Cannot store dirty bitmaps in qcow2 v2 files`));
    const large = await empty('cluster_size=2M', 8 * 2 ** 40);
    await withImage(large, {}, async (node) => {
      await expect(addBitmap(node, { name: 'a', persistent: true, granularity: 512 })).rejects.toThrow('Too much space will be occupied by the bitmap. Use larger granularity');
      await addBitmap(node, { name: 'b', persistent: true });
      await node.write(8 * 2 ** 40 - 512, Buffer.alloc(512, 1));
      await node.write(2 ** 42, Buffer.alloc(512, 1));
    });
    expect(await bitmapsAgree(large)).toEqual(['b']);
  });
});
