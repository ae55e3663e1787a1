/** Bitmaps of an image that is made read-only and writable again while it stays open. */
import { copyFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { addBitmap, BlockGraph, clearBitmap, createImage, openBlockdev, reopenBlockdevs } from '../../src/index.js';
import { qemuFindsNothing } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { qemuBitmaps, qemuSha256 } from '../support/qemu-bitmaps.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const MiB = 2 ** 20;

peers('qemu-img', 'qemu-storage-daemon')('a reopened image', () => {
  test('has its bitmaps stored while it is read-only, and in use from its next write on', async () => {
    const path = tmp('disk.qcow2');
    await createImage(path, { format: 'qcow2', size: 64 * MiB });
    const graph = new BlockGraph();
    const options = { driver: 'qcow2', 'node-name': 'disk', file: { driver: 'file', filename: path } };
    const disk = await openBlockdev(graph, options);
    const looked = async (): Promise<string> => {
      const copy = tmp('copy.qcow2');
      copyFileSync(path, copy);
      await qemuFindsNothing(copy);
      const [bitmap] = await qemuBitmaps(copy);
      return bitmap === undefined ? 'none' : bitmap.inconsistent === true ? 'in use' : await qemuSha256(copy, 'a');
    };
    await addBitmap(disk, { name: 'a', persistent: true, granularity: 512 });
    await addBitmap(disk, { name: 'memory' });
    await disk.write(5 * MiB, new Uint8Array(1000));
    expect(await looked()).toBe('none'); // nothing of it is on the disk yet
    const reopen = (readOnly: boolean): Promise<void> => reopenBlockdevs(graph, [{ ...options, 'read-only': readOnly }]);
    await reopen(true);
    const a = disk.bitmaps.get('a')!;
    expect(await looked()).toBe(a.sha256());
    await expect(clearBitmap(disk, 'a')).rejects.toThrow("Bitmap 'a' is readonly and cannot be modified");
    await clearBitmap(disk, 'memory');
    await reopen(false);
    expect(await looked()).toBe(a.sha256());
    await disk.write(9 * MiB, new Uint8Array(1000));
    await disk.flush();
    expect(await looked()).toBe('in use');
    const job = a.createSuccessor();
    await disk.write(20 * MiB, new Uint8Array(1000));
    expect(job.count).toBe(1024);
    await reopen(true);
    await reopen(false);
    await disk.write(30 * MiB, new Uint8Array(1000));
    a.reclaim();
    const last = a.sha256();
    await graph.closeAll();
    expect(await looked()).toBe(last);
    expect((await qemuBitmaps(path)).map(({ name, count, recording }) => [name, count, recording])).toEqual([['a', 4 * 1024, true]]);
  });
});
