/** Zero clusters and discards: what each side marks as zeros, the other maps and reads as zeros. */
import { expect, test } from '@jest/globals';
import { chainStatus, createImage, RequestFlag } from '../../src/index.js';
import { allAgree, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { Twin } from '../support/twin.js';

const tmp = useTmp();
const KiB = 1024;
const CLUSTER = 64 * KiB;
const SIZE = 16 * CLUSTER + 1000 * 512;

interface MapEntry {
  readonly start: number;
  readonly length: number;
  readonly zero: boolean;
  readonly data: boolean;
  readonly present: boolean;
  readonly offset?: number;
}

async function qemuMap(path: string): Promise<MapEntry[]> {
  return JSON.parse(await runOk('qemu-img', ['map', '--output=json', '-f', 'qcow2', path])) as MapEntry[];
}

/** Our status of what `qemu-img map` lists as one entry. */
async function mapsAgree(path: string): Promise<MapEntry[]> {
  const entries = await qemuMap(path);
  await withImage(path, { readOnly: true }, async (node) => {
    for (const { start, length, zero, data, offset } of entries) {
      for (let at = start; at < start + length;) {
        const status = await chainStatus(node, at, start + length - at);
        expect({ at, zero: status.kind !== 'data', host: status.hostOffset })
          .toEqual({ at, zero: zero && !data, host: data && offset !== undefined ? offset + at - start : undefined });
        at += status.bytes;
      }
    }
  });
  return entries;
}

async function filledImage(): Promise<{ path: string; twin: Twin }> {
  const path = tmp('image.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(SIZE)]);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', `write -q -P 0x77 0 ${SIZE}`, path]);
  const twin = new Twin(tmp('twin.raw'), SIZE);
  twin.write(0, Buffer.alloc(SIZE, 0x77));
  return { path, twin };
}

/** Whole clusters, the middle of one, over an edge, and the last, partial one. */
const RANGES = [[2 * CLUSTER, 2 * CLUSTER], [5 * CLUSTER + 512, 512], [7 * CLUSTER - 5, 10], [9 * CLUSTER - 7, 2 * CLUSTER], [SIZE - 3 * CLUSTER, 3 * CLUSTER]] as const;

peers('qemu-img', 'qemu-io')('zero clusters', () => {
  test.each(['-z', '-z -u'])('of qemu-io write %s', async (flags) => {
    const { path, twin } = await filledImage();
    await runOk('qemu-io', ['-f', 'qcow2', '-d', 'unmap', ...RANGES.flatMap(([offset, bytes]) => ['-c', `write -q ${flags} ${offset} ${bytes}`]), path]);
    for (const [offset, bytes] of RANGES) twin.zero(offset, bytes);
    await allAgree(path, twin);
    await mapsAgree(path);
    // a kept cluster is taken into use again, a freed one allocated anew
    await withImage(path, {}, (node) => node.write(3 * CLUSTER + 10, Buffer.alloc(100, 0x11)));
    twin.write(3 * CLUSTER + 10, Buffer.alloc(100, 0x11));
    await allAgree(path, twin);
  });

  test.each([0, RequestFlag.MAY_UNMAP])('of ours with flags %d', async (flags) => {
    const { path, twin } = await filledImage();
    await withImage(path, { discard: 'unmap' }, async (node) => {
      for (const [offset, bytes] of RANGES) await node.writeZeroes(offset, bytes, flags);
    });
    for (const [offset, bytes] of RANGES) twin.zero(offset, bytes);
    await allAgree(path, twin);
    await mapsAgree(path);
    await runOk('qemu-io', ['-f', 'qcow2', '-c', `write -q -P 0x11 ${3 * CLUSTER + 10} 100`, path]);
    twin.write(3 * CLUSTER + 10, Buffer.alloc(100, 0x11));
    await allAgree(path, twin);
  });

  test.each(['us', 'QEMU'])('that a discard by %s leaves', async (actor) => {
    const { path, twin } = await filledImage();
    if (actor === 'us') {
      await withImage(path, { discard: 'unmap' }, async (node) => { for (const [offset, bytes] of RANGES) await node.discard(offset, bytes); });
    } else {
      await runOk('qemu-io', ['-f', 'qcow2', '-d', 'unmap', ...RANGES.flatMap(([offset, bytes]) => ['-c', `discard -q ${offset} ${bytes}`]), path]);
    }
    for (const [offset, bytes] of RANGES) twin.apply({ op: 'discard', offset, bytes, seed: 0 }, CLUSTER);
    await allAgree(path, twin);
    const entries = await mapsAgree(path);
    expect(entries.find(({ start }) => start === 2 * CLUSTER)).toMatchObject({ length: 2 * CLUSTER, zero: true, data: false });
  });

  test('over a backing file hide it', async () => {
    const { path: base } = await filledImage();
    const path = tmp('top.qcow2');
    await createImage(path, { format: 'qcow2', backingFile: base, backingFormat: 'qcow2' });
    await withImage(path, {}, async (node) => {
      await node.writeZeroes(0, 2 * CLUSTER, RequestFlag.MAY_UNMAP);
      await node.discard(4 * CLUSTER, CLUSTER);
    });
    const twin = new Twin(tmp('top.raw'), SIZE);
    twin.write(0, Buffer.alloc(SIZE, 0x77));
    twin.zero(0, 2 * CLUSTER);
    twin.zero(4 * CLUSTER, CLUSTER);
    await allAgree(path, twin);
  });

  test('freed by us are given back to the file system', async () => {
    const { path } = await filledImage();
    const allocated = (): Promise<number> => withImage(path, { readOnly: true }, (node) => node.children[0]!.node.driver.allocatedBytes!());
    const before = await allocated();
    await withImage(path, { discard: 'unmap' }, (node) => node.discard(0, 8 * CLUSTER));
    expect(await allocated()).toBeLessThanOrEqual(before - 7 * CLUSTER);
  });
});
