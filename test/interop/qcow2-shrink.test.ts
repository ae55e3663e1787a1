/** Shrunken images: the same sizes by `qemu-img resize` and by ours, and each side reads what the other made. */
import { copyFileSync, statSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { addBitmap, resizeNode } from '../../src/index.js';
import { allAgree, qemuFindsNothing, weFindNothing, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { qemuBitmaps, qemuSha256 } from '../support/qemu-bitmaps.js';
import { quiesce, run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { Twin } from '../support/twin.js';

const tmp = useTmp();
const KiB = 1024;
const MiB = 1024 * KiB;

/** A disk of 24 MiB, written all over, and again with a snapshot in between. */
async function makeImage(path: string, clusterSize: number, compat: string, snapshot: boolean): Promise<void> {
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `cluster_size=${clusterSize},compat=${compat}`, path, '24M']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 1 0 24M', path]);
  if (!snapshot) return;
  await runOk('qemu-img', ['snapshot', '-c', 's', path]);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 2 3M 18M', path]);
}

function twinOf(size: number, snapshot: boolean): Twin {
  const twin = new Twin(tmp('twin.raw'), size);
  const data = Buffer.alloc(24 * MiB, 1);
  if (snapshot) data.fill(2, 3 * MiB, 21 * MiB);
  twin.write(0, data.subarray(0, size));
  return twin;
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('shrinking', () => {
  test.each([
    { clusterSize: 4 * KiB, compat: '1.1', snapshot: false }, { clusterSize: 64 * KiB, compat: '0.10', snapshot: false },
    { clusterSize: 4 * KiB, compat: '1.1', snapshot: true }, { clusterSize: 2 * MiB, compat: '1.1', snapshot: true },
  ])('with clusters of $clusterSize bytes, compat $compat, snapshot $snapshot', async ({ clusterSize, compat, snapshot }) => {
    const [ours, theirs] = [tmp('ours.qcow2'), tmp('theirs.qcow2')];
    await makeImage(ours, clusterSize, compat, snapshot);
    copyFileSync(ours, theirs);
    for (const size of [21 * MiB + 512, 8 * MiB, clusterSize + 2560, clusterSize]) {
      await withImage(ours, {}, (node) => resizeNode(node, size));
      await runOk('qemu-img', ['resize', '-q', '--shrink', '-f', 'qcow2', theirs, String(size)]);
      const twin = twinOf(size, snapshot);
      await allAgree(ours, twin);
      await allAgree(theirs, twin);
      // a cluster may be more: where ours puts its new tables
      expect(statSync(ours).size).toBeLessThanOrEqual(statSync(theirs).size + 2 * clusterSize);
    }
    await withImage(theirs, {}, (node) => resizeNode(node, 4 * MiB));
    await runOk('qemu-img', ['resize', '-q', '-f', 'qcow2', ours, '4M']);
    for (const path of [ours, theirs]) {
      const twin = new Twin(tmp('twin.raw'), 4 * MiB);
      twin.write(0, Buffer.alloc(clusterSize, 1)); // QEMU does not clear what is left in the last cluster when it grows
      await allAgree(path, twin);
      if (!snapshot) continue;
      await runOk('qemu-img', ['snapshot', '-a', 's', path]);
      await qemuFindsNothing(path);
      await withImage(path, { readOnly: true }, async (node) => {
        const disk = new Uint8Array(24 * MiB);
        expect(node.length()).toBe(disk.byteLength);
        await node.read(0, disk);
        expect(disk.every((byte) => byte === 1)).toBe(true);
      });
    }
  });

  test('cuts persistent bitmaps as QEMU does', async () => {
    const [ours, theirs] = [tmp('ours.qcow2'), tmp('theirs.qcow2')];
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', ours, '24M']);
    await withImage(ours, {}, async (node) => {
      await addBitmap(node, { name: 'b', granularity: 64 * KiB, persistent: true });
      await node.write(4 * MiB, new Uint8Array(3 * MiB));
      await node.write(20 * MiB, new Uint8Array(MiB));
    });
    copyFileSync(ours, theirs);
    await withImage(ours, {}, (node) => resizeNode(node, 5 * MiB + 512));
    await runOk('qemu-img', ['resize', '-q', '--shrink', '-f', 'qcow2', theirs, String(5 * MiB + 512)]);
    for (const size of [null, 24 * MiB]) {
      if (size !== null) {
        await withImage(theirs, {}, (node) => resizeNode(node, size));
        await runOk('qemu-img', ['resize', '-q', '-f', 'qcow2', ours, String(size)]);
      }
      expect(await qemuBitmaps(ours)).toEqual(await qemuBitmaps(theirs));
      expect(await qemuSha256(ours, 'b')).toBe(await qemuSha256(theirs, 'b'));
      for (const path of [ours, theirs]) {
        await qemuFindsNothing(path);
        await weFindNothing(path);
      }
    }
  });

  test('image resize takes what qemu-img resize takes, and refuses what it refuses in the same words', async () => {
    const [ours, theirs] = [tmp('ours'), tmp('theirs')];
    const lines: readonly (readonly string[])[] = [
      ['IMAGE', '2M'], ['IMAGE', '1M'], ['--shrink', 'IMAGE', '1M'], ['--shrink', 'IMAGE', '--', '-512K'], ['-q', 'IMAGE', '+1536K'], ['--shrink', 'IMAGE', '0'],
      ['--shrink', 'IMAGE', '--', '-10M'], ['--preallocation=falloc', 'IMAGE', '3M'], ['--preallocation=full', '--shrink', 'IMAGE', '1M'], ['--preallocation=much', 'IMAGE', '4M'],
      ['--preallocation=metadata', 'IMAGE', '4M'], ['--preallocation=full', 'IMAGE', '+0'], ['IMAGE', '+0'], ['IMAGE', '4194305'],
    ];
    for (const format of ['qcow2', 'raw']) {
      for (const path of [ours, theirs]) await runOk('qemu-img', ['create', '-q', '-f', format, path, '1M']);
      for (const line of lines) {
        const words = (path: string): string[] => ['resize', '-f', format, ...line.map((word) => (word === 'IMAGE' ? path : word))];
        const [their, our] = [await run('qemu-img', words(theirs)), await quiesce(['image', ...words(ours)])];
        const said = (text: string): string[] => text.replaceAll(/^(?:qemu-img|quiesce): /gm, '').split('\n').sort();
        expect({ line, code: our.code, stdout: our.stdout, stderr: said(our.stderr) }).toEqual({ line, code: their.code, stdout: their.stdout, stderr: said(their.stderr) });
        expect(JSON.parse(await runOk('qemu-img', ['info', '--output=json', '-f', format, ours]))['virtual-size'])
          .toBe(JSON.parse(await runOk('qemu-img', ['info', '--output=json', '-f', format, theirs]))['virtual-size']);
      }
      if (format === 'qcow2') await qemuFindsNothing(ours);
    }
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', ours, '1M']);
    await runOk('qemu-img', ['snapshot', '-c', 's', ours]);
    for (const size of ['512K', '2M']) {
      const their = await run('qemu-img', ['resize', '--shrink', ours, size]);
      expect((await quiesce(['image', 'resize', '--shrink', ours, size])).stderr).toBe(their.stderr.replace('qemu-img:', 'quiesce:'));
      expect(their.code).toBe(1);
    }
  });
});
