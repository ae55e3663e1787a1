import { expect, test } from '@jest/globals';
import { CACHE_MODES, parseCacheMode } from '../../../src/protocol/cache-mode.js';

test('the modes mean what they mean in QEMU', () => {
  const table = Object.entries(CACHE_MODES).map(([name, { direct, writethrough, noFlush }]) => [name, direct, writethrough, noFlush]);
  expect(table).toEqual([
    ['writeback', false, false, false],
    ['none', true, false, false],
    ['writethrough', false, true, false],
    ['directsync', true, true, false],
    ['unsafe', false, false, true],
  ]);
  expect(parseCacheMode('none')).toBe(CACHE_MODES.none);
});

test.each(['', 'None', 'toString', 'writeback '])('%j is no cache mode', (text) => {
  expect(() => parseCacheMode(text))
    .toThrow(`Invalid cache mode '${text}': expected one of writeback, none, writethrough, directsync, unsafe`);
});
