/** Our programs under clients in great numbers, slow ones, ones that never read, and ones that vanish: others are served, memory stays bounded. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import type { ChildProcess } from 'node:child_process';
import { afterEach, expect, test } from '@jest/globals';
import { KiB, MiB, waitFor } from '../support/cli.js';
import { RawNbd, request, u32 } from '../support/nbd-raw.js';
import { peers } from '../support/peers.js';
import { kill, launcher, nbdLauncher, run, runOk, start } from '../support/run.js';
import { appears } from '../support/listening.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const [READ, WRITE, DISC, FLUSH] = [0, 1, 2, 3] as const;
const SLOT = 64 * KiB;
const servers: ChildProcess[] = [];
afterEach(async () => {
  for (const child of servers.splice(0)) await kill(child);
});

async function serve(binary: string, args: readonly string[], ready: string): Promise<ChildProcess> {
  const child = start(binary, args);
  servers.push(child);
  child.stderr!.resume();
  await appears(ready);
  // a socket has its name a moment before it listens
  if (statSync(ready).isSocket()) await waitFor('it listens', () => RawNbd.connect(ready).then((client) => { client.destroy(); return true; }, () => false));
  return child;
}

async function image(size: string): Promise<string> {
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('disk.qcow2'), size]);
  return tmp('disk.qcow2');
}

const openFiles = (child: ChildProcess): number => readdirSync(`/proc/${child.pid}/fd`).length;
const rss = (child: ChildProcess): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]) * KiB;

async function stop(child: ChildProcess, disk: string): Promise<void> {
  await kill(child, 'SIGTERM');
  expect([child.exitCode, child.signalCode]).toEqual([0, null]);
  await runOk('qemu-img', ['check', '-q', disk]);
}

/** Writes its slot, reads another's, flushes, reads its own, and says goodbye. */
async function visit(client: RawNbd, index: number, of: number): Promise<void> {
  const payload = Buffer.alloc(SLOT, index + 1);
  client.send(request({ type: WRITE, offset: index * SLOT, bytes: SLOT, payload }), request({ type: READ, offset: ((index + 7) % of) * SLOT, bytes: SLOT }));
  await client.replies();
  await client.replies();
  client.send(request({ type: FLUSH }));
  await client.replies();
  client.send(request({ type: READ, offset: index * SLOT, bytes: SLOT, flags: 4 }));
  expect((await client.replies())[0]!.payload.subarray(8).equals(payload)).toBe(true);
  client.send(request({ type: DISC }));
  await client.rest();
  client.destroy();
}

peers('qemu-img')('200 connections', () => {
  test.each([
    ['quiesce-nbd -e 0', nbdLauncher, ['-k', '-t', '-e', '0'], 200], ['quiesce-nbd -e 200', nbdLauncher, ['-k', '-t', '-e', '200'], 200],
    ['quiesce-nbd -e 100', nbdLauncher, ['-k', '-t', '-e', '100'], 100],
    ['quiesce-nbd', nbdLauncher, ['-k', '-t'], 1], ['quiesce nbd serve', launcher, ['--socket', '--persistent'], 200],
  ] as const)('%s: each does its work, those beyond the limit when it is their turn', async (_, binary, [socket, ...options], atOnce) => {
    const disk = await image('16M');
    const server = await serve(binary, [...binary === launcher ? ['nbd', 'serve'] : [], socket, tmp('s'), ...options, disk], tmp('s'));
    // the descriptors of its own that the first requests need are there then
    await visit(await RawNbd.transmitting(tmp('s')), 0, 200);
    const files = openFiles(server);
    let inside = 0;
    let most = 0;
    const everyone = Array.from({ length: 200 }, async (__, index) => {
      const client = await RawNbd.transmitting(tmp('s'));
      most = Math.max(most, ++inside);
      // nobody works before as many are in as may be
      await waitFor('the house is full', () => most === atOnce);
      await visit(client, index, 200);
      inside--;
    });
    await Promise.all(everyone);
    expect(most).toBe(atOnce);
    await waitFor('all connections are closed', () => openFiles(server) <= files);
    await stop(server, disk);
    const content = readFileSync(await converted(disk));
    for (let index = 0; index < 200; index++) expect(content.subarray(index * SLOT, (index + 1) * SLOT).equals(Buffer.alloc(SLOT, index + 1))).toBe(true);
  });
});

async function converted(disk: string): Promise<string> {
  await runOk('qemu-img', ['convert', '-O', 'raw', disk, tmp('raw')]);
  return tmp('raw');
}

peers('qemu-img', 'qemu-io', 'nbdcopy', 'nbdinfo')('clients that', () => {
  test('never read what they ask for: memory is bounded, and others are served meanwhile', async () => {
    const disk = await image('64M');
    await runOk('qemu-io', ['-c', 'write -P 3 0 64M', disk]);
    const server = await serve(nbdLauncher, ['-k', tmp('s'), '-t', '-e', '0', '-r', disk], tmp('s'));
    await runOk('nbdcopy', [`nbd+unix:///?socket=${tmp('s')}`, 'null:']);
    const before = rss(server);
    const deaf = await Promise.all(Array.from({ length: 12 }, () => RawNbd.transmitting(tmp('s'))));
    const flood = Buffer.concat(Array.from({ length: 200 }, (_, index) => request({ type: READ, offset: (index % 60) * MiB, bytes: MiB, flags: 4 })));
    for (const client of deaf) {
      client.socket.pause();
      client.socket.write(flood);
    }
    let most = 0;
    const look = (): void => { most = Math.max(most, rss(server)); };
    const watch = setInterval(look, 20);
    // 12 clients have asked for 2400 MiB
    const begun = performance.now();
    try {
      await runOk('nbdcopy', [`nbd+unix:///?socket=${tmp('s')}`, 'null:'], { timeoutMs: 50_000 });
    } finally {
      clearInterval(watch);
    }
    look();
    expect(performance.now() - begun).toBeLessThan(40_000);
    // the server's buffers are 64 MiB, and the rest is room for the garbage collector
    expect((most - before) / MiB).toBeLessThan(64 + 40);
    for (const client of deaf) client.destroy();
    await stop(server, disk);
  });

  test('vanish amid a handshake, a head or a payload, or come a byte at a time: nothing stays, and others are served', async () => {
    const disk = await image('16M');
    const server = await serve(nbdLauncher, ['-p', '0', '-b', '127.0.0.1', '-t', '-e', '0', '--pid-file', tmp('pid'), disk], tmp('pid'));
    const port = listeningPort(server);
    const uri = `nbd://127.0.0.1:${port}`;
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 4 0 4M', uri]);
    const files = openFiles(server);
    // slow ones hold on to what they have got to: one byte of the flags, half an option, half a head, half a payload
    const slow: Socket[] = [];
    for (let index = 0; index < 40; index++) slow.push(await halfway(port, index));
    expect(await runOk('nbdcopy', [uri, 'null:'])).toBe('');
    // these die by reset, each amid a request that the others know nothing of
    for (let index = 0; index < 60; index++) (await halfway(port, index)).resetAndDestroy();
    await runOk('qemu-io', ['-f', 'raw', '-c', 'read -P 4 0 4M', '-c', 'write -P 5 8M 1M', uri]);
    // half-open: they have said all, and are answered to the end
    const polite = await RawNbd.transmitting(port);
    polite.send(request({ type: READ, bytes: 4 * MiB, flags: 4 }));
    polite.end();
    expect((await polite.rest()).byteLength).toBe(20 + 8 + 4 * MiB);
    polite.destroy();
    for (const socket of slow) socket.destroy();
    await waitFor('all connections are closed', () => openFiles(server) <= files);
    await stop(server, disk);
    await runOk('qemu-io', ['-r', '-c', 'read -P 4 0 4M', '-c', 'read -P 5 8M 1M', '-c', 'read -P 0 9M 7M', disk]);
  });

  test('take for ever to negotiate lose their place', async () => {
    const disk = await image('16M');
    const server = await serve(nbdLauncher, ['-k', tmp('s'), '-t', '-e', '2', disk], tmp('s'));
    const loris = [connect(tmp('s')), connect(tmp('s'))];
    const ended = Promise.all(loris.map((socket) => new Promise((resolve) => {
      socket.resume();
      socket.on('close', resolve).on('error', () => undefined);
    })));
    const drip = setInterval(() => { for (const socket of loris) if (socket.writable) socket.write(Buffer.alloc(1)); }, 200);
    // both places are taken: this one waits for them
    const size = run('nbdinfo', ['--size', `nbd+unix:///?socket=${tmp('s')}`]);
    await ended;
    clearInterval(drip);
    expect(await size).toMatchObject({ code: 0, stdout: `${16 * MiB}\n` });
    await stop(server, disk);
  });
});

/** A client that has come to one of four points, and stays there. */
async function halfway(port: number, index: number): Promise<Socket> {
  if (index % 4 < 2) {
    const client = await RawNbd.connect(port);
    client.send(index % 4 === 0 ? Buffer.alloc(1) : Buffer.concat([u32(3), Buffer.from('IHAVE')]));
    return client.socket;
  }
  const client = await RawNbd.transmitting(port);
  client.send(request({ type: READ, bytes: MiB, flags: 4 }), request({ type: WRITE, offset: 12 * MiB, bytes: MiB, payload: Buffer.alloc(100_000) }).subarray(0, index % 4 === 2 ? 13 : undefined));
  return client.socket;
}

/** Of the process's only listening TCP socket. */
function listeningPort(child: ChildProcess): number {
  const inodes = new Set(readdirSync(`/proc/${child.pid}/fdinfo`).map((fd) => /ino:\s*(\d+)/.exec(readFileSync(`/proc/${child.pid}/fdinfo/${fd}`, 'utf8'))?.[1]));
  const line = readFileSync('/proc/net/tcp', 'utf8').split('\n').map((text) => text.trim().split(/\s+/)).find((fields) => fields[3] === '0A' && inodes.has(fields[9]));
  return Number.parseInt(line![1]!.split(':')[1]!, 16);
}
