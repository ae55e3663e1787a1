/** A backup whose daemon is killed under a guest that writes: the next daemon goes on with it, and it holds the disk as it was then. */
import { truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { MiB, waitFor } from '../support/cli.js';
import { sleep, startGuest, useDaemonLives, type DaemonLife } from '../support/daemon-lives.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const startDaemon = useDaemonLives(tmp);
const BYTES = 64 * MiB;
type Format = 'raw' | 'qcow2';

const nodes = (source: Format, target: Format = 'raw'): string[] => [['source', source], ['target', target]].flatMap(([name, format]) => [
  '--blockdev', `driver=${format},node-name=${name},file.driver=file,file.filename=${tmp(name)}`,
]);

async function makeSource(format: Format): Promise<void> {
  writeFileSync(tmp('data'), Buffer.alloc(BYTES, 0x5a));
  await runOk('qemu-img', ['convert', '-f', 'raw', '-O', format, tmp('data'), tmp('source')]);
}

/** The disk as it is while no daemon lives. */
async function remember(format: Format): Promise<void> {
  await runOk('qemu-img', ['convert', '-f', format, '-O', 'raw', tmp('source'), tmp('instant')]);
}

async function hasReached(daemon: DaemonLife, part: number): Promise<void> {
  await waitFor(`${part} of it`, async () => {
    const job = await daemon.job();
    if (job === undefined) throw new Error('the backup ended');
    return job.len > 0 && job.offset >= job.len * part;
  });
}

async function finish(daemon: DaemonLife): Promise<void> {
  const over = daemon.qmp.waitEvent('BLOCK_JOB_COMPLETED', () => true, { timeoutMs: 60_000 });
  await daemon.qmp.execute('block-job-set-speed', { device: 'backup', speed: 0 });
  expect((await over).data).not.toHaveProperty('error');
}

peers('qemu-img')('after kill -9', () => {
  test.each<[Format, number]>([['raw', 0.05], ['qcow2', 0.4], ['qcow2', 0.9]])('a backup of a %s image that was killed at %f goes on', async (format, part) => {
    await makeSource(format);
    writeFileSync(tmp('target'), '');
    truncateSync(tmp('target'), BYTES);
    let daemon = await startDaemon(nodes(format));
    const guest = startGuest(tmp('nbd'), BYTES / 4, 5);
    await daemon.qmp.execute('blockdev-backup', { 'job-id': 'backup', device: 'source', target: 'target', sync: 'full', speed: 24 * MiB });
    await hasReached(daemon, part);
    await daemon.end();
    expect(await guest.stop()).toBeGreaterThan(0);
    await remember(format);
    daemon = await startDaemon(nodes(format));
    expect(daemon.said()).toContain("backup 'backup' was interrupted and goes on");
    expect(daemon.said()).toContain('it will hold the disk as it is now');
    const another = startGuest(tmp('nbd'), BYTES / 2, 7);
    await sleep(200);
    await finish(daemon);
    await another.stop();
    await daemon.end('SIGTERM');
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', tmp('instant'), tmp('target')]);
    daemon = await startDaemon(nodes(format));
    expect(daemon.said()).not.toContain('goes on');
  }, 120_000);

  test('a backup copies less than all again, where nobody wrote to what it had copied', async () => {
    await makeSource('qcow2');
    writeFileSync(tmp('target'), '');
    truncateSync(tmp('target'), BYTES);
    let daemon = await startDaemon(nodes('qcow2'));
    await daemon.qmp.execute('blockdev-backup', { 'job-id': 'backup', device: 'source', target: 'target', sync: 'full', speed: 24 * MiB });
    await hasReached(daemon, 0.6);
    await daemon.qmp.execute('block-job-pause', { device: 'backup' });
    await sleep(1200); // a checkpoint
    await daemon.end();
    await remember('qcow2');
    daemon = await startDaemon(nodes('qcow2'));
    expect(daemon.said()).toMatch(/goes on; \d+ bytes/);
    expect(Number(/(\d+) bytes are copied again/.exec(daemon.said())![1])).toBeLessThan(BYTES / 2);
    await finish(daemon);
    await daemon.end();
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', tmp('instant'), tmp('target')]);
  });

  test('an incremental backup goes on over the one before it', async () => {
    await makeSource('qcow2');
    await runOk('qemu-img', ['bitmap', '--add', '-f', 'qcow2', tmp('source'), 'changes']);
    await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', tmp('data'), tmp('before')]);
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -P 9 16M 32M', tmp('source')]);
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', tmp('before'), '-F', 'raw', tmp('target')]);
    let daemon = await startDaemon(nodes('qcow2', 'qcow2'));
    const guest = startGuest(tmp('nbd'), BYTES / 8, 5);
    await daemon.qmp.execute('blockdev-backup', { 'job-id': 'backup', device: 'source', target: 'target', sync: 'incremental', bitmap: 'changes', speed: 16 * MiB });
    await hasReached(daemon, 0.5);
    await daemon.end();
    await guest.stop();
    await remember('qcow2');
    daemon = await startDaemon(nodes('qcow2', 'qcow2'));
    expect(daemon.said()).toContain("backup 'backup' was interrupted and goes on");
    await finish(daemon);
    await daemon.end();
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', tmp('instant'), tmp('target')]);
  });
});
