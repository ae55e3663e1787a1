/** `snapshot load` and `extract`: where RAM state goes, and what a destination that fails leaves of it and of the disk. */
import { once } from 'node:events';
import { createReadStream, lstatSync, readdirSync, readFileSync, readlinkSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { expect, test } from '@jest/globals';
import { expectRefused, makeImage, MiB, quiesceOk, startQuiesce } from '../support/cli.js';
import { hashOf } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { launcher, quiesce, run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

/** Snapshot `t` has a state of `bytes` and a disk that begins with 0x11; the active disk begins with 0x22. */
async function imageWithState(bytes = 3 * MiB + 5): Promise<{ image: string; state: Buffer }> {
  const image = await makeImage(tmp('disk.qcow2'));
  const state = randomBytes(bytes, 3);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x11 0 1M', image]);
  await quiesceOk(['snapshot', 'create', image, 't', '--vm-state', '-'], { input: state });
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x22 0 1M', image]);
  return { image, state };
}

async function firstByte(image: string): Promise<string> {
  const dump = await runOk('qemu-io', ['-r', '-f', 'qcow2', '-c', 'read -v 0 16', image]);
  return /^00000000:\s+(\w\w)/m.exec(dump)![1]!;
}

/** The disk is as it was, the image is sound, and nothing lies about beside it. */
async function untouched(image: string, ...others: string[]): Promise<void> {
  expect(await firstByte(image)).toBe('22');
  await runOk('qemu-img', ['check', '-q', image]);
  expect(readdirSync(tmp()).toSorted()).toEqual(['disk.qcow2', ...others].toSorted());
}

const load = (image: string, dst: string, ...options: string[]): string[] => ['snapshot', 'load', image, 't', '--vm-state', dst, ...options];

peers('qemu-img', 'qemu-io')('RAM state goes', () => {
  test('into a new file, and over an old one whose mode and symlink stay', async () => {
    const { image, state } = await imageWithState();
    await quiesceOk(load(image, tmp('ram')));
    expect(readFileSync(tmp('ram')).equals(state)).toBe(true);
    expect(await firstByte(image)).toBe('11');
    writeFileSync(tmp('old'), 'old', { mode: 0o640 });
    symlinkSync('old', tmp('link'));
    await quiesceOk(load(image, tmp('link'), '--read-ahead', '0', '--cache', 'writeback'));
    expect(readlinkSync(tmp('link'))).toBe('old');
    expect(readFileSync(tmp('old')).equals(state)).toBe(true);
    expect(lstatSync(tmp('old')).mode % 0o1000).toBe(0o640);
    expect(readdirSync(tmp()).toSorted()).toEqual(['disk.qcow2', 'link', 'old', 'ram']);
    await runOk('qemu-img', ['check', '-q', image]);
  });

  test('to standard output, and nothing else goes there', async () => {
    const { image, state } = await imageWithState();
    expect(await runOk('sh', ['-c', '"$0" snapshot load "$1" t --vm-state - | sha256sum', launcher, image])).toContain(hashOf(state));
    expect(await runOk('sh', ['-c', '{ printf head; "$0" snapshot extract "$1" t --vm-state -; printf tail; } > "$2"', launcher, image, tmp('out')])).toBe('');
    expect(readFileSync(tmp('out')).equals(Buffer.concat([Buffer.from('head'), state, Buffer.from('tail')]))).toBe(true);
  });

  test('into a FIFO that stays one, and into /dev/null that stays a device', async () => {
    const { image, state } = await imageWithState();
    await runOk('mkfifo', [tmp('fifo')]);
    const loading = startQuiesce(load(image, tmp('fifo')));
    const parts: Buffer[] = [];
    for await (const part of createReadStream(tmp('fifo'))) parts.push(part as Buffer);
    expect(await loading.done).toMatchObject({ code: 0, stderr: '' });
    expect(hashOf(Buffer.concat(parts))).toBe(hashOf(state));
    expect(statSync(tmp('fifo')).isFIFO()).toBe(true);
    await quiesceOk(load(image, '/dev/null'));
    expect(statSync('/dev/null').isCharacterDevice()).toBe(true);
  });
});

peers('qemu-img', 'qemu-io')('a destination that fails leaves the disk as it was', () => {
  test.each([3 * MiB + 5, 300_000])('a reader that closes in the middle of %d bytes', async (bytes) => {
    const { image } = await imageWithState(bytes);
    const result = await run('sh', ['-c', '{ "$0" snapshot load "$1" t --vm-state -; echo $? >&2; } | head -c 1000 >/dev/null', launcher, image]);
    expect(result.stderr).toMatch(/^(quiesce: [^\n]+\n)?(1|141)\n$/);
    await untouched(image);
  });

  test('a socket whose owner goes away after the first bytes', async () => {
    const { image } = await imageWithState();
    const server = createServer((socket) => { socket.once('data', () => socket.destroy()); });
    server.listen(tmp('socket'));
    await once(server, 'listening');
    await expectRefused(load(image, `unix:${tmp('socket')}`), `could not write the VM state to 'unix:${tmp('socket')}': `);
    server.close();
    await untouched(image);
  });

  test('a file system that is full: no half a file appears, and an old one stays whole', async () => {
    const { image } = await imageWithState();
    // a limit on the size of files stands in for a full disk
    const limited = 'ulimit -f 4096; trap "" XFSZ; exec "$0" snapshot load "$1" t --vm-state "$2"';
    writeFileSync(tmp('old'), 'old');
    for (const name of ['new', 'old']) {
      const { code, stderr } = await run('bash', ['-c', limited.replace('4096', '1024'), launcher, image, tmp(name)]);
      expect([code, stderr]).toEqual([1, expect.stringMatching(/^quiesce: could not write the VM state to '[^\n]+': File too large\n$/)]);
    }
    expect(readFileSync(tmp('old'), 'utf8')).toBe('old');
    await untouched(image, 'old');
    const device = startQuiesce(load(image, '/dev/full'));
    expect(await device.done).toMatchObject({ code: 1, stderr: expect.stringContaining('No space left on device') });
    await untouched(image, 'old');
  });

  test.each([
    ['the image itself', 'disk.qcow2', 'is the image'],
    ['a directory', '', 'is a directory, expected a file for the VM state'],
    ['a place in a directory that is missing', 'none/ram', 'No such file or directory'],
    ['a socket that nobody made', 'unix:none', 'could not connect to'],
  ])('%s', async (_what, name, message) => {
    const { image } = await imageWithState(1000);
    await expectRefused(load(image, name.startsWith('unix:') ? `unix:${tmp(name.slice(5))}` : tmp(name)), message);
    await untouched(image);
  });

  test('a hard link or a symlink to the image', async () => {
    const { image } = await imageWithState(1000);
    await runOk('ln', [image, tmp('hard')]);
    symlinkSync(image, tmp('soft'));
    for (const name of ['hard', 'soft']) await expectRefused(load(image, tmp(name)), 'is the image');
    await untouched(image, 'hard', 'soft');
  });

  test('a state whose mapping is broken is found before anything is sent or reverted', async () => {
    const { image } = await imageWithState();
    const l1Offset = readL1OffsetOfFirstSnapshot(readFileSync(image));
    const bytes = readFileSync(image);
    // the L1 entry of the state: the disk of 64 MiB has one entry, the state follows
    bytes.fill(0, l1Offset + 8, l1Offset + 16);
    writeFileSync(image, bytes);
    const { code, stderr } = await quiesce(load(image, tmp('ram')));
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^quiesce: [^\n]+\n$/)]);
    expect(await firstByte(image)).toBe('22');
    expect(readdirSync(tmp())).toEqual(['disk.qcow2']);
  });
});

function readL1OffsetOfFirstSnapshot(image: Buffer): number {
  const table = Number(image.readBigUInt64BE(64));
  return Number(image.readBigUInt64BE(table));
}
