import { closeSync, fstatSync, openSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { MiB } from '../../../src/base/bytes.js';
import { Growth } from '../../../src/base/growth.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
let fd = -1;
beforeEach(() => { fd = openSync(tmp('file'), 'w+'); });
afterEach(() => closeSync(fd));

function grow(growth: Growth, end: number): Promise<void> | null {
  return growth.before(end - MiB, end - MiB, end);
}

describe('a growing file', () => {
  test('is left alone while it grows little', () => {
    expect(grow(new Growth(fd, 0), 3 * MiB)).toBeNull();
    expect(grow(new Growth(fd, 100 * MiB), 103 * MiB)).toBeNull();
    expect(fstatSync(fd).size).toBe(0);
  });

  test('is allocated ahead, in proportion to what it has grown', async () => {
    const growth = new Growth(fd, 0);
    await grow(growth, 8 * MiB);
    expect(fstatSync(fd)).toMatchObject({ size: 72 * MiB });
    expect(fstatSync(fd).blocks * 512).toBeGreaterThanOrEqual(72 * MiB);
    expect(grow(growth, 72 * MiB)).toBeNull();
    await grow(growth, 73 * MiB);
    expect(fstatSync(fd).size).toBe(585 * MiB);
  });

  test('is extended once for writes that come together', async () => {
    const growth = new Growth(fd, 0);
    await Promise.all([4, 5, 6, 7, 300].map(async (end) => grow(growth, end * MiB)));
    expect(fstatSync(fd).size).toBe(812 * MiB);
  });

  test('keeps the hole that a write far off leaves', async () => {
    const growth = new Growth(fd, 0);
    expect(growth.before(MiB, 1000 * MiB, 1001 * MiB)).toBeNull();
    await growth.before(1005 * MiB, 1007 * MiB, 1008 * MiB);
    expect(fstatSync(fd).size).toBe(1072 * MiB);
    expect(fstatSync(fd).blocks * 512).toBeLessThan(73 * MiB);
  });

  test('gives back what no write used', async () => {
    const growth = new Growth(fd, 0);
    await grow(growth, 8 * MiB);
    growth.trim(8 * MiB + 512);
    expect(fstatSync(fd).size).toBe(8 * MiB + 512);
    growth.trim(0); // nothing is allocated ahead any more: the file is its owner's
    expect(fstatSync(fd).size).toBe(8 * MiB + 512);
  });

  test('grows by its writes alone where allocating fails', async () => {
    const readOnly = openSync(tmp('file'), 'r');
    const growth = new Growth(readOnly, 0);
    await grow(growth, 8 * MiB);
    expect(grow(growth, 400 * MiB)).toBeNull();
    closeSync(readOnly);
  });
});
