/** Disks that move under a client that writes all the time: of our daemon, compared before they do, and of QEMU's, slowed down by the throttle filter over the node. */
import { truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { openImage, type QmpClient } from '../../src/index.js';
import { lastLine, makeImage, MiB, monitorOf, quiesceOk, sleep } from '../support/cli.js';
import { findOnPath, peers } from '../support/peers.js';
import { kill, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const SIZE = 16 * MiB;
const SLOW = 4 * MiB;

/** Node `disk`, exported as `d`, and node `slow` over copy.raw; a throttle filter over the disk's image where `limited`. */
async function withDaemon(program: string, limited: boolean, work: (qmp: QmpClient, uri: string) => Promise<void>): Promise<void> {
  const image = await makeImage(tmp('disk.qcow2'), '16M');
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 9 0 8M', image]);
  writeFileSync(tmp('copy.raw'), '');
  truncateSync(tmp('copy.raw'), SIZE);
  const disk = { driver: 'qcow2', file: { driver: 'file', filename: image } };
  const node = limited ? { driver: 'throttle', 'node-name': 'disk', 'throttle-group': 'guests', file: disk } : { ...disk, 'node-name': 'disk' };
  const child = start(program, [
    '--object', 'throttle-group,id=guests,x-iops-read=4321', '--object', `throttle-group,id=slow,x-bps-write=${SLOW}`,
    '--blockdev', JSON.stringify(node),
    '--blockdev', JSON.stringify({ driver: 'throttle', 'node-name': 'slow', 'throttle-group': 'slow', file: { driver: 'file', filename: tmp('copy.raw') } }),
    '--nbd-server', `addr.type=unix,addr.path=${tmp('nbd')}`, '--export', 'nbd,id=e,node-name=disk,name=d,writable=on',
    ...['qmp', 'own'].flatMap((name) => ['--chardev', `socket,id=${name},path=${tmp(name)},server=on,wait=off`, '--monitor', `chardev=${name}`]),
  ]);
  try {
    const qmp = await monitorOf(tmp('own'));
    await work(qmp, `nbd+unix:///d?socket=${tmp('nbd')}`);
    const ended = new Promise((resolve) => { child.once('exit', resolve); });
    await qmp.execute('quit');
    qmp.close();
    await ended;
  } finally {
    await kill(child);
  }
}

/** Writes one piece after the other, all over the disk, until `stop`; resolves with what the disk has to hold. */
function writer(uri: string): { stop(): Promise<Buffer> } {
  let over = false;
  const work = (async () => {
    const client = await openImage(uri, { format: 'raw' });
    const disk = Buffer.alloc(SIZE);
    await client.read(0, disk);
    for (let n = 1; !over; n++) {
      const at = n * 104_729 % (SIZE / 4096) * 4096;
      disk.fill(n % 251 + 1, at, at + 4096);
      await client.write(at, disk.subarray(at, at + 4096));
    }
    await client.close();
    return disk;
  })();
  return { stop: () => {
    over = true;
    return work;
  } };
}

async function holds(file: string, disk: Buffer): Promise<void> {
  writeFileSync(tmp('expected'), disk);
  await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', tmp('expected'), file]);
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('under a client that writes', () => {
  test('our daemon: it is ready by its deadline, both are compared, and not a byte is lost', () => withDaemon(storageDaemonLauncher, false, async (_, uri) => {
    const guest = writer(uri);
    const told = lastLine(await quiesceOk(['mirror', '--daemon', tmp('qmp'), 'disk', 'slow', '--deadline', '12', '--pivot', '--verify', '--json']));
    expect(told).toMatchObject({ target: 'slow', pivoted: true, verified: true });
    await sleep(300);
    await holds(tmp('copy.raw'), await guest.stop());
  }), 90_000);

  test("QEMU's daemon: neither, without help; with the filter's limits it is, and they are the user's again", () => withDaemon(findOnPath('qemu-storage-daemon')!, true, async (qmp, uri) => {
    const guest = writer(uri);
    const told = await quiesceOk(['mirror', '--qmp', tmp('qmp'), 'disk', 'slow', '--deadline', '12', '--pivot', '--json']);
    expect(lastLine(told)).toMatchObject({ target: 'slow', pivoted: true });
    expect(told).toContain('"phase":"sync"');
    expect(await qmp.execute('qom-get', { path: '/objects/guests', property: 'limits' })).toMatchObject({ 'bps-write': 0, 'iops-read': 4321 });
    await sleep(300);
    await holds(tmp('copy.raw'), await guest.stop());
  }), 90_000);
});
