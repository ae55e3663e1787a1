/** A running machine whose disk is our export: stopped, its RAM streamed right into the image, and let run again, however it ends. */
import { expect, test } from '@jest/globals';
import { machineStatus } from '../../src/index.js';
import { expectRefused, makeImage, quiesceOk, snapshotNames, startQuiesce, waitFor } from '../support/cli.js';
import { acknowledged, guestArgs, installWriter, lastWrite, startLiveDisk, writesOn, type LiveDisk } from '../support/live-disk.js';
import { drive, waitForState, withMachine, type RamMachine } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

function create(disk: LiveDisk, tag: string): string[] {
  return ['snapshot', 'create', '--daemon', disk.monitor, 'disk', tag, '--vm-state', `qmp:${tmp('qmp')}`];
}

async function runsOn({ qmp }: RamMachine): Promise<void> {
  expect(await machineStatus(qmp)).toEqual({ state: 'running', running: true });
  expect(JSON.stringify(await qmp.execute('qom-list', { path: '/objects' }))).not.toContain('quiesce');
  await writesOn(tmp('log'), 20);
}

async function prepare(): Promise<{ image: string; disk: LiveDisk }> {
  const image = await makeImage(tmp('a.qcow2'), '64M');
  await installWriter(image);
  return { image, disk: await startLiveDisk(tmp(), image) };
}

peers('qemu-system-x86_64', 'qemu-img')('a machine on our export', () => {
  test('goes on from each snapshot right where it was, on the image itself', async () => {
    const { image, disk } = await prepare();
    await withMachine(tmp('qmp'), guestArgs({ nbd: disk.nbd }, tmp('log')), async (machine) => {
      await writesOn(tmp('log'), 50);
      expect(await quiesceOk(create(disk, 'one'))).toMatch(/^snapshot 'one' of node 'disk' is durable \(id 1, \S+ \S+ of RAM state\); writes waited \S+ ms, the machine stood still for \S+ ms\n$/);
      await runsOn(machine);
      expect(JSON.parse(await quiesceOk([...create(disk, 'one'), '--replace', '--json']))).toMatchObject({ 'stopped-ms': expect.any(Number), images: [{ name: 'one', id: '2' }] });
      await runsOn(machine);
      await machine.qmp.execute('stop');
      await quiesceOk(create(disk, 'stopped'));
      expect(await machineStatus(machine.qmp)).toMatchObject({ running: false });
      await machine.qmp.execute('cont');
      await runsOn(machine);
    });
    await disk.end();
    await runOk('qemu-img', ['check', '-q', image]);
    expect(await snapshotNames(image)).toEqual(['one', 'stopped']);
    for (const tag of ['one', 'stopped']) {
      const last = await lastWrite(image, tag);
      expect(acknowledged(tmp('log'))).toContain(last);
      const log = tmp(`log.${tag}`);
      await withMachine(tmp('qmp2'), [...guestArgs({ image }, log), '-loadvm', tag], () => writesOn(log, 20));
      const [first] = acknowledged(log);
      // the write that was under way at the stop is told by whoever goes on
      expect([last, last + 1]).toContain(first);
      expect(await lastWrite(image, null)).toBeGreaterThanOrEqual(acknowledged(log).at(-1)!);
    }
    await runOk('qemu-img', ['check', '-q', image]);
  });

  test('runs on where the snapshot is refused, or was cancelled', async () => {
    const { image, disk } = await prepare();
    await withMachine(tmp('qmp'), guestArgs({ nbd: disk.nbd }, tmp('log')), async (machine) => {
      await writesOn(tmp('log'), 20);
      await disk.qmp.execute('blockdev-snapshot-internal-sync', { device: 'disk', name: 'taken' });
      await expectRefused(create(disk, 'taken'), "already has a snapshot 'taken'");
      await expectRefused(['snapshot', 'create', '--daemon', disk.monitor, 'no', 't', '--vm-state', `qmp:${tmp('qmp')}`], "node-name='no'");
      await runsOn(machine);
      const command = startQuiesce(create(disk, 't'));
      await waitForState(machine.qmp, 'paused', 'finish-migrate', 'postmigrate');
      command.child.kill('SIGINT');
      const { code } = await command.done;
      await runsOn(machine);
      await waitFor('the state is forgotten', () => disk.qmp.execute('blockdev-snapshot-internal-sync', { device: 'disk', name: 'next' }).then(() => true, () => false));
      await runsOn(machine);
      await disk.end();
      await runOk('qemu-img', ['check', '-q', image]);
      expect(await snapshotNames(image)).toEqual(code === 0 ? ['taken', 't', 'next'] : ['taken', 'next']);
    });
  });

  test('is refused with a disk that is not the export', async () => {
    const { image, disk } = await prepare();
    const other = await makeImage(tmp('b.qcow2'));
    await withMachine(tmp('qmp'), [...guestArgs({ nbd: disk.nbd }, tmp('log')), ...drive(other)], async (machine) => {
      await writesOn(tmp('log'), 20);
      await expectRefused(create(disk, 't'), /must write to one disk, an export of node 'disk', and writes to: .*b\.qcow2/);
      await runsOn(machine);
    });
    await disk.end();
    expect(await snapshotNames(image)).toEqual([]);
  });
});
