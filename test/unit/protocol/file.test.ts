import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { BufferPool } from '../../../src/base/buffer-pool.js';
import { BlockNode } from '../../../src/block/node.js';
import { makeRequest, RequestFlag } from '../../../src/block/request.js';
import type { FileDriver } from '../../../src/protocol/file-driver.js';
import { openFileDriver, type FileOptions } from '../../../src/protocol/file.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const MiB = 1024 * 1024;
type Done = (error: Error | null, count?: number) => void;
afterEach(() => { jest.restoreAllMocks(); });

function open(options: FileOptions = {}): Promise<FileDriver> {
  return openFileDriver(tmp('image'), { create: true, ...options });
}

function write(driver: FileDriver, offset: number, bytes: Uint8Array): Promise<void> {
  return driver.submit(makeRequest('write', offset, bytes.byteLength, bytes));
}

async function read(driver: FileDriver, offset: number, bytes: number): Promise<Uint8Array> {
  const buffer = new Uint8Array(bytes).fill(0xee);
  await driver.submit(makeRequest('read', offset, bytes, buffer));
  return buffer;
}

function flush(driver: FileDriver): Promise<void> {
  return driver.submit(makeRequest('flush', 0, 0, null));
}

describe('opening', () => {
  test('names a missing file as QEMU does', async () => {
    const path = tmp('missing');
    await expect(openFileDriver(path)).rejects.toMatchObject({
      code: 'NOT_FOUND', errno: 'ENOENT', message: `Could not open '${path}': No such file or directory`,
    });
    expect(fs.existsSync(path)).toBe(false);
  });

  test('refuses what is neither a regular file nor a block device, and a FIFO without waiting for its other end', async () => {
    const [fifo, socket] = [tmp('fifo'), tmp('socket')];
    execFileSync('mkfifo', [fifo]);
    const server = net.createServer().listen(socket);
    await new Promise((resolve) => server.once('listening', resolve));
    for (const [path, found] of [[tmp(), 'a directory'], [fifo, 'a FIFO'], [socket, 'a socket'], ['/dev/zero', 'a character device']] as const) {
      for (const options of [{}, { readOnly: true }, { create: true }]) {
        await expect(openFileDriver(path, options)).rejects.toMatchObject({
          code: 'INVALID_ARGUMENT', message: `Could not open '${path}': expected a regular file or a block device, found ${found}`,
        });
      }
    }
    server.close();
  });

  test('refuses options that contradict each other, and names that the host could not have', async () => {
    await expect(open({ readOnly: true })).rejects.toThrow('cannot be created read-only');
    await expect(open({ forceShare: true })).rejects.toThrow('force-share needs a read-only open');
    await expect(openFileDriver('')).rejects.toThrow('a file name is expected');
    await expect(openFileDriver('a\0b')).rejects.toThrow('a file name is expected');
  });

  test('says so where the file system has no O_DIRECT', async () => {
    await expect(openFileDriver('/proc/version', { readOnly: true, direct: true })).rejects.toMatchObject({
      code: 'NOT_SUPPORTED', message: `Could not open '/proc/version': its file system does not support O_DIRECT, which the cache mode asks for`,
    });
  });

  test('create empties an existing file; a plain open keeps it', async () => {
    fs.writeFileSync(tmp('image'), 'content');
    const kept = await open({ create: false });
    expect(kept.length()).toBe(7);
    await kept.close();
    const emptied = await open();
    expect(emptied.length()).toBe(0);
    await emptied.close();
  });

  test('a refused open leaves no descriptor behind, and neither does a closed driver', async () => {
    const count = (): number => fs.readdirSync('/proc/self/fd').length;
    const driver = await open();
    const before = count();
    for (let i = 0; i < 5; i++) await expect(open()).rejects.toMatchObject({ code: 'LOCKED' });
    expect(count()).toBe(before);
    await driver.close();
    await driver.close();
    expect(count()).toBe(before - 1);
  });

  test('a closed driver refuses requests instead of using a descriptor that may be another file’s by now', async () => {
    const driver = await open();
    await driver.close();
    await expect(read(driver, 0, 1)).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(driver.blockStatus(0, 1)).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(driver.allocatedBytes()).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(driver.resize!(5)).rejects.toMatchObject({ code: 'CLOSED' });
  });
});

describe('short transfers', () => {
  const realRead = fs.read as (...args: unknown[]) => void;
  const realWrite = fs.write as (...args: unknown[]) => void;

  test('are continued until all is read and written', async () => {
    const driver = await open();
    const data = new Uint8Array(10_000).map((_, index) => index);
    jest.spyOn(fs, 'write').mockImplementation(((fd: number, buffer: Uint8Array, at: number, bytes: number, position: number, done: unknown) =>
      realWrite(fd, buffer, at, Math.min(bytes, 3000), position, done)) as never);
    jest.spyOn(fs, 'read').mockImplementation(((fd: number, buffer: Uint8Array, at: number, bytes: number, position: number, done: unknown) =>
      realRead(fd, buffer, at, Math.min(bytes, 700), position, done)) as never);
    await write(driver, 50, data);
    expect(await read(driver, 50, 10_000)).toEqual(data);
    await driver.close();
  });

  test('at the real end of the file give zeros, also with O_DIRECT off its alignment', async () => {
    fs.writeFileSync(tmp('image'), Buffer.alloc(1000, 1));
    for (const direct of [false, true]) {
      const driver = await open({ create: false, direct });
      const lease = await new BufferPool(8192).lease(4096);
      lease.buffer.fill(0xee);
      await driver.submit(makeRequest('read', 0, 4096, lease.buffer));
      expect(lease.buffer.lastIndexOf(1)).toBe(999);
      expect(lease.buffer.subarray(1000).every((byte) => byte === 0)).toBe(true);
      await driver.close();
    }
  });

  test('off the alignment of O_DIRECT before the end of the file are an error, not zeros', async () => {
    fs.writeFileSync(tmp('image'), Buffer.alloc(8192, 1));
    const driver = await open({ create: false, direct: true });
    jest.spyOn(fs, 'read').mockImplementation(((_fd: number, _buffer: Uint8Array, _at: number, _bytes: number, _position: number,
      done: (error: null, count: number) => void) => setImmediate(done, null, 100)) as never);
    await expect(read(driver, 0, 4096)).rejects.toMatchObject({ code: 'IO', errno: 'EIO' });
    await driver.close();
  });

  test('a write that makes no progress is an error', async () => {
    const driver = await open();
    jest.spyOn(fs, 'write').mockImplementation((...args: unknown[]) => setImmediate(args.at(-1) as Done, null, 0));
    await expect(write(driver, 0, new Uint8Array(5))).rejects.toMatchObject({ code: 'IO', errno: 'EIO' });
    await driver.close();
  });
});

describe('flush', () => {
  const eio = (): Error => Object.assign(new Error('EIO'), { code: 'EIO' });

  test('an error is sticky: later flushes and writes fail, although the host would let them pass', async () => {
    const driver = await open();
    await write(driver, 0, new Uint8Array(100));
    jest.spyOn(fs, 'fdatasync').mockImplementationOnce((_fd: number, done: Done) => setImmediate(done, eio()));
    const failed = { code: 'IO', errno: 'EIO', message: `Could not flush '${tmp('image')}': Input/output error` };
    await expect(flush(driver)).rejects.toMatchObject(failed);
    await expect(flush(driver)).rejects.toMatchObject(failed);
    await expect(write(driver, 0, new Uint8Array(1))).rejects.toMatchObject(failed);
    await expect(driver.submit(makeRequest('write-zeroes', 0, 100, null))).rejects.toMatchObject(failed);
    await expect(driver.submit(makeRequest('discard', 0, 100, null))).rejects.toMatchObject(failed);
    await expect(driver.resize!(0)).rejects.toMatchObject(failed);
    expect(await read(driver, 0, 100)).toEqual(new Uint8Array(100));
    await driver.close();
  });

  test('those that come while one runs share the next one, and none shares one that started before it', async () => {
    const driver = await open();
    const running: Done[] = [];
    jest.spyOn(fs, 'fdatasync').mockImplementation((_fd: number, done: Done) => { running.push(done); });
    const settled: number[] = [];
    const flushes = [0, 1, 2].map((index) => flush(driver).then(() => settled.push(index)));
    expect(running).toHaveLength(1);
    running[0]!(null);
    await flushes[0];
    await new Promise(setImmediate);
    expect(settled).toEqual([0]);
    expect(running).toHaveLength(2);
    running[1]!(null);
    await Promise.all(flushes);
    expect(running).toHaveLength(2);
    jest.restoreAllMocks();
    await driver.close();
  });

  test('the error of one reaches those waiting behind it', async () => {
    const driver = await open();
    const results: Done[] = [];
    jest.spyOn(fs, 'fdatasync').mockImplementation((_fd: number, done: Done) => {
      results.push(done);
      setImmediate(done, results.length === 1 ? eio() : null);
    });
    const outcomes = await Promise.allSettled([flush(driver), flush(driver)]);
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    jest.restoreAllMocks();
    await driver.close();
  });
});

describe('space', () => {
  test('discard and write-zeroes with MAY_UNMAP free it, plain write-zeroes keeps it', async () => {
    const driver = await open();
    await write(driver, 0, new Uint8Array(4 * MiB).fill(1));
    await flush(driver);
    const full = await driver.allocatedBytes();
    expect(full).toBeGreaterThanOrEqual(4 * MiB);
    await driver.submit(makeRequest('write-zeroes', 0, MiB, null));
    expect(await driver.allocatedBytes()).toBeGreaterThanOrEqual(4 * MiB);
    await driver.submit(makeRequest('write-zeroes', MiB, MiB, null, RequestFlag.MAY_UNMAP));
    expect(await driver.allocatedBytes()).toBeLessThanOrEqual(full - MiB);
    await driver.submit(makeRequest('discard', 2 * MiB, MiB, null));
    expect(await driver.allocatedBytes()).toBeLessThanOrEqual(full - 2 * MiB);
    expect(driver.length()).toBe(4 * MiB);
    expect(await driver.blockStatus(MiB, 3 * MiB)).toEqual({ kind: 'zero', bytes: 2 * MiB, hostOffset: MiB });
    expect(await driver.blockStatus(3 * MiB, MiB)).toEqual({ kind: 'data', bytes: MiB, hostOffset: 3 * MiB });
    await driver.close();
  });

  test('data that was found is asked for once, until something makes holes', async () => {
    const driver = await open();
    await write(driver, 0, new Uint8Array(4 * MiB).fill(1));
    expect(await driver.blockStatus(0, MiB)).toEqual({ kind: 'data', bytes: MiB, hostOffset: 0 });
    expect(await driver.blockStatus(MiB, 4 * MiB)).toEqual({ kind: 'data', bytes: 3 * MiB, hostOffset: MiB });
    await driver.submit(makeRequest('discard', MiB, MiB, null));
    expect(await driver.blockStatus(0, 4 * MiB)).toEqual({ kind: 'data', bytes: MiB, hostOffset: 0 });
    expect(await driver.blockStatus(MiB, 3 * MiB)).toEqual({ kind: 'zero', bytes: MiB, hostOffset: MiB });
    await driver.resize!(3 * MiB);
    await driver.resize!(4 * MiB);
    expect(await driver.blockStatus(2 * MiB, 2 * MiB)).toEqual({ kind: 'data', bytes: MiB, hostOffset: 2 * MiB });
    expect(await driver.blockStatus(3 * MiB, MiB)).toEqual({ kind: 'zero', bytes: MiB, hostOffset: 3 * MiB });
    await driver.close();
  });

  test('a growing write is counted when it is submitted, and zeroes that extend the file do not cut it off', async () => {
    const driver = await open();
    const realTruncate = fs.ftruncate as (...args: unknown[]) => void;
    // were the file extended on the thread pool, it could happen as late as this
    jest.spyOn(fs, 'ftruncate').mockImplementation((...args: unknown[]) => { setTimeout(() => { realTruncate(...args); }, 100); });
    const data = new Uint8Array(8 * MiB).fill(5);
    const writing = write(driver, MiB, data);
    expect(driver.length()).toBe(9 * MiB);
    const zeroing = driver.submit(makeRequest('write-zeroes', 9 * MiB, 4096, null, RequestFlag.MAY_UNMAP));
    const after = write(driver, 9 * MiB + 4096, data);
    await Promise.all([writing, zeroing, after]);
    expect(driver.length()).toBe(17 * MiB + 4096);
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(Buffer.compare(await read(driver, 9 * MiB + 4096, 8 * MiB), data)).toBe(0);
    await driver.close();
    expect(fs.statSync(tmp('image')).size).toBe(17 * MiB + 4096);
  });
});

function attachLoop(file: string): string {
  return execFileSync('losetup', ['--find', '--show', file], { encoding: 'utf8', stdio: 'pipe' }).trim();
}

function detachLoop(device: string): void {
  execFileSync('losetup', ['--detach', device]);
}

/** Why no loop device can be made here (no root, no kernel module), or null. */
function whyNoLoop(): string | null {
  const folder = fs.mkdtempSync(join(tmpdir(), 'quiesce-test-'));
  try {
    fs.writeFileSync(join(folder, 'probe'), Buffer.alloc(MiB));
    detachLoop(attachLoop(join(folder, 'probe')));
    return null;
  } catch (error) {
    return (error instanceof Error ? error.message : String(error)).trim().replaceAll('\n', ' ');
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

const noLoop = whyNoLoop();
const describeDevices = noLoop === null ? describe : describe.skip;

describeDevices(`block devices${noLoop === null ? '' : ` [skipped: no loop device can be made: ${noLoop}]`}`, () => {
  test.each([false, true])('have a fixed length and zero, discard and read as files do (O_DIRECT: %s)', async (direct) => {
    fs.writeFileSync(tmp('backing'), Buffer.alloc(2 * MiB, 1));
    const device = attachLoop(tmp('backing'));
    try {
      const driver = await openFileDriver(device, { direct, create: true });
      await using node = new BlockNode({ name: 'device', driver });
      expect(driver).toMatchObject({ formatName: 'host_device', growable: false, resize: undefined });
      expect(node.length()).toBe(2 * MiB);
      await node.write(100, new Uint8Array(5000).fill(2));
      await node.writeZeroes(8192, 8192, RequestFlag.MAY_UNMAP);
      await node.writeZeroes(20_001, 5);
      await node.discard(MiB + 1, MiB - 1);
      await node.flush();
      const back = new Uint8Array(MiB);
      await node.read(0, back);
      const expected = new Uint8Array(MiB).fill(1).fill(2, 100, 5100).fill(0, 8192, 16384).fill(0, 20_001, 20_006);
      expect(Buffer.compare(back, expected)).toBe(0);
      await expect(node.write(2 * MiB, new Uint8Array(1))).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
    } finally {
      detachLoop(device);
    }
  });
});
