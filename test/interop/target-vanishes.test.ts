/** The server that a mirror writes to is killed, and started again, or has forgotten what was not flushed: the user's policy decides, and no mirror completes that differs. */
import { truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { MiB, waitFor } from '../support/cli.js';
import { startGuest, useDaemonLives, type DaemonLife } from '../support/daemon-lives.js';
import { qemuNbdArgs, useNbdPeers, type NbdPeer } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const startDaemon = useDaemonLives(tmp);
const startPeer = useNbdPeers();
const BYTES = 32 * MiB;
/** At this speed, the middle is far from the end, where the target is flushed and may forget nothing any more. */
const SPEED = 4 * MiB;
const MIDDLE = BYTES / 4;

async function startServer(): Promise<NbdPeer> {
  return startPeer('qemu-nbd', qemuNbdArgs(tmp('peer'), tmp('target')), tmp('peer'));
}

function emptyTarget(): void {
  writeFileSync(tmp('target'), '');
  truncateSync(tmp('target'), BYTES);
}

async function startBoth(reconnectDelay: number): Promise<{ readonly daemon: DaemonLife; readonly server: NbdPeer }> {
  writeFileSync(tmp('source'), Buffer.alloc(BYTES, 0x5a));
  emptyTarget();
  const server = await startServer();
  const target = { driver: 'nbd', 'node-name': 'target', 'reconnect-delay': reconnectDelay, server: { type: 'unix', path: tmp('peer') } };
  const daemon = await startDaemon(['--blockdev', `driver=raw,node-name=source,file.driver=file,file.filename=${tmp('source')}`, '--blockdev', JSON.stringify(target)]);
  return { daemon, server };
}

async function mirror({ qmp }: DaemonLife, more: Readonly<Record<string, string | number>> = {}): Promise<void> {
  await qmp.execute('blockdev-mirror', { 'job-id': 'j', device: 'source', target: 'target', sync: 'full', speed: SPEED, ...more });
}

async function fullSpeed({ qmp }: DaemonLife): Promise<void> {
  await qmp.execute('block-job-set-speed', { device: 'j', speed: 0 });
}

async function hasReached(daemon: DaemonLife, bytes: number): Promise<void> {
  await waitFor(`${bytes} bytes`, async () => (await daemon.job())!.offset >= bytes, 30_000);
}

async function complete(daemon: DaemonLife): Promise<void> {
  await waitFor('ready', async () => {
    const job = await daemon.job();
    if (job === undefined) throw new Error('the mirror ended');
    return job.ready;
  });
  const over = daemon.qmp.waitEvent('BLOCK_JOB_COMPLETED', () => true, { timeoutMs: 30_000 });
  await daemon.qmp.execute('block-job-complete', { device: 'j' });
  expect((await over).data).not.toHaveProperty('error');
}

const equal = (): Promise<string> => runOk('qemu-img', ['compare', '-U', '-f', 'raw', '-F', 'raw', tmp('source'), tmp('target')]);

peers('qemu-img', 'qemu-nbd')('the server of a mirror is killed, and started again', () => {
  test.each([false, true])('with a reconnect delay the mirror waits for it; it forgets what was not flushed: %s', async (forgets) => {
    const { daemon, server } = await startBoth(30);
    const guest = startGuest(tmp('nbd'), BYTES / 4, 5);
    await mirror(daemon);
    await hasReached(daemon, MIDDLE);
    await server.stop('SIGKILL');
    expect((await daemon.job())!.ready).toBe(false);
    if (forgets) emptyTarget();
    await startServer();
    await fullSpeed(daemon);
    await hasReached(daemon, BYTES - MiB);
    await guest.stop();
    await complete(daemon);
    await equal();
  });

  test.each(['stop', 'ignore'])('without one, on-target-error=%s tries again', async (policy) => {
    const { daemon, server } = await startBoth(0);
    await mirror(daemon, { 'on-target-error': policy });
    await hasReached(daemon, MIDDLE);
    const told = daemon.qmp.waitEvent('BLOCK_JOB_ERROR', () => true, { timeoutMs: 30_000 });
    await server.stop('SIGKILL');
    expect((await told).data).toMatchObject({ device: 'j', operation: 'write', action: policy });
    emptyTarget();
    await startServer();
    await fullSpeed(daemon);
    if (policy === 'stop') await daemon.qmp.execute('block-job-resume', { device: 'j' });
    if (policy === 'stop') await resumeUntilReady(daemon);
    await complete(daemon);
    await equal();
  });

  test('by default the mirror fails, and the source stays as it is', async () => {
    const { daemon, server } = await startBoth(0);
    await mirror(daemon);
    await hasReached(daemon, MIDDLE);
    const over = daemon.qmp.waitEvent('BLOCK_JOB_COMPLETED', () => true, { timeoutMs: 30_000 });
    await server.stop('SIGKILL');
    expect((await over).data).toHaveProperty('error');
    const guest = startGuest(tmp('nbd'), MiB, 3);
    await waitFor('the guest writes', async () => true);
    expect(await guest.stop()).toBeGreaterThanOrEqual(0);
  });
});

/** Each error that comes after the server was found again stops it once more. */
async function resumeUntilReady(daemon: DaemonLife): Promise<void> {
  await waitFor('ready', async () => {
    const job = await daemon.job();
    if (job?.status === 'paused') await daemon.qmp.execute('block-job-resume', { device: 'j' });
    return job?.ready === true;
  });
}

peers('qemu-img', 'qemu-nbd')('a server that hangs', () => {
  test.each(['copying', 'ready'])('does not keep a mirror that is cancelled for good while %s', async (when) => {
    const { daemon, server } = await startBoth(0);
    await mirror(daemon, when === 'copying' ? {} : { speed: 0 });
    if (when === 'copying') await hasReached(daemon, MiB);
    else await waitFor('ready', async () => (await daemon.job())!.ready);
    server.process.kill('SIGSTOP');
    try {
      const guest = startGuest(tmp('nbd'), MiB, 3);
      await new Promise((resolve) => { setTimeout(resolve, 300); });
      const over = daemon.qmp.waitEvent('BLOCK_JOB_CANCELLED', () => true, { timeoutMs: 30_000 });
      const before = performance.now();
      await daemon.qmp.execute('block-job-cancel', { device: 'j', force: true });
      await over;
      expect(performance.now() - before).toBeLessThan(10_000);
      expect(await guest.stop()).toBeGreaterThan(0);
    } finally {
      server.process.kill('SIGCONT');
    }
  });
});
