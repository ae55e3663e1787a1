/** snapshot-save and -load with RAM: a running machine on our export gives its state over a socket, and another one goes on from it. */
import { connect } from 'node:net';
import { expect, test } from '@jest/globals';
import { QmpClient } from '../../src/index.js';
import { makeImage, snapshotNames, waitFor } from '../support/cli.js';
import { acknowledged, guestArgs, installWriter, lastWrite, startLiveDisk, writesOn, type LiveDisk } from '../support/live-disk.js';
import { withMachine } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { appears } from '../support/listening.js';
import { disappears } from '../support/programs.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

function start({ qmp }: LiveDisk, command: string, more: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
  return qmp.execute(command, { 'job-id': 'job', tag: 't', vmstate: 'disk', devices: ['disk'], 'vm-state': { type: 'unix', path: tmp('ram') }, ...more });
}

async function ended({ qmp }: LiveDisk): Promise<string | null> {
  let jobs: { status: string; error?: string }[] = [];
  await waitFor('the job ends', async () => {
    jobs = await qmp.execute('query-jobs') as typeof jobs;
    return jobs[0]!.status === 'concluded';
  });
  await qmp.execute('job-dismiss', { id: 'job' });
  return jobs[0]!.error ?? null;
}

peers('qemu-system-x86_64', 'qemu-img')('a machine', () => {
  test('goes on from a snapshot right where it was, with its disk', async () => {
    const image = await makeImage(tmp('a.qcow2'), '64M');
    await installWriter(image);
    const disk = await startLiveDisk(tmp(), image);
    await withMachine(tmp('qmp'), guestArgs({ nbd: disk.nbd }, tmp('log')), async ({ qmp }) => {
      await writesOn(tmp('log'), 50);
      await start(disk, 'snapshot-save');
      await appears(tmp('ram'));
      await expect(disk.qmp.execute('blockdev-snapshot-internal-sync', { device: 'disk', name: 'between' })).rejects.toThrow('receiving VM state');
      await qmp.execute('migrate', { uri: `unix:${tmp('ram')}` });
      expect(await ended(disk)).toBeNull();
      await qmp.execute('cont');
      await writesOn(tmp('log'), 100);
    });
    const log = tmp('log2');
    await withMachine(tmp('qmp2'), [...guestArgs({ nbd: disk.nbd }, log), '-incoming', `unix:${tmp('ram')}`], async () => {
      await start(disk, 'snapshot-load');
      expect(await ended(disk)).toBeNull();
      await writesOn(log, 20);
    });
    await disk.end();
    await runOk('qemu-img', ['check', '-q', image]);
    expect(await snapshotNames(image)).toEqual(['t']);
    const last = await lastWrite(image, 't');
    expect(acknowledged(tmp('log'))).toContain(last);
    // the write that was under way at the stop is told by whoever goes on
    expect([last, last + 1]).toContain(acknowledged(log)[0]);
    expect(await lastWrite(image, null)).toBeGreaterThanOrEqual(acknowledged(log).at(-1)!);
  });

  test('leaves nothing behind where no state comes, the job is cancelled, or there is no RAM', async () => {
    const image = await makeImage(tmp('a.qcow2'), '64M');
    const disk = await startLiveDisk(tmp(), image);
    await start(disk, 'snapshot-save');
    await appears(tmp('ram'));
    await disk.qmp.execute('job-cancel', { id: 'job' });
    expect(await ended(disk)).toBe('Operation canceled');
    await disappears(tmp('ram'));
    await start(disk, 'snapshot-save');
    await appears(tmp('ram'));
    connect({ path: tmp('ram') }).end();
    expect(await ended(disk)).toBe('no VM state came: its stream ended without a byte');
    await start(disk, 'snapshot-save', { 'vm-state': undefined });
    expect(await ended(disk)).toBeNull();
    await start(disk, 'snapshot-load');
    expect(await ended(disk)).toBe('This is a disk-only snapshot. Revert to it  offline using qemu-img');
    await expect(start(disk, 'snapshot-save', { 'vm-state': { type: 'inet', host: 'localhost', port: '1' } })).rejects.toThrow('Unix sockets');
    const other = await QmpClient.connect(disk.monitor);
    expect(JSON.stringify(await other.execute('query-commands'))).not.toContain('snapshot-save');
    other.close();
    await disk.end();
    expect(await snapshotNames(image)).toEqual(['t']);
    await runOk('qemu-img', ['check', '-q', image]);
  });
});
