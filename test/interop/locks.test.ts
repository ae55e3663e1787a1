/** Image locks against QEMU's tools, in both directions. */
import { once } from 'node:events';
import { truncateSync, readFileSync, statSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { afterEach, expect, test } from '@jest/globals';
import { capabilities, openFileDriver } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { kill, run, runOk, start } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const children: ChildProcess[] = [];
afterEach(async () => { for (const child of children.splice(0)) await kill(child); });

async function makeImage(): Promise<string> {
  const path = tmp('disk.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', path, '16M']);
  return path;
}

/** Runs qemu-io on an image and waits until it has opened it. */
async function heldByQemuIo(path: string, ...options: string[]): Promise<ChildProcess> {
  const child = start('qemu-io', [...options, '-f', 'qcow2', path]);
  children.push(child);
  let output = '';
  child.stdout!.on('data', (chunk: Buffer) => { output += chunk.toString(); });
  child.stdin!.write('length\n');
  while (!output.includes('16 MiB')) {
    const [ended] = await Promise.race([once(child.stdout!, 'data').then(() => [false]), once(child, 'exit').then(() => [true])]);
    if (ended === true) throw new Error(`qemu-io ended early: ${output}`);
  }
  return child;
}

/** The lock bytes on a file that the kernel knows of, as `first-last`. */
function lockBytes(path: string): string[] {
  const { ino } = statSync(path);
  const lines = readFileSync('/proc/locks', 'utf8').split('\n').filter((line) => line.includes(`:${ino} `));
  return lines.map((line) => line.trim().split(/\s+/)).map((words) => `${words[3]} ${words[6]}-${words[7]}`).toSorted();
}

const LOCKED = { code: 'LOCKED' };

peers('qemu-img', 'qemu-io')('image locks with QEMU', () => {
  test('host calls are there (or the tests below would prove nothing)', () => {
    expect(capabilities()).toMatchObject({ locks: true, whyNot: null });
  });

  test('what we hold for writing, QEMU opens neither for writing nor for reading, until we close it', async () => {
    const path = await makeImage();
    const ours = await openFileDriver(path);
    const writer = await run('qemu-io', ['-c', 'write 0 512', path]);
    expect(writer.stderr).toContain('Failed to get "write" lock');
    const reader = await run('qemu-img', ['info', path]);
    expect(reader.code).not.toBe(0);
    expect(reader.stderr).toContain('Failed to get shared "write" lock');
    expect(await runOk('qemu-img', ['info', '-U', path])).toContain('file format: qcow2');
    const create = await run('qemu-img', ['create', '-f', 'raw', path, '1M']);
    expect(create.stderr).toContain('Failed to get "write" lock');
    await ours.close();
    await runOk('qemu-io', ['-c', 'write 0 512', path]);
  });

  test('what we hold for reading, QEMU reads and does not write', async () => {
    const path = await makeImage();
    const ours = await openFileDriver(path, { readOnly: true });
    expect(await runOk('qemu-img', ['info', path])).toContain('file format: qcow2');
    expect((await run('qemu-io', ['-c', 'write 0 512', path])).stderr).toContain('Failed to get "write" lock');
    await ours.close();
  });

  test('what qemu-io holds for writing, we open only with force-share', async () => {
    const path = await makeImage();
    const qemu = await heldByQemuIo(path);
    await expect(openFileDriver(path)).rejects.toMatchObject({
      ...LOCKED, message: `Could not open '${path}': Failed to get "write" lock (Is another process using the image [${path}]?)`,
    });
    await expect(openFileDriver(path, { readOnly: true })).rejects.toMatchObject({
      ...LOCKED, message: `Could not open '${path}': Failed to get shared "write" lock (Is another process using the image [${path}]?)`,
    });
    await expect(openFileDriver(path, { create: true })).rejects.toMatchObject(LOCKED);
    expect(statSync(path).size).toBeGreaterThan(0);
    await (await openFileDriver(path, { readOnly: true, forceShare: true })).close();
    await (await openFileDriver(path, { locking: 'off' })).close();
    await kill(qemu);
    await (await openFileDriver(path)).close();
  });

  test('what qemu-io holds for reading, we read and do not write', async () => {
    const path = await makeImage();
    const qemu = await heldByQemuIo(path, '-r');
    await (await openFileDriver(path, { readOnly: true })).close();
    await expect(openFileDriver(path)).rejects.toMatchObject(LOCKED);
    await kill(qemu);
  });

  test.each([['writer', []], ['reader', ['-r']], ['force-sharing reader', ['-r', '-U']]] as const)(
    'the lock bytes of a %s are exactly QEMU’s', async (_who, options) => {
      const path = await makeImage();
      const qemu = await heldByQemuIo(path, ...options);
      const theirs = lockBytes(path);
      await kill(qemu);
      const [readOnly, forceShare] = [options.length > 0, options.length > 1];
      const ours = await openFileDriver(path, { readOnly, forceShare });
      expect(theirs.length).toBeGreaterThan(0);
      expect(lockBytes(path)).toEqual(theirs);
      await ours.close();
      expect(lockBytes(path)).toEqual([]);
    });

  test('an image that QEMU refused leaves no lock of ours behind', async () => {
    const path = await makeImage();
    const qemu = await heldByQemuIo(path);
    const theirs = lockBytes(path);
    for (const readOnly of [true, false]) await expect(openFileDriver(path, { readOnly })).rejects.toMatchObject(LOCKED);
    expect(lockBytes(path)).toEqual(theirs);
    await kill(qemu);
  });

  test('a held raw file too', async () => {
    const path = tmp('disk.raw');
    const ours = await openFileDriver(path, { create: true });
    truncateSync(path, 1024 * 1024);
    const writer = await run('qemu-io', ['-f', 'raw', '-c', 'write 0 512', path]);
    expect(writer.stderr).toContain('Failed to get "write" lock');
    await ours.close();
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write 0 512', path]);
  });
});
