/** A flush that failed leaves unknown what is on the disk: clients hear of it then, and of every flush after it, however well the disk does again. */
import { statSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { afterEach, expect, test } from '@jest/globals';
import { NbdClient } from '../../src/index.js';
import { KiB, waitFor } from '../support/cli.js';
import { host, useHost } from '../support/host.js';
import { peers } from '../support/peers.js';
import { kill, run, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const children: ChildProcess[] = [];
// before what they stand on goes away
afterEach(async () => {
  for (const child of children.splice(0)) await kill(child);
});
const devices = useHost();
const tmp = useTmp();

/** Serves the node `n`; resolves when clients can connect. */
async function serve(program: string, ...nodes: readonly object[]): Promise<{ child: ChildProcess; client: NbdClient }> {
  const child = start(program, [
    ...nodes.flatMap((node) => ['--blockdev', JSON.stringify(node)]),
    '--nbd-server', `addr.type=unix,addr.path=${tmp('s')}`, '--export', 'nbd,id=e,node-name=n,writable=on',
  ]);
  children.push(child);
  let said = '';
  child.stderr!.on('data', (data: Buffer) => { said += data.toString(); });
  let client: NbdClient | null = null;
  await waitFor('it listens', async () => {
    if (child.exitCode !== null) throw new Error(said);
    if (statSync(tmp('s'), { throwIfNoEntry: false }) !== undefined) client = await NbdClient.open({ address: { type: 'unix', path: tmp('s') }, exportName: 'n' }).catch(() => null);
    return client !== null;
  });
  return { child, client: client! };
}

const outcome = (work: Promise<unknown>): Promise<string> => work.then(() => 'done', (error: unknown) => (error as { errno?: string }).errno ?? String(error));
const block = (value: number): Uint8Array => new Uint8Array(4 * KiB).fill(value);

host(['loop', 'mount'])('a disk that lost what it had taken', () => {
  peers('qemu-storage-daemon')('beside qemu-storage-daemon', () => {
    test.each([['qemu-storage-daemon', 'qemu-storage-daemon'], ['ours', storageDaemonLauncher]])('a FUA write that failed is no better: %s', async (_name, program) => {
      const folder = devices.mount(tmp('small'), '-t', 'tmpfs', '-o', 'size=256K', 'quiesce-test');
      await runOk('truncate', ['-s', '16M', `${folder}/disk`]);
      const { client } = await serve(program, { driver: 'host_device', 'node-name': 'n', filename: devices.loop(`${folder}/disk`) });
      const told: string[] = [];
      while (told.length < 256 && told.at(-1) !== 'EIO') told.push(await outcome(client.write(told.length * 4 * KiB, block(1), { fua: true })));
      expect([told.length > 8, told.at(-1)]).toEqual([true, 'EIO']);
      await runOk('mount', ['-o', 'remount,size=64M', folder]);
      for (let times = 0; times < 2; times++) expect(await outcome(client.flush())).toBe('EIO');
      expect(await outcome(client.write(2048 * KiB, block(2), { fua: true }))).toBe('EIO');
      await client.close();
    });

    test.each([['qemu-storage-daemon', 'qemu-storage-daemon'], ['ours', storageDaemonLauncher]])('flushes fail although the disk has room again: %s', async (_name, program) => {
      const folder = devices.mount(tmp('small'), '-t', 'tmpfs', '-o', 'size=256K', 'quiesce-test');
      await runOk('truncate', ['-s', '16M', `${folder}/disk`]);
      const { client } = await serve(program, { driver: 'host_device', 'node-name': 'n', filename: devices.loop(`${folder}/disk`) });
      const first = await outcome((async () => {
        await client.write(0, new Uint8Array(1024 * KiB).fill(1));
        await client.flush();
      })());
      expect(first).toBe('EIO');
      await runOk('mount', ['-o', 'remount,size=64M', folder]);
      for (let times = 0; times < 3; times++) expect(await outcome(client.flush())).toBe('EIO');
      expect(await outcome(client.write(2048 * KiB, block(2), { fua: true }))).toBe('EIO');
      expect(await outcome(client.flush())).toBe('EIO');
      await client.close();
    });
  });
});

peers('qemu-img', 'qemu-io')('a qcow2 image over a disk that fails once', () => {
  async function image(...options: readonly string[]): Promise<void> {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, tmp('disk.qcow2'), '16M']);
  }

  const failing = (rule: object): object => ({
    driver: 'qcow2', 'node-name': 'n', file: { driver: 'blkdebug', image: { driver: 'file', filename: tmp('disk.qcow2') }, 'inject-error': [{ once: true, ...rule }] },
  });

  test('in a flush: nothing is taken any more, and nothing of it is called durable', async () => {
    await image();
    const { child, client } = await serve(storageDaemonLauncher, failing({ event: 'flush_to_disk', iotype: 'flush' }));
    await client.write(0, block(1));
    expect(await outcome(client.flush())).toBe('EIO');
    for (let times = 0; times < 3; times++) expect(await outcome(client.flush())).toBe('EIO');
    expect(await outcome(client.write(0, block(2)))).toBe('EIO');
    expect(await outcome(client.write(128 * KiB, block(2), { fua: true }))).toBe('EIO');
    const back = block(0);
    await client.read(0, back);
    expect(back).toEqual(block(1));
    await kill(child, 'SIGKILL');
    expect((await run('qemu-img', ['check', '-q', tmp('disk.qcow2')])).code).not.toBe(2);
  });

  test('in a write of the header, so does everything', async () => {
    await image('-o', 'lazy_refcounts=on');
    const { child, client } = await serve(storageDaemonLauncher, failing({ event: 'none', sector: 0, iotype: 'write' }));
    expect(await outcome(client.write(0, block(1)))).toBe('EIO');
    for (let times = 0; times < 2; times++) {
      expect(await outcome(client.write(0, block(1)))).toBe('EIO');
      expect(await outcome(client.flush())).toBe('EIO');
    }
    await kill(child, 'SIGKILL');
    expect((await run('qemu-img', ['check', '-q', tmp('disk.qcow2')])).code).toBe(0);
  });

  test.each(['refblock_update_part', 'l2_update'])('in a write of a table (%s), which the next flush writes again: what that calls durable survives', async (event) => {
    await image();
    const { child, client } = await serve(storageDaemonLauncher, failing({ event, iotype: 'write' }));
    await client.write(0, block(1));
    expect(await outcome(client.flush())).toBe('EIO');
    expect(await outcome(client.flush())).toBe('done');
    await client.write(64 * KiB, block(2));
    expect(await outcome(client.flush())).toBe('done');
    await kill(child, 'SIGKILL');
    await runOk('qemu-img', ['check', '-q', tmp('disk.qcow2')]);
    await runOk('qemu-io', ['-r', '-c', 'read -P 1 0 4k', '-c', 'read -P 2 64k 4k', tmp('disk.qcow2')]);
  });
});
