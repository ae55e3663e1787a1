/**
 * Fleecing of what a bitmap has: an export shows those clusters as they were, whoever overwrites them, and nothing else.
 * The same clients meet qemu-storage-daemon and ours.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { addBlockdev, addExport, startNbdServer, StorageDaemon, type JsonDict } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { kill, run, runOk, start } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { appears } from '../support/listening.js';

const tmp = useTmp();

const BLOCKDEVS: readonly JsonDict[] = [
  { driver: 'qcow2', 'node-name': 'disk', discard: 'unmap', file: { driver: 'file', filename: '@/disk.qcow2' } },
  { driver: 'qcow2', 'node-name': 'keep', discard: 'unmap', file: { driver: 'file', filename: '@/keep.qcow2' } },
  { driver: 'copy-before-write', 'node-name': 'filter', discard: 'unmap', file: 'disk', target: 'keep', bitmap: { node: 'disk', name: 'b' } },
  { driver: 'snapshot-access', 'node-name': 'old', discard: 'unmap', file: 'filter' },
];
const EXPORTS: readonly JsonDict[] = [
  { type: 'nbd', id: 'e0', name: 'live', 'node-name': 'filter', writable: true },
  { type: 'nbd', id: 'e1', name: 'old', 'node-name': 'old', writable: true },
];

/** What each client does, on which export. */
const CLIENTS: readonly (readonly [name: string, ...commands: readonly string[]])[] = [
  ['old', 'read -P 1 0 64k', 'read -P 3 3M 1M'],
  ['live', 'write -P 9 0 128k', 'write -P 9 2M 64k', 'write -z 3M 64k', 'discard 3136k 64k', 'read -P 9 0 128k'],
  // in the bitmap, overwritten or not; then what is not in it
  ['old', 'read -P 1 0 64k', 'read -P 3 3M 128k', 'read -P 3 3200k 64k'],
  ['old', 'read 2M 64k', 'read 4032k 128k', 'read 8M 512'],
  ['old', 'discard 3M 64k', 'read 3M 64k', 'read -P 3 3136k 64k', 'write -P 8 0 512'],
  ['live', 'read -P 9 2M 64k', 'read -P 0 3M 64k', 'read -P 2 2112k 64k'],
];

async function makeDisks(folder: string): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  const disk = `${folder}/disk.qcow2`;
  for (const name of ['disk', 'keep']) await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', `${folder}/${name}.qcow2`, '16M']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 2 2M 512k', disk]);
  await runOk('qemu-img', ['bitmap', '--add', disk, 'b']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 1 0 128k', '-c', 'write -q -P 3 3M 1M', disk]);
}

async function seenBy(socket: string): Promise<readonly string[]> {
  const seen: string[] = [];
  for (const [name, ...commands] of CLIENTS) {
    const { stdout, stderr } = await run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), `nbd+unix:///${name}?socket=${socket}`]);
    seen.push(`${stdout}${stderr}`.replaceAll(/[\d.]+ [KM]iB, \d+ ops;.*/g, ''));
  }
  return seen;
}

const here = <T>(value: T, folder: string): T => JSON.parse(JSON.stringify(value).replaceAll('@/', `${folder}/`)) as T;

async function theirs(folder: string): Promise<readonly string[]> {
  await makeDisks(folder);
  const socket = `${folder}/nbd.sock`;
  const child = start('qemu-storage-daemon', [
    '--nbd-server', `addr.type=unix,addr.path=${socket}`, ...here(BLOCKDEVS, folder).flatMap((one) => ['--blockdev', JSON.stringify(one)]),
    ...EXPORTS.flatMap((one) => ['--export', JSON.stringify(one)]),
  ]);
  try {
    await appears(socket);
    return await seenBy(socket);
  } finally {
    await kill(child);
  }
}

async function ours(folder: string): Promise<readonly string[]> {
  await makeDisks(folder);
  const socket = `${folder}/nbd.sock`;
  const daemon = new StorageDaemon({ version: { major: 7, minor: 2, micro: 22, package: 'test' } });
  try {
    for (const options of here(BLOCKDEVS, folder)) await addBlockdev(daemon, options);
    await startNbdServer(daemon, {}, { type: 'unix', path: socket });
    for (const options of EXPORTS) await addExport(daemon, options);
    return await seenBy(socket);
  } finally {
    await daemon.close();
  }
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('fleecing by a bitmap', () => {
  test('shows what the bitmap has as it was, and refuses the rest, as qemu-storage-daemon does', async () => {
    const folder = tmp('disks');
    const expected = await theirs(folder);
    expect(expected.join('\n')).toMatch(/read failed/);
    expect(await ours(folder)).toEqual(expected);
  });
});
