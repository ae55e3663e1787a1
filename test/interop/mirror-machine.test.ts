/**
 * A machine of QEMU that writes to its disk all the time, over NBD, while the disk below it moves: to qemu-nbd by a mirror,
 * away from its base by a stream, into it by a commit. It never notices, and no write is lost or torn.
 */
import { truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { makeImage, MiB } from '../support/cli.js';
import { acknowledged, guestArgs, installWriter, lastWrite, startLiveDisk, writesOn, type LiveDisk } from '../support/live-disk.js';
import { withMachine } from '../support/machine-ram.js';
import { qemuNbdArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const startPeer = useNbdPeers();
const SIZE = 16 * MiB;
const PATIENCE = { timeoutMs: 60_000 };

/** Runs a job that becomes ready, and completes it. */
async function throughReady({ qmp }: LiveDisk, command: string, args: Readonly<Record<string, string | number>>, meanwhile: () => Promise<void>): Promise<void> {
  const ready = qmp.waitEvent('BLOCK_JOB_READY', undefined, PATIENCE);
  await qmp.execute(command, { 'job-id': 'j', ...args });
  await ready;
  await meanwhile();
  const completed = qmp.waitEvent('BLOCK_JOB_COMPLETED', undefined, PATIENCE);
  await qmp.execute('block-job-complete', { device: 'j' });
  expect((await completed).data).not.toHaveProperty('error');
}

/** The guest wrote one number after the other, and all that it was told is there. */
async function expectAll(image: string, log: string): Promise<void> {
  const told = acknowledged(log);
  expect(told).toEqual(told.map((_, index) => index + 1));
  expect(await lastWrite(image, null)).toBeGreaterThanOrEqual(told.at(-1)!);
}

peers('qemu-system-x86_64', 'qemu-img', 'qemu-nbd')('a guest goes on writing', () => {
  test.each(['background', 'write-blocking'])('while its disk moves to qemu-nbd and back, in copy mode %s', async (copyMode) => {
    const image = await makeImage(tmp('a.qcow2'), `${SIZE}`);
    await installWriter(image);
    const copy = tmp('copy.raw');
    writeFileSync(copy, '');
    truncateSync(copy, SIZE);
    await startPeer('qemu-nbd', qemuNbdArgs(tmp('peer'), copy), tmp('peer'));
    const disk = await startLiveDisk(tmp(), image);
    const log = tmp('log');
    await disk.qmp.execute('blockdev-add', { driver: 'nbd', 'node-name': 'other', server: { type: 'unix', path: tmp('peer') } });
    await withMachine(tmp('qmp'), guestArgs({ nbd: disk.nbd }, log), async () => {
      await writesOn(log, 40);
      for (const [from, to] of [['disk', 'other'], ['other', 'disk']] as const) {
        await throughReady(disk, 'blockdev-mirror', { device: from, target: to, sync: 'full', 'copy-mode': copyMode }, () => writesOn(log, 40));
        await writesOn(log, 40);
      }
      // a copy of a moment: the guest stays where it is
      const ready = disk.qmp.waitEvent('BLOCK_JOB_READY', undefined, PATIENCE);
      await disk.qmp.execute('blockdev-mirror', { 'job-id': 'j', device: 'disk', target: 'other', sync: 'full', 'copy-mode': copyMode });
      await ready;
      await writesOn(log, 40);
    });
    const completed = disk.qmp.waitEvent('BLOCK_JOB_COMPLETED', undefined, PATIENCE);
    await disk.qmp.execute('block-job-cancel', { device: 'j' });
    await completed;
    await disk.end();
    await runOk('qemu-img', ['check', '-q', image]);
    await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', image, copy]);
    await expectAll(image, log);
  }, 120_000);

  test('while a chain is streamed together into an overlay, and an overlay is committed into what is below', async () => {
    const base = await makeImage(tmp('base.qcow2'), `${SIZE}`);
    await installWriter(base);
    const top = await makeImage(tmp('top.qcow2'), `${SIZE}`, '-b', base, '-F', 'qcow2');
    const [after, last] = [tmp('after.qcow2'), tmp('last.qcow2')];
    const disk = await startLiveDisk(tmp(), top);
    const log = tmp('log');
    await withMachine(tmp('qmp'), guestArgs({ nbd: disk.nbd }, log), async () => {
      await writesOn(log, 40);
      await disk.qmp.execute('blockdev-snapshot-sync', { 'node-name': 'disk', 'snapshot-file': after, 'snapshot-node-name': 'after' });
      await writesOn(log, 40);
      const streamed = disk.qmp.waitEvent('BLOCK_JOB_COMPLETED', undefined, PATIENCE);
      await disk.qmp.execute('block-stream', { 'job-id': 's', device: 'after' });
      expect((await streamed).data).not.toHaveProperty('error');
      await writesOn(log, 40);
      await disk.qmp.execute('blockdev-snapshot-sync', { 'node-name': 'after', 'snapshot-file': last, 'snapshot-node-name': 'last' });
      await writesOn(log, 40);
      await throughReady(disk, 'block-commit', { device: 'last' }, () => writesOn(log, 40));
      await writesOn(log, 40);
    });
    await disk.end();
    for (const image of [base, top, after]) await runOk('qemu-img', ['check', '-q', image]);
    expect(JSON.parse(await runOk('qemu-img', ['info', '--output=json', after]))).not.toHaveProperty('backing-filename');
    await expectAll(after, log);
  }, 120_000);
});
