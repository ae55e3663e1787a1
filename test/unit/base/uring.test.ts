import fs from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { afterAll, expect, jest, test } from '@jest/globals';
import { BufferPool } from '../../../src/base/buffer-pool.js';
import { RingUser } from '../../../src/base/uring.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
const MANY = 400;

/** Containers may forbid io_uring; the engine then does without, and so must this file. */
const ring = new RingUser();
const probe = (await new BufferPool(4096).lease(4096)).buffer;
const works = await new Promise<boolean>((resolve) => { if (!ring.read(-1, probe, 0, () => resolve(true))) resolve(false); });
const testRing = works ? test : test.skip;
afterAll(() => { ring.close(); });

async function arena(bytes: number): Promise<Uint8Array> {
  return (await new BufferPool(bytes).lease(bytes)).buffer;
}

function openFile(bytes: number): number {
  fs.writeFileSync(tmp('file'), Buffer.from(Array.from({ length: bytes }, (_, index) => index % 251)));
  return fs.openSync(tmp('file'), 'r+');
}

function read(fd: number, into: Uint8Array, offset: number): Promise<number> {
  return new Promise((resolve) => { expect(ring.read(fd, into, offset, resolve)).toBe(true); });
}

testRing('reads and writes the right bytes, and tells how many there were', async () => {
  const fd = openFile(20_000);
  const buffer = await arena(8 * KiB);
  expect(await read(fd, buffer, 5000)).toBe(8 * KiB);
  expect(Buffer.compare(buffer, fs.readFileSync(tmp('file')).subarray(5000, 5000 + 8 * KiB))).toBe(0);
  expect(await read(fd, buffer, 20_000 - 100)).toBe(100);
  expect(await read(fd, buffer, 30_000)).toBe(0);
  buffer.fill(9);
  expect(await new Promise((resolve) => { ring.write(fd, buffer.subarray(0, 4096), 777, resolve); })).toBe(4096);
  expect(fs.readFileSync(tmp('file')).subarray(776, 4874).every((byte, index) => (byte === 9) === (index > 0 && index <= 4096))).toBe(true);
  fs.closeSync(fd);
});

testRing('a write and its sync: the sync is cancelled where the write failed', async () => {
  const fd = openFile(20_000);
  const from = (await arena(4096)).fill(5);
  const both = (to: number): Promise<[number, number]> => new Promise((resolve) => {
    let [moved, synced, ended] = [0, 0, 0];
    const end = (): void => { if (++ended === 2) resolve([moved, synced]); };
    expect(ring.writeAndSync(to, from, 100, (result) => { moved = result; end(); }, (result) => { synced = result; end(); })).toBe(true);
  });
  expect(await both(fd)).toEqual([4096, 0]);
  expect(fs.readFileSync(tmp('file')).subarray(100, 4196).every((byte) => byte === 5)).toBe(true);
  const readOnly = fs.openSync(tmp('file'), 'r');
  expect(await both(readOnly)).toEqual([-constants.errno.EBADF, -constants.errno.ECANCELED]);
  const sync = (of: number): Promise<number> => new Promise((resolve) => { expect(ring.sync(of, resolve)).toBe(true); });
  expect([await sync(fd), await sync(1_000_000)]).toEqual([0, -constants.errno.EBADF]);
  fs.closeSync(readOnly);
  fs.closeSync(fd);
});

testRing('errors are negative numbers; other memory than an arena is refused', async () => {
  expect(await read(1_000_000, await arena(4096), 0)).toBe(-constants.errno.EBADF);
  expect(ring.read(0, new Uint8Array(4096), 0, () => undefined)).toBe(false);
});

testRing('more requests than fit are refused, never lost; later there is room again', async () => {
  const fd = openFile(64 * KiB);
  const memory = await arena(MANY * 512);
  const done: Promise<number>[] = [];
  let refused = 0;
  for (let index = 0; index < MANY; index++) {
    const into = memory.subarray(index * 512, (index + 1) * 512);
    done.push(new Promise((resolve) => {
      if (ring.read(fd, into, (index % 128) * 512, resolve)) return;
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

testRing('closed by its last user it leaves no descriptor behind, and comes again with the next', async () => {
  const fd = openFile(4096);
  const into = await arena(512);
  const cycle = async (): Promise<void> => {
    await jest.isolateModulesAsync(async () => {
      const pool = await import('../../../src/base/buffer-pool.js');
      const fresh = await import('../../../src/base/uring.js');
      const { buffer } = await new pool.BufferPool(512).lease(512);
      for (let turn = 0; turn < 3; turn++) {
        const [one, two] = [new fresh.RingUser(), new fresh.RingUser()];
        for (const user of [one, two]) expect(await new Promise((resolve) => { expect(user.read(fd, buffer, 0, resolve)).toBe(true); })).toBe(512);
        one.close();
        expect(await new Promise((resolve) => { expect(two.read(fd, buffer, 0, resolve)).toBe(true); })).toBe(512);
        two.close();
        expect(two.read(fd, buffer, 0, () => undefined)).toBe(false);
      }
    });
    await new Promise((resolve) => setImmediate(resolve)); // a handle closes in a turn of its own
  };
  await cycle();
  const before = fs.readdirSync('/proc/self/fd').length;
  await cycle();
  expect(fs.readdirSync('/proc/self/fd')).toHaveLength(before);
  expect(await read(fd, into, 0)).toBe(512);
  fs.closeSync(fd);
});

test('QUIESCE_NO_URING=1 means that no request is taken', async () => {
  process.env['QUIESCE_NO_URING'] = '1';
  try {
    await jest.isolateModulesAsync(async () => {
      const pool = await import('../../../src/base/buffer-pool.js');
      const fresh = await import('../../../src/base/uring.js');
      const { buffer } = await new pool.BufferPool(512).lease(512);
      expect(new fresh.RingUser().read(0, buffer, 0, () => undefined)).toBe(false);
    });
  } finally {
    delete process.env['QUIESCE_NO_URING'];
  }
});

// the last one: it takes the ring of the others away
testRing('what has ended is found although nobody was woken for it', async () => {
  ring.close();
  const { Pipe } = (createRequire(import.meta.url)('node:process') as unknown as { binding(name: string): { Pipe: { prototype: { readStart?: () => number } } } }).binding('pipe_wrap');
  Pipe.prototype.readStart = () => 0;
  const deaf = new RingUser();
  const fd = openFile(64 * KiB);
  const buffer = await arena(4 * KiB);
  try {
    // where writes wait for a thread of the kernel, they have not ended when they were asked for
    for (let turn = 0; turn < 3; turn++) {
      expect(await new Promise((resolve) => { expect(deaf.write(fd, buffer.fill(turn), turn * 4 * KiB, resolve)).toBe(true); })).toBe(4 * KiB);
    }
    expect(fs.readFileSync(tmp('file')).subarray(4 * KiB, 8 * KiB).every((byte) => byte === 1)).toBe(true);
  } finally {
    delete Pipe.prototype.readStart;
    deaf.close();
    fs.closeSync(fd);
  }
}, 60_000);
