/** What goes through a pipe from one file to another, and what ends up in memory instead. */
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { Random } from '../../../src/base/clock.js';
import { MOST_PIPED_PAGES, PipeBuffer, PipePool } from '../../../src/base/pipe-buffer.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const opened: number[] = [];
let pipe: PipeBuffer;

beforeEach(() => { pipe = PipeBuffer.open()!; });
afterEach(() => {
  pipe.close();
  for (const fd of opened.splice(0)) closeSync(fd);
});

function open(name: string, flags: string): number {
  opened.push(openSync(tmp(name), flags));
  return opened.at(-1)!;
}

function content(bytes: number): Buffer {
  const made = Buffer.alloc(bytes);
  new Random(bytes).fill(made);
  writeFileSync(tmp('from'), made);
  return made;
}

test.each([[0, 4096], [4096, 256 * KiB + 5], [0, MOST_PIPED_PAGES], [77, 1000]])('from %i, %i bytes get from one place in a file to one in another', async (offset, bytes) => {
  const made = content(offset + bytes);
  const memory = new Uint8Array(bytes);
  const to = open('to', 'w+');
  pipe.begin(memory, 0);
  expect(await pipe.pullFile(open('from', 'r'), offset)).toBe(true);
  expect([pipe.inKernel, pipe.filled, pipe.left]).toEqual([true, bytes, bytes]);
  expect(await pipe.pushFile(to, 12_345)).toBeNull();
  expect(readFileSync(tmp('to')).subarray(12_345).equals(made.subarray(offset))).toBe(true);
  expect(memory.every((byte) => byte === 0)).toBe(true);
});

test('at once, where nothing has to be waited for', () => {
  const made = content(256 * KiB);
  const [from, to] = [open('from', 'r'), open('to', 'w')];
  pipe.begin(new Uint8Array(200 * KiB), 0);
  expect(pipe.pullFileNow(from, 7)).toBe(true);
  pipe.pushFileNow(to, 0);
  expect([pipe.inKernel, pipe.left]).toEqual([true, 0]);
  expect(readFileSync(tmp('to')).equals(made.subarray(7, 7 + 200 * KiB))).toBe(true);
  pipe.begin(new Uint8Array(64 * KiB), 0);
  expect(pipe.pullFileNow(from, 200 * KiB)).toBe(false);
  expect([pipe.inKernel, pipe.left]).toEqual([false, 0]);
});

test('where the file or the pipe ends too early, it is empty and in memory', async () => {
  content(10_000);
  const from = open('from', 'r');
  pipe.begin(new Uint8Array(8192), 0);
  expect(await pipe.pullFile(from, 4096)).toBe(false);
  expect([pipe.inKernel, pipe.left]).toEqual([false, 0]);
  truncateSync(tmp('from'), 2 * MOST_PIPED_PAGES);
  // off the pages, one more than there are places
  pipe.begin(new Uint8Array(MOST_PIPED_PAGES), 0);
  expect(await pipe.pullFile(from, 100)).toBe(false);
  expect([pipe.inKernel, pipe.left]).toEqual([false, 0]);
});

test('what a file does not take comes into its place in memory', async () => {
  const made = content(64 * KiB);
  const memory = new Uint8Array(64 * KiB);
  pipe.begin(memory, 0);
  expect(await pipe.pullFile(open('from', 'r'), 0)).toBe(true);
  const rest = await pipe.pushFile(open('from', 'r'), 0);
  expect(rest!.byteLength).toBe(64 * KiB);
  expect(made.equals(memory)).toBe(true);
  expect(pipe.inKernel).toBe(false);
});

test('a descriptor that cannot be read is an error', async () => {
  content(4096);
  pipe.begin(new Uint8Array(4096), 0);
  await expect(pipe.pullFile(open('from', 'a'), 0)).rejects.toMatchObject({ code: 'EBADF' });
});

test('more at once than host calls may be', async () => {
  const made = content(40 * 64 * KiB);
  const [from, to] = [open('from', 'r'), open('to', 'w')];
  const pool = new PipePool();
  await Promise.all(Array.from({ length: 40 }, async (_, index) => {
    const one = pool.take(new Uint8Array(64 * KiB))!;
    expect(await one.pullFile(from, index * 64 * KiB)).toBe(true);
    expect(await one.pushFile(to, index * 64 * KiB)).toBeNull();
    pool.give(one);
  }));
  pool.close();
  expect(pool.take(new Uint8Array(1))).toBeUndefined();
  expect(readFileSync(tmp('to')).equals(made)).toBe(true);
});
