/** fio writes and verifies through four connections while QMP takes and deletes snapshots of the disk and puts filters below it, and takes them away. */
import { statSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { afterEach, expect, test } from '@jest/globals';
import { QmpClient } from '../../src/index.js';
import { makeImage, MiB, snapshotNames, waitFor } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { kill, run, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const JOBS = 4;
const SIZE = 32 * MiB;
const daemons: ChildProcess[] = [];
afterEach(async () => {
  for (const child of daemons.splice(0)) await kill(child);
});

async function startDaemon(image: string): Promise<{ readonly child: ChildProcess; readonly qmp: QmpClient }> {
  const child = start(storageDaemonLauncher, [
    '--object', 'throttle-group,id=t,limits.iops-total=3000', '--blockdev', `driver=file,node-name=file,filename=${image}`, '--blockdev', 'driver=qcow2,node-name=disk,file=file',
    '--chardev', `socket,id=c,path=${tmp('qmp')},server=on,wait=off`, '--monitor', 'c',
    '--nbd-server', `addr.type=unix,addr.path=${tmp('s')}`, '--export', 'nbd,id=e,node-name=disk,writable=on',
  ]);
  daemons.push(child);
  let qmp: QmpClient | null = null;
  await waitFor('the monitor answers', async () => {
    if (statSync(tmp('s'), { throwIfNoEntry: false }) !== undefined) qmp = await QmpClient.connect(tmp('qmp')).catch(() => null);
    return qmp !== null;
  });
  return { child, qmp: qmp! };
}

const FILTERS: readonly Readonly<Record<string, string | number>>[] = [
  { driver: 'throttle', 'throttle-group': 't', file: 'file' }, { driver: 'blkdebug', image: 'file', align: 4096 }, { driver: 'preallocate', file: 'file' },
];

peers('fio', 'qemu-img')('while fio verifies', () => {
  test('snapshots and filters come and go, and not a byte is wrong', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '32M');
    const { child, qmp } = await startDaemon(image);
    let done = false;
    const fio = run('fio', ['--name=v', '--ioengine=nbd', `--uri=nbd+unix:///disk?socket=${tmp('s')}`, '--rw=randwrite', '--bsrange=4k-64k', `--size=${SIZE / JOBS}`, `--offset_increment=${SIZE / JOBS}`,
      `--numjobs=${JOBS}`, '--thread', '--iodepth=16', '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--loops=2', '--rate=6m', '--randseed=11', '--minimal'], { timeoutMs: 55_000 }).finally(() => { done = true; });
    let turns = 0;
    for (; !done; turns++) {
      const below = { ...FILTERS[turns % FILTERS.length]!, 'node-name': `filter${turns}` };
      await qmp.execute('blockdev-add', below);
      await qmp.execute('blockdev-reopen', { options: [{ driver: 'qcow2', 'node-name': 'disk', file: below['node-name'] }] });
      await qmp.execute('blockdev-snapshot-internal-sync', { device: 'disk', name: `s${turns}` });
      if (turns >= 3) await qmp.execute('blockdev-snapshot-delete-internal-sync', { device: 'disk', name: `s${turns - 3}` });
      await qmp.execute('blockdev-reopen', { options: [{ driver: 'qcow2', 'node-name': 'disk', file: 'file' }] });
      await qmp.execute('blockdev-del', { 'node-name': below['node-name'] });
    }
    const result = await fio;
    expect([result.code, result.stderr]).toEqual([0, '']);
    expect(turns).toBeGreaterThan(FILTERS.length);
    qmp.close();
    await kill(child, 'SIGTERM');
    expect(child.exitCode).toBe(0);
    await runOk('qemu-img', ['check', '-q', image]);
    expect(await snapshotNames(image)).toEqual([turns - 3, turns - 2, turns - 1].map((turn) => `s${turn}`));
  });
});
