import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import { describe, expect, test } from '@jest/globals';
import {
  capabilities, deviceBytes, directIoAlignment, lockedElsewhere, lockShared, preallocate, punchHole, seekData, seekHole, setSendBuffer, unlock, zeroRange,
} from '../../../src/base/libc.js';
import { repository, runOk } from '../../support/run.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const MiB = 1024 * 1024;

function withFile<T>(bytes: number, use: (fd: number) => T): T {
  fs.writeFileSync(tmp('file'), Buffer.alloc(bytes, 1));
  const fd = fs.openSync(tmp('file'), 'r+');
  const result = use(fd);
  if (result instanceof Promise) return result.finally(() => { fs.closeSync(fd); }) as T;
  fs.closeSync(fd);
  return result;
}

test('all capabilities are there', () => {
  expect(capabilities()).toEqual({ locks: true, seekData: true, punchHole: true, zeroRange: true, ioctl: true, noWait: true, whyNot: null });
});

test('importing loads nothing; where koffi cannot be loaded at the first use, capabilities say why', async () => {
  // bundled into a folder from which koffi is not found
  const script = `
    const { rolldown } = await import('rolldown');
    const bundle = await rolldown({ input: 'src/base/libc.ts', platform: 'node', external: /^(?![./])/ });
    await bundle.write({ file: ${JSON.stringify(tmp('libc.mjs'))}, format: 'esm' });
    const libc = await import(${JSON.stringify(tmp('libc.mjs'))});
    console.log('imported', JSON.stringify(libc.capabilities()));`;
  const output = await runOk(process.execPath, ['--input-type=module', '-e', script], { cwd: repository });
  expect(output).toMatch(/imported .*"locks":false.*"whyNot":"koffi does not load: Cannot find module 'koffi'"/);
});

describe('locks', () => {
  test('belong to the open file, not to the process: two opens of one file see each other', () => {
    withFile(1, (first) => {
      const second = fs.openSync(tmp('file'), 'r');
      lockShared(first, 100);
      lockShared(second, 100);
      lockShared(first, 2 ** 33);
      expect(lockedElsewhere(first, 100)).toBe(true);
      expect(lockedElsewhere(second, 2 ** 33)).toBe(true);
      expect(lockedElsewhere(first, 2 ** 33)).toBe(false);
      expect(lockedElsewhere(second, 101)).toBe(false);
      unlock(first, 100);
      expect(lockedElsewhere(second, 100)).toBe(false);
      fs.closeSync(second);
      expect(lockedElsewhere(first, 100)).toBe(false);
    });
  });

  test('errors carry the errno', () => {
    expect(() => lockShared(9999, 1)).toThrow(expect.objectContaining({ code: 'EBADF' }));
    expect(() => lockedElsewhere(9999, 1)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });
});

test('holes are found, also beyond 8 TiB, and the end of the file is one', async () => {
  await withFile(MiB, async (fd) => {
    const far = 2 ** 43 + 65536;
    fs.writeSync(fd, 'x', far);
    expect(seekData(fd, 0)).toBe(0);
    expect(seekHole(fd, 0)).toBe(MiB);
    expect(seekData(fd, MiB)).toBe(far);
    expect(seekHole(fd, far)).toBe(far + 1);
    expect(seekData(fd, far + 1)).toBeNull();
    expect(seekHole(fd, far + 2)).toBeNull();
    await punchHole(fd, 65536, 65536);
    expect(seekHole(fd, 0)).toBe(65536);
    expect(seekData(fd, 65536)).toBe(131072);
    expect(() => seekData(9999, 0)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });
});

test('punching frees, zeroing keeps, preallocating adds; the length changes only where that is asked', async () => {
  await withFile(2 * MiB, async (fd) => {
    const full = fs.fstatSync(fd).blocks * 512;
    await zeroRange(fd, 0, MiB);
    expect(fs.fstatSync(fd).blocks * 512).toBeGreaterThanOrEqual(full);
    await punchHole(fd, MiB, 10 * MiB);
    expect(fs.fstatSync(fd).blocks * 512).toBeLessThanOrEqual(full - MiB);
    expect(fs.readFileSync(fd).every((byte) => byte === 0)).toBe(true);
    await zeroRange(fd, 0, 3 * MiB);
    await preallocate(fd, 0, 4 * MiB, { extend: false });
    expect(fs.fstatSync(fd).size).toBe(2 * MiB);
    expect(fs.fstatSync(fd).blocks * 512).toBeGreaterThanOrEqual(4 * MiB);
    await preallocate(fd, 0, 6 * MiB, { extend: true });
    expect(fs.fstatSync(fd).size).toBe(6 * MiB);
  });
});

test('many slow calls at once all finish, and each failure has its own errno', async () => {
  await withFile(MiB, async (fd) => {
    const readOnly = fs.openSync(tmp('file'), 'r');
    const calls = Array.from({ length: 600 }, (_, index) => {
      if (index % 3 === 0) return punchHole(fd, 0, 4096).then(() => 'done');
      return punchHole(index % 3 === 1 ? 9999 : fd, 0, index % 3 === 1 ? 4096 : 0).catch((error: { code: string }) => error.code);
    });
    const outcomes = await Promise.all(calls);
    expect(outcomes).toEqual(outcomes.map((_, index) => ['done', 'EBADF', 'EINVAL'][index % 3]));
    await expect(punchHole(readOnly, 0, 4096)).rejects.toMatchObject({ code: 'EBADF' });
    fs.closeSync(readOnly);
  });
});

test('a file is no block device, and tells its O_DIRECT alignment where the kernel does', () => {
  withFile(1, (fd) => {
    expect(() => deviceBytes(fd)).toThrow(expect.objectContaining({ code: 'ENOTTY' }));
    expect([null, 512, 1024, 2048, 4096]).toContain(directIoAlignment(fd));
  });
});

test.each([[true, 0], [false, 1]])('a socket takes as much as it was told to before its reader has read: %j', async (widened, left) => {
  const server = net.createServer({ pauseOnConnect: true }).listen(tmp('socket'));
  await once(server, 'listening');
  const accepted = once(server, 'connection') as Promise<[net.Socket]>;
  const socket = net.connect(tmp('socket'));
  await once(socket, 'connect');
  if (widened) setSendBuffer((socket as unknown as { _handle: { fd: number } })._handle.fd, 2 * MiB);
  socket.write(Buffer.alloc(300 * 1024));
  expect(Math.min(socket.writableLength, 1)).toBe(left);
  socket.destroy();
  (await accepted)[0].destroy();
  server.close();
});
