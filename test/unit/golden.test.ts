/** Images that QEMU 7.2 wrote (fixtures/make-golden.sh) read as what was written into them, with no QEMU at hand. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { checkStreamEnd, openImage, type BlockNode } from '../../src/index.js';
import { repository } from '../support/run.js';

const fixtures = join(repository, 'fixtures');
const golden = JSON.parse(readFileSync(join(fixtures, 'golden.json'), 'utf8')) as Record<string, { sha256?: string }>;
const KIB = 1024;

/** [from, to, byte] in KiB; what no pattern covers is zero. */
type Pattern = readonly [from: number, to: number, byte: number];

async function expectDisk(image: string, patterns: readonly Pattern[], snapshot?: string): Promise<void> {
  const node = await openImage(join(fixtures, image), { readOnly: true, snapshot });
  try {
    const expected = new Uint8Array(node.length());
    for (const [from, to, byte] of patterns) expected.fill(byte, from * KIB, to * KIB);
    expect(Buffer.compare(await readAll(node), expected)).toBe(0);
    expect(await node.driver.check!({})).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
  } finally {
    await node.close();
  }
}

async function readAll(node: BlockNode): Promise<Uint8Array> {
  const all = new Uint8Array(node.length());
  await node.read(0, all);
  return all;
}

describe('golden images', () => {
  test.each(Object.entries(golden).filter(([, { sha256 }]) => sha256 !== undefined))('%s is the file that its recipe made', (name, { sha256 }) => {
    expect(createHash('sha256').update(readFileSync(join(fixtures, name))).digest('hex')).toBe(sha256);
  });

  test('version 2: the active disk and its snapshot', async () => {
    await expectDisk('v2-snapshot.qcow2', [[0, 16, 1], [8, 20, 3], [40, 41, 2]]);
    await expectDisk('v2-snapshot.qcow2', [[0, 16, 1], [40, 41, 2]], 'first');
  });

  test('zero clusters, discarded clusters, 4-bit refcounts', async () => {
    await expectDisk('v3-zero.qcow2', [[0, 64, 4], [4, 12, 0], [20, 24, 0], [32, 36, 0], [255, 256, 5]]);
  });

  test('compressed clusters', async () => {
    await expectDisk('compressed.qcow2', [[0, 64, 'q'.charCodeAt(0)]]);
  });

  test('persistent bitmaps, with the checksums that QEMU tells of them', async () => {
    await expectDisk('bitmaps.qcow2', [[3, 5, 6], [100, 100.5, 7]]);
    const node = await openImage(join(fixtures, 'bitmaps.qcow2'), { readOnly: true });
    expect([...node.bitmaps].map(({ name, granularity, enabled, count }) => [name, granularity, enabled, count])).toEqual([
      ['fine', 512, true, 5 * 512], ['disabled', 4096, false, 2 * 4096],
    ]);
    expect([...node.bitmaps].map((bitmap) => bitmap.sha256())).toEqual([
      '88b337afb7962041d12e8d54bc22f0a3bfec0ca441e5e898b35667bdae23578a', '35be322d094f9d154a8aba4733b8497f180353bd7ae7b0a15f90b586b549f28b',
    ]);
    await node.close();
  });

  test('the RAM state that savevm wrote', async () => {
    const node = await openImage(join(fixtures, 'savevm.qcow2'), { readOnly: true });
    const [snapshot] = node.driver.snapshots!.list();
    const state = await node.driver.snapshots!.openVmState(snapshot!.id);
    expect(snapshot).toMatchObject({ name: 'golden', vmStateSize: state.size });
    expect(await checkStreamEnd(state, state.size)).toBe('qemu');
    await node.close();
  });
});
