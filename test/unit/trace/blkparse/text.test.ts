/** Numbers as C prints them. */
import { expect, test } from '@jest/globals';
import { Random } from '../../../../src/base/clock.js';
import { TextBuffer } from '../../../../src/trace/blkparse/text.js';
import { compareVersions } from '../../../../src/trace/blkparse/version-compare.js';

test('numbers of all lengths, padded on either side', () => {
  const random = new Random(1);
  const out = new TextBuffer();
  const values = [0, 1, 9, 10, 99, 100, 999, 9999, 10_000, 99_999, 100_000, 2 ** 31, 2 ** 32, 2 ** 53 - 1, -1, -12_345, -(2 ** 40)];
  for (let index = 0; index < 2000; index++) values.push(random.below(10 ** random.below(16)));
  for (const value of values) {
    const text = String(value);
    for (const width of [0, 1, 8, -8, 20]) {
      out.reserve(64);
      out.number(value, width);
      expect(Buffer.from(out.take()).toString()).toBe(width < 0 ? text.padEnd(-width) : text.padStart(width));
    }
  }
});

test('nanoseconds have nine digits', () => {
  const out = new TextBuffer();
  for (const value of [0, 1, 9999, 10_000, 123_456_789, 999_999_999]) {
    out.nanoseconds(value);
    expect(Buffer.from(out.take()).toString()).toBe(String(value).padStart(9, '0'));
  }
});

test('text larger than the buffer', () => {
  const out = new TextBuffer();
  out.text('x');
  out.text('y'.repeat(3_000_000));
  expect(out.ripe).toBe(true);
  expect(out.take()).toHaveLength(3_000_001);
  expect(out.ripe).toBe(false);
});

test('names sort as strverscmp sorts them', () => {
  const sorted = ['', '000', '00', '01', '010', '09', '0', '1', '9', '10', 'a', 'a000', 'a00', 'a01', 'a0', 'a1', 'a2', 'a10', 'b'];
  const bytes = (text: string): Uint8Array => Buffer.from(text);
  for (const [i, a] of sorted.entries()) for (const [j, b] of sorted.entries()) expect([a, b, Math.sign(compareVersions(bytes(a), bytes(b)))]).toEqual([a, b, Math.sign(i - j)]);
});
