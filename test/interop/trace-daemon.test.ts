/** A daemon records while guests write and a mirror runs: who asked for what, and why; and its trace harms nobody. */
import { existsSync, readFileSync, statSync, symlinkSync } from 'node:fs';
import { afterEach, expect, test } from '@jest/globals';
import type { ChildProcess } from 'node:child_process';
import { NbdClient, QmpClient } from '../../src/index.js';
import { makeImage, waitFor } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { kill, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { judge } from '../support/trace-judges.js';

const tmp = useTmp();
let child: ChildProcess | null = null;
let qmp: QmpClient | null = null;
afterEach(async () => {
  qmp?.close();
  qmp = null;
  if (child !== null) await kill(child);
});

async function startDaemon(limited = false): Promise<QmpClient> {
  for (const name of ['source', 'target']) await makeImage(tmp(name), '64M');
  child = start(storageDaemonLauncher, [
    '--object', 'throttle-group,id=g,limits.iops-write=50',
    ...['source', 'target'].flatMap((name) => ['--blockdev', `driver=file,node-name=${name}-file,filename=${tmp(name)}`, '--blockdev', `driver=qcow2,node-name=${name},file=${name}-file`]),
    ...limited ? ['--blockdev', 'driver=throttle,node-name=disk,throttle-group=g,file=source'] : [],
    '--chardev', `socket,id=c,path=${tmp('qmp')},server=on,wait=off`, '--monitor', 'c',
    '--nbd-server', `addr.type=unix,addr.path=${tmp('s')}`, '--export', `nbd,id=e,node-name=${limited ? 'disk' : 'source'},writable=on,name=disk`,
  ]);
  await waitFor('the monitor answers', async () => {
    if (statSync(tmp('s'), { throwIfNoEntry: false }) !== undefined) qmp = await QmpClient.connect(tmp('qmp')).catch(() => null);
    return qmp !== null;
  });
  return qmp!;
}

interface Told { readonly recording: boolean; readonly files: readonly string[]; readonly events: number; readonly dropped: number; readonly error?: string }

async function guest(writes: number): Promise<void> {
  const client = await NbdClient.open({ address: { type: 'unix', path: tmp('s') }, exportName: 'disk' });
  const data = Buffer.alloc(64 * 1024, 7);
  for (let done = 0; done < writes; done += 8) await Promise.all(Array.from({ length: Math.min(8, writes - done) }, (_, index) => client.write(((done + index) % 900) * 65_536, data)));
  await client.flush();
  await client.close();
}

peers('blkparse', 'btt', 'blkrawverify', 'iowatcher', 'fio', 'qemu-img')('tools read it', () => {
  test('a mirror under load', async () => {
    const monitor = await startDaemon();
    await guest(300);
    expect(await monitor.execute('x-quiesce-query-trace')).toEqual({ recording: false });
    await monitor.execute('x-quiesce-trace-start', { file: tmp('t') });
    await expect(monitor.execute('x-quiesce-trace-start', { file: tmp('u') })).rejects.toThrow('a trace is being recorded already');
    const load = guest(400);
    const ready = monitor.waitEvent('BLOCK_JOB_READY', () => true, { timeoutMs: 30_000 });
    await monitor.execute('blockdev-mirror', { 'job-id': 'm0', device: 'source', target: 'target', sync: 'full', 'copy-mode': 'write-blocking' });
    await Promise.all([ready, load]);
    await guest(50);
    expect(await monitor.execute('x-quiesce-query-trace')).toMatchObject({ recording: true, dropped: 0 });
    const over = monitor.waitEvent('BLOCK_JOB_COMPLETED', () => true, { timeoutMs: 30_000 });
    await monitor.execute('block-job-complete', { device: 'm0' });
    expect((await over).data).not.toHaveProperty('error');
    const told = await monitor.execute('x-quiesce-trace-stop') as Told;
    expect(told).toMatchObject({ recording: false, dropped: 0 });
    expect(await monitor.execute('x-quiesce-query-trace')).toEqual(told);
    await expect(monitor.execute('x-quiesce-trace-stop')).rejects.toThrow('no trace is being recorded');
    const { counts, table } = await judge(tmp('t'));
    expect(Object.values(counts).reduce((sum, count) => sum + count, 0)).toBe(told.events);
    const pids = new Map([...table.processes].map(([pid, name]) => [name, pid]));
    const job = pids.get('mirror m0')!;
    expect(job).toBeGreaterThan(5_000_000);
    const deviceOf = (name: string): number => [...table.deviceNames].find(([, what]) => what === name)![0];
    const rows = [...table.device].map((device, row) => ({ device, pid: table.pid[row]!, cause: table.causes[table.cause[row]!]!, write: table.category[row]! % 4 >= 2, bytes: table.bytes[row]! }));
    const target = rows.filter(({ device, write, bytes }) => device === deviceOf('guest disk target') && write && bytes > 0);
    expect(target.some(({ pid, cause }) => pid === job && cause === 'mirror')).toBe(true);
    // what guests wrote went to the target in their name
    expect(target.some(({ pid, cause }) => pid !== job && pid > 5_000_000 && cause === 'mirror')).toBe(true);
    expect(rows.some(({ device, pid, write }) => device === deviceOf('guest disk source') && pid === job && !write)).toBe(true);
  }, 90_000);

  test('who waits for a limit is seen to wait', async () => {
    const monitor = await startDaemon(true);
    await monitor.execute('x-quiesce-trace-start', { file: tmp('t') });
    await guest(60);
    await monitor.execute('x-quiesce-trace-stop');
    const { counts, table } = await judge(tmp('t'));
    const [filter] = [...table.deviceNames].find(([, name]) => !/^(guest disk|host file|data|metadata)/.test(name)) ?? [];
    expect(filter).toBeDefined();
    const key = `4000,${filter! % 0x10_0000}`;
    expect(counts[`${key} IW`]).toBeGreaterThan(10);
    expect(counts[`${key} GW`]).toBe(counts[`${key} IW`]);
    const waited = [...table.device].flatMap((device, row) => device === filter && !Number.isNaN(table.inserted[row]!) ? [table.issued[row]! - table.inserted[row]!] : []);
    expect(Math.max(...waited)).toBeGreaterThan(1e6);
  });
});

peers('qemu-img')('a disk for traces that is full', () => {
  test('ends the trace, and nothing else', async () => {
    const monitor = await startDaemon();
    symlinkSync('/dev/full', tmp('t.blktrace.0'));
    await monitor.execute('x-quiesce-trace-start', { file: tmp('t') });
    await guest(100);
    await waitFor('it is told', async () => 'error' in (await monitor.execute('x-quiesce-query-trace') as Told));
    expect(await monitor.execute('x-quiesce-query-trace')).toMatchObject({ recording: false, error: expect.stringMatching(/^Writing the trace '.*' failed: recording has stopped: .*No space left/) });
    await guest(100);
    await monitor.execute('x-quiesce-trace-stop');
    await monitor.execute('x-quiesce-trace-start', { file: tmp('again') });
    await guest(8);
    expect(await monitor.execute('x-quiesce-trace-stop')).toMatchObject({ recording: false, dropped: 0 });
    expect(existsSync(tmp('again.blktrace.0'))).toBe(true);
    expect(readFileSync(tmp('source')).byteLength).toBeGreaterThan(100 * 65_536);
    await runOk('qemu-img', ['check', '-U', '-q', tmp('source')]);
  });
});
