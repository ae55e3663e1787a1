/** A bitmap over NBD: nbdinfo and qemu-img map see the same through qemu-storage-daemon and through ours, and writes reach it. */
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { openImage, Random } from '../../src/index.js';
import { qemuFindsNothing } from '../support/agree.js';
import { useNbdPeers } from '../support/nbd-peers.js';
import { findOnPath, peers } from '../support/peers.js';
import { qemuBitmaps, qemuSha256 } from '../support/qemu-bitmaps.js';
import { repository, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const MiB = 2 ** 20;
let sockets = 0;

const launch = useNbdPeers();

/** Runs `work` with a daemon that exports the image with its bitmaps, and ends it in order. */
async function served<T>(binary: string, image: string, writable: boolean, work: (uri: string) => Promise<T>): Promise<T> {
  const daemon = await launch(binary, daemonArgs(image, writable, ',bitmaps.0=fine,bitmaps.1=coarse'), tmp(`${sockets}.sock`));
  const result = await work(`nbd+unix:///disk?socket=${daemon.socket}`);
  await daemon.stop();
  return result;
}

function daemonArgs(image: string, writable: boolean, more = ''): string[] {
  const [readOnly, write] = writable ? ['off', 'on'] : ['on', 'off'];
  return [
    '--blockdev', `driver=qcow2,node-name=disk,read-only=${readOnly},file.driver=file,file.filename=${image}`,
    '--nbd-server', `addr.type=unix,addr.path=${tmp(`${++sockets}.sock`)}`,
    '--export', `type=nbd,id=e,node-name=disk,name=disk,writable=${write}${more}`,
  ];
}

async function maps(uri: string): Promise<readonly string[]> {
  return Promise.all(['fine', 'coarse'].map((name) => runOk('nbdinfo', ['--json', `--map=qemu:dirty-bitmap:${name}`, uri])));
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon', 'nbdinfo')('bitmaps over NBD', () => {
  test('are told as by qemu-storage-daemon, and hear of what clients write', async () => {
    const [theirs, ours] = [findOnPath('qemu-storage-daemon')!, join(repository, 'cli', 'quiesce-storage-daemon')];
    const image = tmp('disk.qcow2');
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', image, '300M']);
    for (const [name, granularity] of [['fine', '512'], ['coarse', '1M']] as const) await runOk('qemu-img', ['bitmap', '--add', '-g', granularity, image, name]);
    const random = new Random(5);
    const node = await openImage(image);
    for (let i = 0; i < 200; i++) await node.write(random.below(299 * MiB), new Uint8Array(1 + random.below(20_000)));
    await node.close();
    const expected = await served(theirs, image, false, maps);
    expect(expected[0]!.split('\n').length).toBeGreaterThan(200);
    expect(await served(ours, image, false, maps)).toEqual(expected);
    const before = (await qemuBitmaps(image)).find(({ name }) => name === 'coarse')!.count;
    const live = await served(ours, image, true, async (uri) => {
      await runOk('qemu-io', ['-f', 'raw', '-c', 'write 299M 1M', '-c', 'write -z 100M 3M', '-c', 'discard 50M 3M', uri]);
      return maps(uri);
    });
    expect(await served(theirs, image, false, maps)).toEqual(live);
    expect((await qemuBitmaps(image)).find(({ name }) => name === 'coarse')!.count).toBeGreaterThanOrEqual(before);
    await qemuFindsNothing(image);
    const now = await openImage(image, { readOnly: true });
    for (const bitmap of now.bitmaps) expect([bitmap.name, bitmap.sha256()]).toEqual([bitmap.name, await qemuSha256(image, bitmap.name)]);
    await now.close();
  });

  test('of a daemon that is killed are inconsistent afterwards, never empty', async () => {
    const image = tmp('killed.qcow2');
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', image, '64M']);
    for (const name of ['fine', 'coarse']) await runOk('qemu-img', ['bitmap', '--add', image, name]);
    const daemon = await launch(join(repository, 'cli', 'quiesce-storage-daemon'), daemonArgs(image, true), tmp(`${sockets}.sock`));
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write 1M 1M', '-c', 'flush', `nbd+unix:///disk?socket=${daemon.socket}`]);
    await daemon.stop('SIGKILL');
    expect((await qemuBitmaps(image)).map(({ name, inconsistent }) => [name, inconsistent])).toEqual([['coarse', true], ['fine', true]]);
    for (const name of ['fine', 'coarse']) await runOk(join(repository, 'cli', 'quiesce'), ['image', 'bitmap', '--remove', image, name]);
    await runOk('qemu-img', ['check', '-q', '-r', 'leaks', image]);
    await qemuFindsNothing(image);
    expect(await qemuBitmaps(image)).toEqual([]);
  });
});
