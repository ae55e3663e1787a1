/** What the comparison after a mirror finds. */
import { truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { openImage } from '../../../../src/index.js';
import { compareNodes } from '../../../../src/job/mirror/verify.js';
import { useTmp } from '../../../support/tmp.js';

const tmp = useTmp();
const SIZE = 5 * 1024 ** 2 + 512;

async function compare(holds: Readonly<Record<'one' | 'other', readonly (readonly [at: number, bytes: number])[]>>, signal?: AbortSignal): Promise<void> {
  for (const name of ['one', 'other'] as const) {
    const data = Buffer.alloc(SIZE);
    for (const [at, bytes] of holds[name]) data.fill(7, at, at + bytes);
    writeFileSync(tmp(name), data.subarray(0, holds[name].length === 0 ? 0 : SIZE));
    truncateSync(tmp(name), SIZE);
  }
  const [one, other] = [await openImage(tmp('one'), { readOnly: true, format: 'raw' }), await openImage(tmp('other'), { readOnly: true, format: 'raw' })];
  try {
    await compareNodes(one, other, signal);
  } finally {
    await one.close();
    await other.close();
  }
}

test('equal disks, and zeros that are stored beside holes', async () => {
  await compare({ one: [[4096, 512]], other: [[4096, 512]] });
  await compare({ one: [[0, 0]], other: [] });
});

test.each([
  ['the first sector', [[0, 1]], 0, 512],
  ['the last sector', [[SIZE - 1, 1]], SIZE - 512, 512],
  ['a run within a chunk', [[1024 ** 2 + 1024, 1536]], 1024 ** 2 + 1024, 1536],
  ['the first of several', [[3 * 1024 ** 2, 512], [2 * 1024 ** 2 + 512, 600]], 2 * 1024 ** 2 + 512, 1024],
] as const)('%s', async (_, found, offset, bytes) => {
  await expect(compare({ one: found, other: [] })).rejects.toMatchObject({ code: 'CORRUPT', message: expect.stringContaining(`differ in ${bytes} bytes at ${offset}`) });
});

test('it can be given up', async () => {
  await expect(compare({ one: [[0, 1]], other: [] }, AbortSignal.abort(new Error('enough')))).rejects.toThrow('enough');
});
