import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { expect, test } from '@jest/globals';
import { lockedElsewhere } from '../../../src/base/libc.js';
import { openFileDriver } from '../../../src/protocol/file.js';
import { IMAGE_USES, lockImage } from '../../../src/protocol/image-lock.js';
import { repository } from '../../support/run.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const LOCKED = { code: 'LOCKED' };

function makeFile(): string {
  const path = tmp('image');
  fs.writeFileSync(path, 'content');
  return path;
}

test('two writers conflict, also inside one process, until the first closes', async () => {
  const path = makeFile();
  const first = await openFileDriver(path);
  await expect(openFileDriver(path)).rejects.toMatchObject(LOCKED);
  await first.close();
  await (await openFileDriver(path)).close();
});

test('readers coexist and keep writers out; a writer keeps readers out unless they share by force', async () => {
  const path = makeFile();
  const readers = [await openFileDriver(path, { readOnly: true }), await openFileDriver(path, { readOnly: true })];
  await expect(openFileDriver(path)).rejects.toMatchObject(LOCKED);
  for (const reader of readers) await reader.close();
  const writer = await openFileDriver(path);
  await expect(openFileDriver(path, { readOnly: true })).rejects.toMatchObject(LOCKED);
  const sharing = await openFileDriver(path, { readOnly: true, forceShare: true });
  await writer.close();
  await (await openFileDriver(path)).close();
  await sharing.close();
});

test('a refused create leaves the file as it was', async () => {
  const path = makeFile();
  const reader = await openFileDriver(path, { readOnly: true });
  await expect(openFileDriver(path, { create: true })).rejects.toMatchObject(LOCKED);
  expect(fs.readFileSync(path, 'utf8')).toBe('content');
  await reader.close();
});

test('a refused lock is undone although the descriptor stays open', () => {
  const path = makeFile();
  const [first, second, third] = [fs.openSync(path, 'r+'), fs.openSync(path, 'r+'), fs.openSync(path, 'r+')];
  lockImage(first, path, IMAGE_USES.reader);
  expect(() => lockImage(second, path, IMAGE_USES.writer)).toThrow('Failed to get "write" lock');
  fs.closeSync(first);
  const held = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => lockedElsewhere(third, byte));
  expect(held).toEqual([]);
  for (const fd of [second, third]) fs.closeSync(fd);
});

test('the kernel drops the locks of a process that is killed', async () => {
  const path = makeFile();
  // a bare holder of one byte: "write is not shared"
  const script = `const fs = require('fs'), koffi = require('koffi'); const fd = fs.openSync(${JSON.stringify(path)}, 'r+');
    const lock = Buffer.alloc(32); lock.writeInt32LE(201, 8); lock.writeInt32LE(1, 16);
    if (koffi.load(null).func('int fcntl(int, int, void *)')(fd, 37, lock) !== 0) process.exit(1);
    console.log('held'); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['-e', script], { cwd: repository, stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  const meanwhile = await Promise.allSettled([openFileDriver(path), openFileDriver(path, { readOnly: true }).then((driver) => driver.close())]);
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(meanwhile).toMatchObject([{ reason: LOCKED }, { status: 'fulfilled' }]);
  await (await openFileDriver(path)).close();
});
