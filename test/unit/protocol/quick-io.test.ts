import fs, { mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { BufferPool } from '../../../src/base/buffer-pool.js';
import { DONE } from '../../../src/base/done.js';
import { BlockNode } from '../../../src/block/node.js';
import { makeRequest } from '../../../src/block/request.js';
import { openFileDriver } from '../../../src/protocol/file.js';
import { quickIo } from '../../../src/protocol/quick-io.js';
import { useTmp } from '../../support/tmp.js';

const TMPFS_MAGIC = 0x0102_1994;
const SHM = '/dev/shm';
const hasTmpfs = fs.existsSync(SHM) && statfsSync(SHM).type === TMPFS_MAGIC;
const KiB = 1024;
const tmp = useTmp();

async function arena(bytes: number): Promise<Uint8Array> {
  return (await new BufferPool(bytes).lease(bytes)).buffer;
}

/** A file just written, so that its pages are in the cache. */
function cachedFile(path: string, bytes: Uint8Array): number {
  fs.writeFileSync(path, bytes);
  return fs.openSync(path, 'r+');
}

describe('reads from the page cache', () => {
  test('into arena memory end at once, with the right bytes', async () => {
    const content = Buffer.from(Array.from({ length: 16 * KiB }, (_, index) => index % 251));
    const fd = cachedFile(tmp('file'), content);
    const into = (await arena(64 * KiB)).subarray(4096, 4096 + 5000);
    expect(quickIo(fd, { inMemory: false, direct: false })!.read(into, 777)).toBe(true);
    expect(Buffer.compare(into, content.subarray(777, 5777))).toBe(0);
    fs.closeSync(fd);
  });

  test('past the end, into other memory and of large ranges are left to the thread pool', async () => {
    const fd = cachedFile(tmp('file'), Buffer.alloc(256 * KiB, 1));
    const quick = quickIo(fd, { inMemory: false, direct: false })!;
    const memory = await arena(256 * KiB);
    expect(quick.read(memory.subarray(0, 4096), 256 * KiB - 100)).toBe(false);
    expect(quick.read(new Uint8Array(4096), 0)).toBe(false);
    expect(quick.read(memory.subarray(0, 128 * KiB), 0)).toBe(false);
    fs.closeSync(fd);
  });

  test('are not asked for behind O_DIRECT, where every read waits for the device', () => {
    expect(quickIo(0, { inMemory: false, direct: true })).toBeNull();
  });
});

test('a caller that awaits one cached read after the other lets timers run', async () => {
  const path = tmp('file');
  fs.closeSync(cachedFile(path, Buffer.alloc(64 * KiB, 1)));
  await using node = new BlockNode({ name: 'file', driver: await openFileDriver(path) });
  const buffer = await arena(4096);
  let fired = false;
  setTimeout(() => { fired = true; }, 5);
  let reads = 0;
  while (!fired && reads < 5_000_000) {
    await node.read((reads % 16) * 4096, buffer);
    reads++;
  }
  expect(fired).toBe(true);
});

(hasTmpfs ? describe : describe.skip)('on tmpfs', () => {
  const directory = hasTmpfs ? mkdtempSync(join(SHM, 'quiesce-test-')) : '';
  afterAll(() => { rmSync(directory, { recursive: true, force: true }); });

  test.each([false, true])('small requests end at once, growing ones too (O_DIRECT: %p)', async (direct) => {
    const driver = await openFileDriver(join(directory, 'file'), { create: true, direct });
    const buffer = await arena(8192);
    buffer.fill(7);
    const settled = new Promise((resume) => setImmediate(resume)); // a turn of its own, with its whole budget
    await settled;
    expect(driver.submit(makeRequest('write', 4096, 8192, buffer))).toBe(DONE);
    expect(driver.length()).toBe(12_288);
    buffer.fill(0);
    expect(driver.submit(makeRequest('read', 4096, 8192, buffer))).toBe(DONE);
    expect(buffer.every((byte) => byte === 7)).toBe(true);
    await driver.close();
  });

  test('what fails or is cut short at once is told by the thread pool', async () => {
    const driver = await openFileDriver(join(directory, 'file'), { create: true });
    const buffer = await arena(4096);
    buffer.fill(9);
    await driver.submit(makeRequest('read', 0, 4096, buffer)); // past the end: zeros
    expect(buffer.every((byte) => byte === 0)).toBe(true);
    await driver.close();
    const readOnly = await openFileDriver(join(directory, 'file'), { readOnly: true });
    await expect(readOnly.submit(makeRequest('write', 0, 4096, buffer))).rejects.toMatchObject({ errno: 'EBADF', message: expect.stringContaining('Could not write') });
    await readOnly.close();
  });
});
