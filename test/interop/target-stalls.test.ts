/** A mirror to a server that stands still while the guest writes on: it takes no more memory (J-9), holds nobody up, and ends when the server is back. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { makeImage, MiB, waitFor } from '../support/cli.js';
import { sleep, startGuest, useDaemonLives } from '../support/daemon-lives.js';
import { useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const startDaemon = useDaemonLives(tmp);
const startPeer = useNbdPeers();
const BYTES = 128 * MiB;
const STALL_MS = 4000;
/** More than all that a mirror may have in flight comes to when it begins; more than that again is a leak. */
const GROWTH = 32 * MiB;

function rss(): number {
  const status = readFileSync(`/proc/${Number(readFileSync(tmp('pid'), 'latin1'))}/status`, 'latin1');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]) * 1024;
}

peers('qemu-img', 'qemu-io', 'qemu-nbd')('a target that stands still', () => {
  test('memory stays what it was', async () => {
    for (const name of ['source', 'target']) await makeImage(tmp(name), String(BYTES));
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 9 0 128M', tmp('source')]);
    const server = await startPeer('qemu-nbd', ['-k', tmp('peer'), '-f', 'qcow2', '-t', tmp('target')], tmp('peer'));
    const target = { driver: 'nbd', 'node-name': 'target', server: { type: 'unix', path: tmp('peer') } };
    const daemon = await startDaemon(['--blockdev', `driver=qcow2,node-name=source,file.driver=file,file.filename=${tmp('source')}`, '--blockdev', JSON.stringify(target)]);
    server.process.kill('SIGSTOP');
    const guests = [1, 2, 3, 4].map((seed) => startGuest(tmp('nbd'), BYTES, seed));
    try {
      await daemon.qmp.execute('blockdev-mirror', { 'job-id': 'j', device: 'source', target: 'target', sync: 'full', 'x-quiesce-copy-mode': 'auto' });
      await sleep(STALL_MS / 4);
      const settled = rss();
      let most = settled;
      for (let left = 30; left > 0; left--) {
        await sleep(STALL_MS / 40);
        most = Math.max(most, rss());
      }
      expect((most - settled) / MiB).toBeLessThan(GROWTH / MiB);
      expect((await daemon.job())!.ready).toBe(false);
    } finally {
      server.process.kill('SIGCONT');
    }
    const written = await Promise.all(guests.map((guest) => guest.stop()));
    expect(Math.min(...written)).toBeGreaterThan(20);
    await waitFor('ready', async () => (await daemon.job())!.ready, 60_000);
    const over = daemon.qmp.waitEvent('BLOCK_JOB_COMPLETED', () => true, { timeoutMs: 30_000 });
    await daemon.qmp.execute('block-job-cancel', { device: 'j' });
    expect((await over).data).not.toHaveProperty('error');
    await daemon.end('SIGTERM');
    await server.stop('SIGTERM');
    await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', tmp('source'), tmp('target')]);
  }, 120_000);
});
