/** NBD_CMD_CACHE leaves the same behind as with qemu-storage-daemon: what the exported node lacks is copied into it. */
import { rm } from 'node:fs/promises';
import { expect, test } from '@jest/globals';
import { RawNbd, request } from '../support/nbd-raw.js';
import { peers } from '../support/peers.js';
import { whileRunning } from '../support/programs.js';
import { runOk, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const [CACHE, DISC] = [5, 2] as const;
const KiB = 1024;

const DISKS = {
  'a raw image': { top: 'raw', node: 'driver=raw,file.driver=file,file.filename=TOP' },
  'a qcow2 image that stands alone': { top: 'qcow2', node: 'driver=qcow2,file.driver=file,file.filename=TOP' },
  'an overlay': { top: 'overlay', node: 'driver=qcow2,file.driver=file,file.filename=TOP' },
  'an overlay that is read-only': { top: 'overlay', node: 'driver=qcow2,read-only=on,file.driver=file,file.filename=TOP', readOnly: true },
  'a copy-on-read filter': { top: 'overlay', node: 'driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename=TOP' },
  'a copy-on-read filter, exported read-only': { top: 'overlay', node: 'driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename=TOP', readOnly: true },
} as const;

async function outcome(daemon: string, { top, node, ...more }: typeof DISKS[keyof typeof DISKS]): Promise<unknown> {
  const writable = !('readOnly' in more);
  await Promise.all(['base', 'top', 's'].map((name) => rm(tmp(name), { force: true })));
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('base'), '1M']);
  await runOk('qemu-io', ['-c', 'write -P 7 0 192k', '-c', 'write -P 8 512k 64k', tmp('base')]);
  const backing = top === 'overlay' ? ['-b', tmp('base'), '-F', 'qcow2'] : [];
  await runOk('qemu-img', ['create', '-q', '-f', top === 'raw' ? 'raw' : 'qcow2', ...backing, tmp('top'), '1M']);
  await runOk('qemu-io', ['-f', top === 'raw' ? 'raw' : 'qcow2', '-c', 'write -P 3 64k 4k', tmp('top')]);
  const args = ['--blockdev', `node-name=n,${node.replace('TOP', tmp('top'))}`, '--nbd-server', `addr.type=unix,addr.path=${tmp('s')}`, '--export', `nbd,id=e,node-name=n,writable=${writable ? 'on' : 'off'}`];
  const errors: number[] = [];
  await whileRunning(daemon, args, tmp('s'), async () => {
    const client = await RawNbd.transmitting(tmp('s'), { structured: false, name: 'n' });
    // QEMU marks zeros in the L2 tables of a read-only image too, where there are any, in memory
    for (const [offset, bytes] of [[4096, 100_000], ...(writable ? [[300_000, 1000] as const] : []), [512 * KiB, 300_000]] as const) {
      client.send(request({ type: CACHE, offset, bytes }));
      errors.push((await client.read(16)).readUInt32BE(4));
    }
    client.send(request({ type: DISC }));
    client.socket.destroy();
  });
  const map = JSON.parse(await runOk('qemu-img', ['map', '--output=json', tmp('top')])) as Record<string, unknown>[];
  await runOk('qemu-img', ['check', '-q', '-f', top === 'raw' ? 'raw' : 'qcow2', tmp('top')]).catch((error: unknown) => { if (top !== 'raw') throw error; });
  return { errors, map: map.map(({ start, length, depth, data, zero }) => ({ start, length, depth, data, zero })) };
}

peers('qemu-storage-daemon', 'qemu-img', 'qemu-io')('a cache request', () => {
  test.each(Object.keys(DISKS) as (keyof typeof DISKS)[])('of %s', async (name) => {
    const [theirs, ours] = [await outcome('qemu-storage-daemon', DISKS[name]), await outcome(storageDaemonLauncher, DISKS[name])];
    // where nothing lies below, QEMU marks clusters as zero that read as zeros anyway
    const told = (result: unknown): unknown => (name.includes('alone') ? (result as { errors: unknown }).errors : result);
    expect(told(ours)).toEqual(told(theirs));
  });
});
