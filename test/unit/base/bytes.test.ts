import { describe, expect, test } from '@jest/globals';
import {
  alignDown, alignUp, beforeZeros, divCeil, formatRange, formatSize, getU64, isPowerOfTwo, parseSize, setU64, viewOf,
} from '../../../src/base/bytes.js';

test('alignment holds beyond 2^32 and 2^52', () => {
  expect(alignDown(2 ** 43 + 5, 4096)).toBe(2 ** 43);
  expect(alignUp(2 ** 43 + 5, 4096)).toBe(2 ** 43 + 4096);
  expect(alignUp(2 ** 43, 4096)).toBe(2 ** 43);
  expect(alignUp(0, 512)).toBe(0);
  expect(alignDown(Number.MAX_SAFE_INTEGER, 2)).toBe(Number.MAX_SAFE_INTEGER - 1);
  expect(divCeil(2 ** 40 + 1, 65536)).toBe(2 ** 24 + 1);
});

test('powers of two', () => {
  expect([1, 2, 512, 2 ** 31, 2 ** 32, 2 ** 52].every(isPowerOfTwo)).toBe(true);
  expect([0, -1, -2, 0.5, 3, 511, 2 ** 32 + 1, Number.NaN, Infinity].some(isPowerOfTwo)).toBe(false);
});

test('64-bit words go through numbers up to 2^53-1 and are refused above', () => {
  const view = viewOf(new Uint8Array(24).subarray(8));
  for (const value of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 43 + 7, Number.MAX_SAFE_INTEGER]) {
    setU64(view, 8, value);
    expect(view.getBigUint64(8)).toBe(BigInt(value));
    expect(getU64(view, 8)).toBe(value);
  }
  view.setBigUint64(8, 2n ** 53n);
  expect(getU64(view, 8)).toBeUndefined();
  view.setBigUint64(8, 2n ** 64n - 1n);
  expect(getU64(view, 8)).toBeUndefined();
});

describe('parseSize', () => {
  test.each([
    ['0', 0], ['512', 512], ['512B', 512], ['64K', 65536], ['64k', 65536], ['1.5M', 1572864], ['10G', 10 * 2 ** 30], ['8T', 2 ** 43],
    ['0x1000', 4096], ['0X10', 16], ['1P', 2 ** 50], ['9007199254740991', Number.MAX_SAFE_INTEGER],
  ])('%s is %d bytes', (text, bytes) => {
    expect(parseSize(text, 'size')).toBe(bytes);
  });

  test.each(['', ' ', '-1', '1e3', '1.', '.5', '1KB', '1KiB', '0x', '0xg', '10 G', '9007199254740992', '1E', '99999999E', '0x20000000000000', 'NaN'])(
    'refuses %j in one line that names it', (text) => {
      const attempt = (): number => parseSize(text, '--size');
      expect(attempt).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
      expect(attempt).toThrow(/^--size: .*, got '.*' \(use a size like 512, 64K, 1\.5M or 10G\)$/);
    });
});

test.each([
  [0, '0 B'], [999, '999 B'], [1023, '0.999 KiB'], [1024, '1 KiB'], [65536, '64 KiB'], [1536, '1.5 KiB'], [10 * 2 ** 30, '10 GiB'],
  [200704, '196 KiB'], [2 ** 43, '8 TiB'],
])('%d bytes print as qemu-img prints them: %s', (bytes, text) => {
  expect(formatSize(bytes)).toBe(text);
});

test('ranges are half open and hexadecimal', () => {
  expect(formatRange(4096, 4096)).toBe('[0x1000, 0x2000)');
});

test.each([0, 1, 511, 4096, 10_000, 65_536])('the zeros at the end of %d bytes are found to a step of 4 KiB', (bytes) => {
  expect(beforeZeros(new Uint8Array(bytes))).toBe(0);
  for (const last of [0, 1, 4095, 4096, bytes - 4097, bytes - 4096, bytes - 1].filter((at) => at >= 0 && at < bytes)) {
    const some = new Uint8Array(bytes + 3).subarray(3);
    some[last] = 1;
    expect(beforeZeros(some)).toBeGreaterThan(last);
    expect(beforeZeros(viewOf(some))).toBeLessThanOrEqual(last + 4096);
  }
});
