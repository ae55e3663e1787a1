import { describe, expect, test } from '@jest/globals';
import { addBitmap, clearBitmap, disableBitmap, enableBitmap, mergeBitmaps, prepareRemoveBitmap, removeBitmap } from '../../../src/block/bitmap-verbs.js';
import { DirtyBitmap } from '../../../src/block/dirty-bitmap.js';
import { BlockNode } from '../../../src/block/node.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';

const MiB = 1024 * 1024;

function nodeOf(bytes: number): BlockNode {
  return new BlockNode({ name: 'disk', driver: new MemoryDriver({ bytes }) });
}

describe('a bitmap', () => {
  test('rounds what is dirty outwards and what is cleaned inwards', () => {
    const bitmap = new DirtyBitmap({ name: 'b', granularity: 4096, size: 10_000 });
    bitmap.set(4095, 2);
    expect([bitmap.count, bitmap.nextDirty(0), bitmap.nextClean(0)]).toEqual([8192, 0, 8192]);
    bitmap.clear(1, 8191);
    expect([bitmap.get(0), bitmap.get(4096)]).toEqual([true, false]);
    bitmap.set(9000, 1);
    expect([bitmap.nextDirty(4096), bitmap.nextClean(8192), bitmap.count]).toEqual([8192, 10_000, 8192]);
    bitmap.clear(8192, 10_000 - 8192);
    expect(bitmap.nextDirty(4096)).toBe(10_000);
  });

  test('answers within the range that is asked about', () => {
    const bitmap = new DirtyBitmap({ name: 'b', granularity: 65536, size: MiB });
    bitmap.set(65536, 1);
    expect([bitmap.nextDirty(70_000, 80_000), bitmap.nextClean(70_000, 80_000)]).toEqual([70_000, 80_000]);
    expect([bitmap.nextDirty(0, 1000), bitmap.nextClean(0, 1000)]).toEqual([1000, 0]);
  });

  test('merges one of another granularity', () => {
    const [fine, coarse] = [512, 65536].map((granularity) => new DirtyBitmap({ name: '', granularity, size: MiB }));
    fine!.set(70_000, 1000);
    coarse!.merge(fine!);
    expect([coarse!.nextDirty(0), coarse!.count]).toEqual([65536, 65536]);
    fine!.merge(coarse!);
    expect(fine!.count).toBe(65536);
  });

  test('frozen: a successor records; success keeps what it recorded, failure keeps all', () => {
    for (const end of ['abdicate', 'reclaim'] as const) {
      const bitmap = new DirtyBitmap({ name: 'b', granularity: 512, size: 4096 });
      bitmap.set(0, 512);
      bitmap.createSuccessor().set(1024, 512);
      expect(() => bitmap.createSuccessor()).toThrow("Bitmap 'b' is currently in use by another operation and cannot be used");
      expect([bitmap.recording, bitmap.enabled]).toEqual([true, false]);
      bitmap[end]();
      expect([bitmap.get(0), bitmap.get(1024), bitmap.enabled, bitmap.busy]).toEqual([end === 'reclaim', true, true, false]);
    }
  });

  test('has the checksum that QEMU computes: words of 64 bits, one at least', () => {
    // of eight and of sixteen zero bytes
    expect(new DirtyBitmap({ name: '', granularity: 512, size: 0 }).sha256()).toBe('af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc');
    expect(new DirtyBitmap({ name: '', granularity: 512, size: 512 * 65 }).sha256()).toBe('374708fff7719dd5979ec875d56cd2286f6d3cf7ec317a3b25632aab28ec37bb');
  });
});

describe('the bitmaps of a node', () => {
  test('hear every write, zeroes and discard while enabled', async () => {
    const node = nodeOf(MiB);
    expect(node.writeObservers.size).toBe(0);
    await addBitmap(node, { name: 'a', granularity: 4096 });
    await addBitmap(node, { name: 'off', granularity: 4096, disabled: true });
    await node.write(5000, new Uint8Array(10));
    await node.writeZeroes(65536, 4096);
    await node.discard(131_072, 4096);
    await node.read(0, new Uint8Array(512));
    const [a, off] = ['a', 'off'].map((name) => node.bitmaps.get(name)!);
    expect([a!.count, off!.count]).toEqual([3 * 4096, 0]);
    expect([a!.get(4096), a!.get(65536), a!.get(131_072)]).toEqual([true, true, true]);
    await disableBitmap(node, 'a');
    await enableBitmap(node, 'off');
    await node.write(0, new Uint8Array(1));
    expect([a!.get(0), off!.get(0)]).toEqual([false, true]);
  });

  test('of a node that a write makes longer, grow', async () => {
    const node = nodeOf(4096);
    await addBitmap(node, { name: 'a' });
    await node.write(200_000, new Uint8Array(1));
    const bitmap = node.bitmaps.get('a')!;
    expect([bitmap.size, bitmap.nextDirty(0)]).toEqual([200_001, 196_608]);
  });

  test('are told as QEMU does, newest first', async () => {
    const node = nodeOf(MiB);
    await addBitmap(node, { name: 'a', granularity: 512 });
    await addBitmap(node, { name: 'b', disabled: true });
    await node.write(0, new Uint8Array(513));
    expect(node.bitmaps.info()).toEqual([
      { name: 'b', recording: false, persistent: false, busy: false, count: 0, granularity: 65536 },
      { name: 'a', recording: true, persistent: false, busy: false, count: 1024, granularity: 512 },
    ]);
  });

  test('are refused in the words of QEMU', async () => {
    const node = nodeOf(MiB);
    await addBitmap(node, { name: 'a' });
    await expect(addBitmap(node, { name: '' })).rejects.toThrow('Bitmap name cannot be empty');
    await expect(addBitmap(node, { name: 'a' })).rejects.toThrow('Bitmap already exists: a');
    await expect(addBitmap(node, { name: 'b', granularity: 1000 })).rejects.toThrow('Granularity must be power of 2 and at least 512');
    await expect(addBitmap(node, { name: 'b', granularity: 256 })).rejects.toThrow('Granularity must be power of 2 and at least 512');
    await expect(addBitmap(node, { name: 'b', persistent: true })).rejects.toThrow("Can't store persistent bitmaps to disk");
    await expect(addBitmap(node, { name: 'b'.repeat(1024) })).rejects.toThrow('Bitmap name too long: bbb');
    await expect(clearBitmap(node, 'no')).rejects.toThrow("Dirty bitmap 'no' not found");
    node.bitmaps.get('a')!.busy = true;
    await expect(removeBitmap(node, 'a')).rejects.toThrow("Bitmap 'a' is currently in use by another operation and cannot be used");
    await expect(enableBitmap(node, 'a')).rejects.toThrow("Bitmap 'a' is currently in use");
  });

  test('cleared and merged: an undo gives back what was', async () => {
    const node = nodeOf(MiB);
    await addBitmap(node, { name: 'a', granularity: 512 });
    await addBitmap(node, { name: 'b', granularity: 512 });
    await node.write(0, new Uint8Array(512));
    const undoClear = await clearBitmap(node, 'a');
    await node.write(8192, new Uint8Array(512));
    const a = node.bitmaps.get('a')!;
    expect(a.count).toBe(512);
    const undoMerge = await mergeBitmaps(node, 'a', ['b']);
    expect(a.count).toBe(1024);
    await undoMerge();
    expect([a.count, a.get(8192)]).toEqual([512, true]);
    await undoClear();
    expect([a.count, a.get(0), a.get(8192)]).toEqual([1024, true, true]);
  });

  test('merged: all sources or none', async () => {
    const [node, other, larger] = [nodeOf(MiB), nodeOf(MiB), nodeOf(2 * MiB)];
    for (const [at, name] of [[node, 'target'], [node, 'one'], [other, 'second'], [larger, 'three']] as const) {
      await addBitmap(at, { name, granularity: 512 });
      await at.write(at === other ? 65536 : name.length * 4096, new Uint8Array(512));
    }
    const target = node.bitmaps.get('target')!;
    const before = target.sha256();
    await expect(mergeBitmaps(node, 'target', ['one', { node: larger, name: 'three' }])).rejects
      .toThrow("Bitmaps are of different sizes (destination size is 1048576, source size is 2097152) and can't be merged");
    await expect(mergeBitmaps(node, 'target', ['one', 'none'])).rejects.toThrow("Dirty bitmap 'none' not found");
    expect(target.sha256()).toBe(before);
    await mergeBitmaps(node, 'target', [{ node: other, name: 'second' }]);
    expect([target.count, target.get(65536)]).toEqual([3 * 512, true]);
  });

  test('removed in two steps: busy until it is decided', async () => {
    const node = nodeOf(MiB);
    await addBitmap(node, { name: 'a' });
    const first = await prepareRemoveBitmap(node, 'a');
    await expect(clearBitmap(node, 'a')).rejects.toThrow('in use');
    first.abort();
    await clearBitmap(node, 'a');
    (await prepareRemoveBitmap(node, 'a')).commit();
    expect([node.bitmaps.size, node.writeObservers.size]).toEqual([0, 0]);
  });
});
