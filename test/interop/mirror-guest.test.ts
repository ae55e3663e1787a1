/** Mirrors under real clients and to real servers: fio writes and verifies over NBD while the disk moves to qemu-nbd and back; a server that stops answering. */
import { statSync, truncateSync, writeFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { afterEach, expect, test } from '@jest/globals';
import { QmpClient } from '../../src/index.js';
import { makeImage, MiB, waitFor } from '../support/cli.js';
import { qemuNbdArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { kill, run, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const startPeer = useNbdPeers();
const JOBS = 4;
const SIZE = 32 * MiB;
const daemons: ChildProcess[] = [];
afterEach(async () => {
  for (const child of daemons.splice(0)) await kill(child);
});

interface Running {
  readonly child: ChildProcess;
  readonly qmp: QmpClient;
  readonly mirror: (source: string, target: string, more?: Readonly<Record<string, string | number>>) => Promise<void>;
  readonly complete: () => Promise<void>;
}

/** A daemon that serves `disk`, which may move to `other`, an export of qemu-nbd. */
async function startDaemon(image: string): Promise<Running> {
  const other = { driver: 'nbd', 'node-name': 'other', server: { type: 'unix', path: tmp('peer') } };
  const child = start(storageDaemonLauncher, [
    '--blockdev', `driver=qcow2,node-name=disk,file.driver=file,file.filename=${image}`, '--blockdev', JSON.stringify(other),
    '--chardev', `socket,id=c,path=${tmp('qmp')},server=on,wait=off`, '--monitor', 'c',
    '--nbd-server', `addr.type=unix,addr.path=${tmp('s')}`, '--export', 'nbd,id=e,node-name=disk,writable=on,name=disk',
  ]);
  daemons.push(child);
  let connected: QmpClient | null = null;
  await waitFor('the monitor answers', async () => {
    if (statSync(tmp('s'), { throwIfNoEntry: false }) !== undefined) connected = await QmpClient.connect(tmp('qmp')).catch(() => null);
    return connected !== null;
  });
  const qmp: QmpClient = connected!;
  return {
    child, qmp,
    mirror: async (source, target, more = {}) => {
      const ready = qmp.waitEvent('BLOCK_JOB_READY', undefined, { timeoutMs: 60_000 });
      await qmp.execute('blockdev-mirror', { 'job-id': 'j', device: source, target, sync: 'full', ...more });
      await ready;
    },
    complete: async () => {
      const completed = qmp.waitEvent('BLOCK_JOB_COMPLETED', undefined, { timeoutMs: 60_000 });
      await qmp.execute('block-job-complete', { device: 'j' });
      expect((await completed).data).not.toHaveProperty('error');
    },
  };
}

peers('fio', 'qemu-img', 'qemu-nbd')('a mirror to qemu-nbd', () => {
  test('while fio verifies, there and back: not a byte is wrong, and the disks are equal', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '32M');
    const copy = tmp('copy.raw');
    writeFileSync(copy, '');
    truncateSync(copy, SIZE);
    await startPeer('qemu-nbd', qemuNbdArgs(tmp('peer'), copy), tmp('peer'));
    const { child, qmp, mirror, complete } = await startDaemon(image);
    const fio = run('fio', ['--name=v', '--ioengine=nbd', `--uri=nbd+unix:///disk?socket=${tmp('s')}`, '--rw=randwrite', '--bsrange=4k-64k', `--size=${SIZE / JOBS}`, `--offset_increment=${SIZE / JOBS}`,
      `--numjobs=${JOBS}`, '--thread', '--iodepth=8', '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--loops=2', '--rate=4m', '--randseed=5', '--minimal'], { timeoutMs: 100_000 });
    const switching = (async () => {
      for (const mode of ['background', 'write-blocking', 'background', 'write-blocking']) {
        await qmp.execute('block-job-change', { id: 'j', type: 'mirror', 'copy-mode': mode }).catch(() => undefined);
        await new Promise((resolve) => { setTimeout(resolve, 100); });
      }
    })();
    await mirror('disk', 'other');
    await switching;
    await qmp.execute('block-job-change', { id: 'j', type: 'mirror', 'copy-mode': 'write-blocking' });
    await complete();
    await mirror('other', 'disk', { 'copy-mode': 'write-blocking' });
    const result = await fio;
    expect([result.code, result.stderr]).toEqual([0, '']);
    await complete();
    qmp.close();
    await kill(child, 'SIGTERM');
    expect(child.exitCode).toBe(0);
    await runOk('qemu-img', ['check', '-q', image]);
    await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', image, copy]);
  }, 120_000);

  test('that stops answering: a forced cancel does not wait for it, guests go on, and the node can be removed', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '32M');
    const copy = tmp('copy.raw');
    writeFileSync(copy, '');
    truncateSync(copy, SIZE);
    const server = await startPeer('qemu-nbd', qemuNbdArgs(tmp('peer'), copy), tmp('peer'));
    const { qmp, mirror } = await startDaemon(image);
    await mirror('disk', 'other', { 'copy-mode': 'write-blocking' });
    server.process.kill('SIGSTOP');
    try {
      const writing = run('qemu-io', ['-f', 'raw', '-c', 'write -P 7 1M 64k', `nbd+unix:///disk?socket=${tmp('s')}`]);
      await new Promise((resolve) => { setTimeout(resolve, 500); });
      const began = performance.now();
      const cancelled = qmp.waitEvent('BLOCK_JOB_CANCELLED');
      await qmp.execute('block-job-cancel', { device: 'j', force: true });
      await cancelled;
      expect(performance.now() - began).toBeLessThan(10_000);
      expect((await writing).code).toBe(0);
      await qmp.execute('blockdev-del', { 'node-name': 'other' });
      expect(await runOk('qemu-io', ['-f', 'raw', '-c', 'read -P 7 1M 64k', `nbd+unix:///disk?socket=${tmp('s')}`])).not.toContain('failed');
    } finally {
      server.process.kill('SIGCONT');
    }
  });
});
