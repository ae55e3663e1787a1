import fs from 'node:fs';
import { constants } from 'node:os';
import { expect, jest, test } from '@jest/globals';
import { BufferPool } from '../../../src/base/buffer-pool.js';
import { uring, type Uring } from '../../../src/base/uring.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const MANY = 400;

/** Containers may forbid io_uring; the engine then does without, and so must this file. */
const ring = uring();
const testRing = ring === null ? test.skip : test;

async function arena(bytes: number): Promise<Uint8Array> {
  return (await new BufferPool(bytes).lease(bytes)).buffer;
}

function openFile(bytes: number): number {
  fs.writeFileSync(tmp('file'), Buffer.from(Array.from({ length: bytes }, (_, index) => index % 251)));
  return fs.openSync(tmp('file'), 'r+');
}

function read(fd: number, into: Uint8Array, offset: number): Promise<number> {
  return new Promise((resolve) => { expect((ring as Uring).read(fd, into, offset, resolve)).toBe(true); });
}

testRing('reads and writes the right bytes, and tells how many there were', async () => {
  const fd = openFile(20_000);
  const buffer = await arena(8 * KiB);
  expect(await read(fd, buffer, 5000)).toBe(8 * KiB);
  expect(Buffer.compare(buffer, fs.readFileSync(tmp('file')).subarray(5000, 5000 + 8 * KiB))).toBe(0);
  expect(await read(fd, buffer, 20_000 - 100)).toBe(100);
  expect(await read(fd, buffer, 30_000)).toBe(0);
  buffer.fill(9);
  expect(await new Promise((resolve) => { (ring as Uring).write(fd, buffer.subarray(0, 4096), 777, resolve); })).toBe(4096);
  expect(fs.readFileSync(tmp('file')).subarray(776, 4874).every((byte, index) => (byte === 9) === (index > 0 && index <= 4096))).toBe(true);
  fs.closeSync(fd);
});

testRing('errors are negative numbers; other memory than an arena is refused', async () => {
  expect(await read(1_000_000, await arena(4096), 0)).toBe(-constants.errno.EBADF);
  expect((ring as Uring).read(0, new Uint8Array(4096), 0, () => undefined)).toBe(false);
});

testRing('more requests than fit are refused, never lost; later there is room again', async () => {
  const fd = openFile(64 * KiB);
  const memory = await arena(MANY * 512);
  const done: Promise<number>[] = [];
  let refused = 0;
  for (let index = 0; index < MANY; index++) {
    const into = memory.subarray(index * 512, (index + 1) * 512);
    done.push(new Promise((resolve) => {
      if ((ring as Uring).read(fd, into, (index % 128) * 512, resolve)) return;
      refused++;
      resolve(0);
    }));
  }
  const moved = await Promise.all(done);
  expect(refused).toBeGreaterThan(0);
  expect(moved.filter((bytes) => bytes === 512)).toHaveLength(MANY - refused);
  expect(await read(fd, memory.subarray(0, 512), 0)).toBe(512);
  fs.closeSync(fd);
});

test('QUIESCE_NO_URING=1 and a kernel without it mean that there is none', async () => {
  process.env['QUIESCE_NO_URING'] = '1';
  try {
    await jest.isolateModulesAsync(async () => {
      const fresh = await import('../../../src/base/uring.js');
      expect(fresh.uring()).toBeNull();
    });
  } finally {
    delete process.env['QUIESCE_NO_URING'];
  }
});

