/** Snapshots of a live disk that come to nothing: no snapshot, no leak, the guest writes on, and the next one succeeds. */
import { readdirSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { expect, test } from '@jest/globals';
import { KiB, MiB, leaksAtMost, makeImage, oneLineError, quiesceOk, snapshotNames, startQuiesce, waitFor, type RunningCommand } from '../support/cli.js';
import { acknowledged, guestArgs, installWriter, lastWrite, startLiveDisk, writesOn, type LiveDisk } from '../support/live-disk.js';
import { withMachine } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { kill, quiesce, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

function create(disk: LiveDisk, tag: string, source: string): string[] {
  return ['snapshot', 'create', '--daemon', disk.monitor, 'disk', tag, '--vm-state', source];
}

async function prepare(file?: string): Promise<{ image: string; disk: LiveDisk; args: string[] }> {
  const image = await makeImage(tmp('a.qcow2'), '16M');
  await installWriter(image);
  const disk = await startLiveDisk(tmp(), image, file?.replace('IMAGE', image));
  return { image, disk, args: guestArgs({ nbd: disk.nbd }, tmp('log')) };
}

const internal = (disk: LiveDisk, name: string): Promise<unknown> => disk.qmp.execute('blockdev-snapshot-internal-sync', { device: 'disk', name });

/** A command whose state has begun to flow. */
async function begin(disk: LiveDisk, image: string): Promise<RunningCommand> {
  const command = startQuiesce(create(disk, 't', '-'));
  command.child.stdin!.write(randomBytes(3000 * KiB, 1));
  await waitFor('the state reaches the image', () => statSync(image).size > 2 * MiB);
  return command;
}

peers('qemu-system-x86_64', 'qemu-img')('a snapshot of a live disk', () => {
  test('is not made of a state whose sender was killed, and until then nobody else may take it', async () => {
    const { image, disk, args } = await prepare();
    await withMachine(tmp('qmp'), args, async () => {
      const command = await begin(disk, image);
      await expect(internal(disk, 'other')).rejects.toThrow("Node 'disk' is receiving VM state for another snapshot");
      await expect(disk.qmp.execute('x-quiesce-vm-state-receive', { 'node-name': 'disk', name: 'other' })).rejects.toThrow('is receiving VM state');
      await expect(disk.qmp.execute('x-quiesce-snapshot-create', { 'node-name': 'disk', name: 'other', 'take-vm-state': true })).rejects.toThrow('of this client');
      await expect(disk.qmp.execute('blockdev-del', { 'node-name': 'disk' })).rejects.toThrow('in use');
      await writesOn(tmp('log'), 50);
      await kill(command.child);
      await waitFor('the state is forgotten', () => internal(disk, 'next').then(() => true, () => false));
      await writesOn(tmp('log'), 50);
    });
    await disk.end();
    expect(await snapshotNames(image)).toEqual(['next']);
    await runOk('qemu-img', ['check', '-q', image]);
    await lastWrite(image, 'next');
  });

  test('V-1: is not made of a stream of QEMU that is cut off, of no byte, or of another size than was sent', async () => {
    const { image, disk } = await prepare();
    const truncated = Buffer.concat([Buffer.from('QEVM'), randomBytes(100_000, 2)]);
    expect(oneLineError(await quiesce(create(disk, 't', '-'), { input: truncated }))).toContain('the QEMU migration stream ended after 100004 bytes');
    expect(oneLineError(await quiesce(create(disk, 't', '-'), { input: '' }))).toContain('without a byte');
    const { path } = await disk.qmp.execute('x-quiesce-vm-state-receive', { 'node-name': 'disk', name: 't' }) as { path: string };
    await new Promise<void>((resolve) => { connect({ path }).on('close', () => resolve()).resume().end('state'); });
    await expect(disk.qmp.execute('x-quiesce-snapshot-create', { 'node-name': 'disk', name: 't', 'take-vm-state': true, 'vm-state-size': 6 })).rejects.toThrow('5 bytes of VM state came, and 6 were sent');
    await quiesceOk(create(disk, 'whole', '-'), { input: 'state' });
    await disk.end();
    expect(await snapshotNames(image)).toEqual(['whole']);
    await runOk('qemu-img', ['check', '-q', image]);
  });

  test('V-1: is not made where the disk fails under the state, and the machine runs on', async () => {
    const { image, disk, args } = await prepare('file.driver=blkdebug,file.image.driver=file,file.image.filename=IMAGE,file.inject-error.0.event=vmstate_save,file.inject-error.0.once=on,file.inject-error.0.iotype=write');
    await withMachine(tmp('qmp'), args, async () => {
      await writesOn(tmp('log'), 20);
      expect(oneLineError(await quiesce(create(disk, 't', `qmp:${tmp('qmp')}`)))).toMatch(/^the daemon at '\S+' (could not take the VM state|refused): .*Input\/output error/);
      await writesOn(tmp('log'), 20);
      await quiesceOk(create(disk, 'next', `qmp:${tmp('qmp')}`));
      await writesOn(tmp('log'), 20);
    });
    await disk.end();
    expect(await snapshotNames(image)).toEqual(['next']);
    await runOk('qemu-img', ['check', '-q', image]);
  });

  test.each(['end', 'kill'] as const)('is not made by a daemon that gets a %s meanwhile; what was flushed is there', async (how) => {
    const { image, disk, args } = await prepare();
    await withMachine(tmp('qmp'), args, async () => {
      await writesOn(tmp('log'), 20);
      await internal(disk, 'before');
      const command = await begin(disk, image);
      await disk[how]();
      command.child.stdin!.end();
      expect((await command.done).code).toBe(1);
    });
    expect(await snapshotNames(image)).toEqual(['before']);
    if (how === 'end') {
      await runOk('qemu-img', ['check', '-q', image]);
      expect(readdirSync(tmp()).filter((name) => name.startsWith('quiesce-'))).toEqual([]);
    }
    if (how === 'kill') await leaksAtMost(image);
    expect(await lastWrite(image, 'before')).toBeLessThanOrEqual(acknowledged(tmp('log')).at(-1)! + 1);
  });
});
