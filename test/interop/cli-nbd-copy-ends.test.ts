/** `quiesce nbd copy` that ends early: Ctrl-C, a server that dies or falls silent, a full disk. Nothing half is left, nothing hangs. */
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { expectRefused, leaksAtMost, makeImage, MiB, startQuiesce, waitFor, type RunningCommand } from '../support/cli.js';
import { host, useHost } from '../support/host.js';
import { nbdkitArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const devices = useHost();
const tmp = useTmp();
const start = useNbdPeers();
const uri = (socket: string): string => `nbd+unix:///?socket=${socket}`;

/** An export of 1 GiB that answers slowly enough to be interrupted. */
async function slowSource(): Promise<string> {
  await start('nbdkit', nbdkitArgs(tmp('slow'), '--filter=delay', 'pattern', '1G', 'delay-read=40ms'), tmp('slow'));
  return uri(tmp('slow'));
}

async function copying(...args: string[]): Promise<RunningCommand> {
  const target = args.at(-1)!;
  const command = startQuiesce(['nbd', 'copy', ...args]);
  await waitFor('it copies', () => (statSync(target, { throwIfNoEntry: false })?.blocks ?? 0) * 512 > 4 * MiB);
  return command;
}

async function interrupted(command: RunningCommand, signal: NodeJS.Signals = 'SIGINT', code = 130): Promise<void> {
  command.child.kill(signal);
  const begun = performance.now();
  expect(await command.done).toMatchObject({ code, signal: null, stdout: '', stderr: expect.stringMatching(/^quiesce: [^\n]*(cancelled|given up)\n$/) });
  expect(performance.now() - begun).toBeLessThan(15_000);
}

peers('nbdkit', 'qemu-img', 'qemu-io')('interrupted', () => {
  test.each([['SIGINT', 130, 'new.qcow2'], ['SIGTERM', 143, 'new.raw']] as const)('%s ends it with %i, and %s is not there', async (signal, code, name) => {
    await interrupted(await copying(await slowSource(), tmp(name)), signal, code);
    expect(readdirSync(tmp()).filter((file) => file !== 'slow')).toEqual([]);
  });

  test.each(['old.qcow2', 'old.raw'])('%s, which was there and is made anew, is empty', async (name) => {
    await runOk('qemu-img', ['create', '-q', '-f', name.slice(4), tmp(name), '4M']);
    await interrupted(await copying(await slowSource(), tmp(name)));
    expect(statSync(tmp(name)).size).toBe(0);
  });

  test('an image that was there is sound, and its snapshot untouched', async () => {
    const image = await makeImage(tmp('there.qcow2'), '1G');
    await runOk('qemu-io', ['-c', 'write -P 9 0 1M', image]);
    await runOk('qemu-img', ['snapshot', '-c', 'before', image]);
    await interrupted(await copying('--existing', await slowSource(), image));
    await leaksAtMost(image);
    await runOk('qemu-img', ['snapshot', '-a', 'before', image]);
    expect(await runOk('qemu-io', ['-r', '-c', 'read -P 9 0 1M', '-c', 'read -P 0 1M 1M', image])).not.toContain('failed');
  });
});

const silent: Server[] = [];
afterEach(() => {
  for (const server of silent.splice(0)) server.close();
});

test.each([
  ['a URI', (path: string) => uri(path)],
  ['json:', (path: string) => `json:${JSON.stringify({ driver: 'raw', file: { driver: 'nbd', server: { type: 'unix', path } } })}`],
])('Ctrl-C while a server behind %s says nothing at all: what was there stays', async (_, name) => {
  let connected = false;
  writeFileSync(tmp('out'), 'old');
  const server = createServer((socket) => {
    connected = true;
    socket.on('error', () => undefined);
  });
  silent.push(server);
  await new Promise<void>((resolve) => { server.listen(tmp('silent'), resolve); });
  const command = startQuiesce(['nbd', 'copy', name(tmp('silent')), tmp('out')]);
  await waitFor('it is connected', () => connected);
  await interrupted(command);
  expect(readFileSync(tmp('out'), 'utf8')).toBe('old');
});

peers('nbdkit')('a server', () => {
  test('that falls silent amid the copy is left at Ctrl-C', async () => {
    await start('nbdkit', nbdkitArgs(tmp('s'), '--filter=delay', 'pattern', '64M', 'delay-read=90'), tmp('s'));
    const command = startQuiesce(['nbd', 'copy', uri(tmp('s')), tmp('out')]);
    await waitFor('it has made the target', () => existsSync(tmp('out')));
    await new Promise((resolve) => { setTimeout(resolve, 200); });
    await interrupted(command);
    expect(existsSync(tmp('out'))).toBe(false);
  });

  test('that is killed amid the copy: one line, and no half a file', async () => {
    const server = await start('nbdkit', nbdkitArgs(tmp('s'), '--filter=delay', 'pattern', '1G', 'delay-read=40ms'), tmp('s'));
    const command = await copying(uri(tmp('s')), tmp('out.qcow2'));
    await server.stop('SIGKILL');
    expect(await command.done).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/^quiesce: [^\n]*connection to [^\n]*\n$/) });
    expect(existsSync(tmp('out.qcow2'))).toBe(false);
  });

  test('whose disk is full', async () => {
    writeFileSync(tmp('source'), Buffer.alloc(8 * MiB, 1));
    await start('nbdkit', nbdkitArgs(tmp('s'), '--filter=error', 'memory', '8M', 'error-pwrite=ENOSPC', 'error-pwrite-rate=50%'), tmp('s'));
    await expectRefused(['nbd', 'copy', tmp('source'), uri(tmp('s'))], 'ENOSPC');
  });
});

host(['mount'])('a full file system', () => {
  test.each(['out.raw', 'out.qcow2'])('%s: told in one line, and given free again', async (name) => {
    const folder = devices.mount(tmp('full'), '-t', 'tmpfs', '-o', 'size=4M', 'quiesce-test');
    writeFileSync(tmp('source'), Buffer.alloc(8 * MiB, 1));
    await expectRefused(['nbd', 'copy', tmp('source'), `${folder}/${name}`], /No space left on device/);
    expect(readdirSync(folder)).toEqual([]);
  });
});

host(['loop'])('a block device', () => {
  test('is written as it is, refused where it is too small, and read back', async () => {
    const content = Buffer.alloc(6 * MiB);
    content.fill(7, MiB, 3 * MiB);
    writeFileSync(tmp('source'), content);
    writeFileSync(tmp('large'), Buffer.alloc(8 * MiB, 0xaa));
    writeFileSync(tmp('small'), Buffer.alloc(4 * MiB, 0xaa));
    const [large, small] = [devices.loop(tmp('large')), devices.loop(tmp('small'))];
    const copied = startQuiesce(['nbd', 'copy', tmp('source'), large]);
    expect(await copied.done).toMatchObject({ code: 0, stderr: '' });
    expect((await run('cmp', ['-n', String(6 * MiB), tmp('source'), large])).code).toBe(0);
    await expectRefused(['nbd', 'copy', tmp('source'), small], 'too few');
    expect(await startQuiesce(['nbd', 'copy', large, tmp('back')]).done).toMatchObject({ code: 0, stderr: '' });
    expect((await run('cmp', [tmp('back'), large])).code).toBe(0);
    expect((await run('cmp', [tmp('small'), small])).code).toBe(0);
  });
});
