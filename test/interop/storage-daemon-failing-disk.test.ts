/** Disks that fail at random below our exports, under clients that do everything at once: errors come back, nothing hangs, and when the errors end all is well. */
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { afterEach, expect, test } from '@jest/globals';
import { NbdClient, Random } from '../../src/index.js';
import { KiB, makeImage, MiB, waitFor } from '../support/cli.js';
import { nbdkitArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { kill, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const startPeer = useNbdPeers();
const SIZE = 8 * MiB;
const BLOCK = 32 * KiB;
const WORKERS = 8;
const daemons: ChildProcess[] = [];
afterEach(async () => {
  for (const child of daemons.splice(0)) await kill(child);
});

/** A daemon of ours with one node `n`, exported; resolves with its process when clients can connect. */
async function serve(node: string, ...more: string[]): Promise<ChildProcess> {
  const child = start(storageDaemonLauncher, ['--blockdev', `node-name=n,discard=unmap,${node}`, '--nbd-server', `addr.type=unix,addr.path=${tmp('s')}`, '--export', 'nbd,id=e,node-name=n,writable=on', ...more]);
  daemons.push(child);
  let said = '';
  child.stderr!.on('data', (data: Buffer) => { said += data.toString(); });
  await waitFor('it listens', async () => {
    if (child.exitCode !== null) throw new Error(said);
    if (statSync(tmp('s'), { throwIfNoEntry: false }) === undefined) return false;
    return connect().then((client) => client.close().then(() => true), () => false);
  });
  return child;
}

const connect = (): Promise<NbdClient> => NbdClient.open({ address: { type: 'unix', path: tmp('s') }, exportName: 'n' });

/** Everything at once, in a region of its own; what it holds is known after a write that succeeded. Returns the errnos of what failed. */
async function work(client: NbdClient, worker: number, steps: number, bytes: number): Promise<string[]> {
  const random = new Random(worker + 1);
  const failures: string[] = [];
  const attempt = async (what: Promise<void>): Promise<boolean> => what.then(() => true, (error: unknown) => {
    failures.push((error as { errno?: string }).errno ?? String(error));
    return false;
  });
  const known = new Map<number, number>();
  for (let step = 0; step < steps; step++) {
    const block = random.below(bytes / BLOCK / WORKERS);
    const offset = (block * WORKERS + worker) * BLOCK;
    const value = 1 + random.below(255);
    switch (random.below(6)) {
      case 0:
      case 1:
        if (await attempt(client.write(offset, new Uint8Array(BLOCK).fill(value)))) known.set(block, value);
        else known.delete(block);
        break;
      case 2:
        if (await attempt(client.writeZeroes(offset, BLOCK))) known.set(block, 0);
        else known.delete(block);
        break;
      case 3:
        known.delete(block);
        await attempt(client.trim(offset, BLOCK));
        break;
      case 4:
        await attempt(client.flush());
        break;
      default: {
        const buffer = new Uint8Array(BLOCK);
        const wanted = known.get(block);
        if (await attempt(client.read(offset, buffer)) && wanted !== undefined && !buffer.every((byte) => byte === wanted)) throw new Error(`block ${block} of ${worker} is not ${wanted}`);
      }
    }
  }
  return failures;
}

/** All of it through several connections, in the first `bytes` of the disk; returns what failed. */
async function storm(steps: number, bytes = SIZE): Promise<string[]> {
  const clients = await Promise.all(Array.from({ length: WORKERS / 2 }, connect));
  const failed = (await Promise.all(Array.from({ length: WORKERS }, (_, worker) => work(clients[worker % clients.length]!, worker, steps, bytes)))).flat();
  // not one connection was lost over it
  expect(clients.map(({ connections }) => connections)).toEqual(clients.map(() => 1));
  for (const client of clients) await client.close();
  return failed;
}

/** The whole disk is written, flushed and read back without an error. */
async function allIsWell(): Promise<Uint8Array> {
  const client = await connect();
  const content = new Uint8Array(SIZE);
  new Random(99).fill(content);
  await client.write(0, content);
  await client.flush();
  const back = new Uint8Array(SIZE);
  await client.read(0, back);
  expect(Buffer.compare(back, content)).toBe(0);
  await client.close();
  expect(await storm(10)).toEqual([]);
  const last = await connect();
  await last.write(0, content);
  await last.flush();
  await last.close();
  return content;
}

peers('nbdkit')('over nbdkit with its error filter', () => {
  test('a third of all requests fail', async () => {
    writeFileSync(tmp('disk.raw'), Buffer.alloc(SIZE));
    writeFileSync(tmp('broken'), '');
    await startPeer('nbdkit', nbdkitArgs(tmp('kit'), '--filter=error', 'file', tmp('disk.raw'), 'error=EIO', 'error-pwrite=ENOSPC', 'error-rate=0.33', `error-file=${tmp('broken')}`), tmp('kit'));
    const child = await serve(`driver=nbd,server.type=unix,server.path=${tmp('kit')}`);
    const failed = await storm(80);
    expect([...new Set(failed)].toSorted()).toEqual(['EIO', 'ENOSPC']);
    expect(failed.length).toBeGreaterThan(80);
    rmSync(tmp('broken'));
    const content = await allIsWell();
    await kill(child, 'SIGTERM');
    expect(child.exitCode).toBe(0);
    expect(Buffer.compare(readFileSync(tmp('disk.raw')), content)).toBe(0);
  });
});

peers('qemu-img', 'qemu-io')('over blkdebug', () => {
  const rules = (times: number, ...events: readonly (readonly [event: string, iotype: string, errno: number])[]): string => Array.from({ length: times }, () =>
    events.map(([event, iotype, errno]) => `[inject-error]\nevent = "${event}"\niotype = "${iotype}"\nerrno = "${errno}"\nonce = "on"\n`).join('')).join('');

  test('a raw image whose every kind of request fails now and then', async () => {
    writeFileSync(tmp('disk.raw'), Buffer.alloc(SIZE));
    writeFileSync(tmp('config'), rules(25, ['none', 'read', 5], ['none', 'write', 28], ['none', 'write-zeroes', 1], ['none', 'discard', 12], ['none', 'flush', 5]));
    const child = await serve(`driver=raw,file.driver=blkdebug,file.config=${tmp('config')},file.image.driver=file,file.image.filename=${tmp('disk.raw')}`);
    const failed = await storm(110);
    expect([...new Set(failed)].toSorted()).toEqual(['EIO', 'ENOMEM', 'ENOSPC', 'EPERM']);
    const content = await allIsWell();
    await kill(child, 'SIGTERM');
    expect(child.exitCode).toBe(0);
    expect(Buffer.compare(readFileSync(tmp('disk.raw')), content)).toBe(0);
  });

  test('a qcow2 image whose data and tables cannot be written now and then', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '8M');
    await runOk('qemu-io', ['-c', 'write -P 6 7M 1M', image]);
    writeFileSync(tmp('config'), rules(40, ['read_aio', 'read', 5], ['write_aio', 'write', 28], ['l2_update', 'write', 28], ['refblock_update_part', 'write', 28]));
    const child = await serve(`driver=qcow2,file.driver=blkdebug,file.config=${tmp('config')},file.image.driver=file,file.image.filename=${image}`);
    const failed = await storm(70, 7 * MiB);
    expect([...new Set(failed)].toSorted()).toEqual(['EIO', 'ENOSPC']);
    const client = await connect();
    const buffer = new Uint8Array(MiB);
    // as many requests fail as there are rules left
    await waitFor('reads succeed', () => client.read(7 * MiB, buffer).then(() => true, () => false));
    expect(buffer.every((byte) => byte === 6)).toBe(true);
    await waitFor('writes succeed', () => client.write(0, buffer).then(() => client.flush()).then(() => true, () => false));
    await client.close();
    const content = await allIsWell();
    await kill(child, 'SIGTERM');
    expect(child.exitCode).toBe(0);
    await runOk('qemu-img', ['check', '-q', image]);
    await runOk('qemu-img', ['convert', '-O', 'raw', image, tmp('out.raw')]);
    expect(Buffer.compare(readFileSync(tmp('out.raw')), content)).toBe(0);
  });
});
