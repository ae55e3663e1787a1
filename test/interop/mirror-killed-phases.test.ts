/** A mirror in copy mode auto whose daemon is killed in each of its phases, with a slow target and a busy guest, and while it changes over. */
import { truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { MiB, waitFor } from '../support/cli.js';
import { sleep, startGuest, useDaemonLives, type DaemonLife } from '../support/daemon-lives.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const startDaemon = useDaemonLives(tmp);
const BYTES = 32 * MiB;

/** The limit is no part of what the target is made of. */
function nodes(bytesPerSecond: number): string[] {
  return [
    '--object', `throttle-group,id=slow,x-bps-write=${bytesPerSecond}`,
    '--blockdev', `driver=qcow2,node-name=source,file.driver=file,file.filename=${tmp('source')}`,
    '--blockdev', `driver=throttle,node-name=target,throttle-group=slow,file.driver=raw,file.file.driver=file,file.file.filename=${tmp('target')}`,
  ];
}

async function makeDisks(): Promise<void> {
  writeFileSync(tmp('data'), Buffer.alloc(BYTES, 0x5a));
  await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', tmp('data'), tmp('source')]);
  writeFileSync(tmp('target'), '');
  truncateSync(tmp('target'), BYTES);
}

async function mirror({ qmp }: DaemonLife, deadlineMs = 4000, more: Readonly<Record<string, number>> = {}): Promise<void> {
  await qmp.execute('blockdev-mirror', {
    'job-id': 'mirror', device: 'source', target: 'target', sync: 'full', 'x-quiesce-copy-mode': 'auto', 'x-quiesce-deadline': deadlineMs, ...more,
  });
}

async function complete(daemon: DaemonLife): Promise<void> {
  await waitFor('ready', async () => (await daemon.job())?.ready === true, 60_000);
  const over = daemon.qmp.waitEvent('BLOCK_JOB_COMPLETED', () => true, { timeoutMs: 30_000 });
  await daemon.qmp.execute('block-job-complete', { device: 'mirror' });
  expect((await over).data).not.toHaveProperty('error');
}

const equal = (): Promise<string> => runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', tmp('source'), tmp('target')]);

peers('qemu-img')('killed in each phase', () => {
  test.each([['bulk', 4 * MiB], ['converge', 4 * MiB], ['sync', 3 * MiB], ['ready', 64 * MiB]])('in %s, a mirror goes on, and ends with equal disks', async (phase, rate) => {
    await makeDisks();
    let daemon = await startDaemon(nodes(rate));
    // one that makes about as much dirty as the target takes, while there is much time, is slowed down and for long
    const converges = phase === 'converge';
    const guest = startGuest(tmp('nbd'), BYTES, 5, converges ? 12 : 0);
    await (converges ? mirror(daemon, 600_000, { 'x-quiesce-throttle-below': 1024 * MiB }) : mirror(daemon));
    const seen = new Set<string>();
    await waitFor(`phase ${phase}`, async () => {
      const job = await daemon.job();
      const now = job?.['x-quiesce-convergence']?.phase;
      if (now !== undefined) seen.add(now);
      if (job?.ready === true && phase !== 'ready') throw new Error(`the phases were ${[...seen].join(', ')}`);
      return now === phase;
    });
    await sleep(200);
    await daemon.end();
    expect(await guest.stop()).toBeGreaterThan(0);
    daemon = await startDaemon(nodes(0));
    expect(daemon.said()).toContain("mirror 'mirror' was interrupted and goes on");
    const another = startGuest(tmp('nbd'), BYTES, 7);
    await sleep(300);
    await another.stop();
    await complete(daemon);
    await daemon.end();
    await equal();
  }, 120_000);

  test('it keeps to its deadline when it goes on', async () => {
    await makeDisks();
    let daemon = await startDaemon(nodes(MiB));
    await mirror(daemon, 3_600_000);
    await waitFor('it is steered', async () => (await daemon.job())?.['x-quiesce-convergence'] !== undefined, 30_000);
    await daemon.end();
    daemon = await startDaemon(nodes(MiB));
    await waitFor('it is steered again', async () => (await daemon.job())?.['x-quiesce-convergence'] !== undefined, 30_000);
    // without it, there would be none at first, and then one of a minute and a half
    const { deadline } = (await daemon.job())!['x-quiesce-convergence']!;
    expect(deadline).toBeGreaterThan(3_000_000);
    expect(deadline).toBeLessThanOrEqual(3_600_000);
  }, 120_000);

  test.each([0, 3, 8, 15, 30])('%i ms after it was told to complete, the disk is on the target or on the way there', async (ms) => {
    await makeDisks();
    let daemon = await startDaemon(nodes(0));
    const guest = startGuest(tmp('nbd'), BYTES, 5);
    await mirror(daemon);
    await waitFor('ready', async () => (await daemon.job())?.ready === true, 60_000);
    await guest.stop();
    void daemon.qmp.execute('block-job-complete', { device: 'mirror' }).catch(() => undefined);
    await sleep(ms);
    await daemon.end();
    daemon = await startDaemon(nodes(0));
    if (/goes on/.test(daemon.said())) await complete(daemon);
    else expect(await daemon.job()).toBeUndefined();
    await daemon.end();
    await equal();
  }, 120_000);
});
