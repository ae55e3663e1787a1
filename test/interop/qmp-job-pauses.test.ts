/** Commands that drain a node while jobs work on it: which of them pause, how often, and when that is told, as by qemu-storage-daemon. */
import { mkdirSync, rmSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { ourReplies, theirReplies, type JobStep } from '../support/job-script.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const MiB = 1024 * 1024;
const qcow2 = (name: string, more: Readonly<Record<string, unknown>> = {}): JobStep =>
  ['blockdev-add', { driver: 'qcow2', 'node-name': name, file: { driver: 'file', filename: `@/${name}.qcow2`, 'node-name': `${name}-file` }, ...more }];

const OPEN: readonly JobStep[] = [
  qcow2('base'), qcow2('top', { backing: 'base' }), qcow2('dst', { backing: null }), qcow2('other'), ['blockdev-add', { driver: 'null-co', 'node-name': 'zero', size: 64 * MiB }],
  ['nbd-server-start', { addr: { type: 'unix', data: { path: '@/nbd.sock' } } }],
];

/** Each is under way while the commands come; a pause lets each do one small step more. */
const JOBS: Readonly<Record<string, JobStep>> = {
  'a mirror': ['blockdev-mirror', { 'job-id': 'j', device: 'top', target: 'dst', sync: 'full', speed: 65_536, 'buf-size': 65_536 }],
  'a mirror that is ready': ['blockdev-mirror', { 'job-id': 'j', device: 'top', target: 'dst', sync: 'none' }],
  'a backup': ['blockdev-backup', { 'job-id': 'j', device: 'top', target: 'dst', sync: 'full', speed: 65_536 }],
  'a backup of what is overwritten': ['blockdev-backup', { 'job-id': 'j', device: 'top', target: 'dst', sync: 'none' }],
};

const reopen = (...options: readonly object[]): JobStep => ['blockdev-reopen', { options }];
const reopenQcow2 = (name: string, more: object = {}): object => ({ driver: 'qcow2', 'node-name': name, file: `${name}-file`, ...more });
const exported = (node: string): JobStep => ['block-export-add', { type: 'nbd', id: 'e', name: 'e', 'node-name': node }];
const DEL: JobStep = ['block-export-del', { id: 'e' }];
const RELEASED: JobStep = ['blockdev-del', { 'node-name': 'above' }];
const above = (driver: string, file: string, more: object = {}): JobStep => ['blockdev-add', { driver, 'node-name': 'above', file, 'read-only': true, ...more }];

const COMMANDS: readonly JobStep[] = [
  ['transaction', { actions: [] }], ['transaction', { actions: [{ type: 'block-dirty-bitmap-add', data: { node: 'other', name: 'b' } }] }],
  ['transaction', { actions: [{ type: 'abort', data: {} }] }],
  ['blockdev-snapshot-internal-sync', { device: 'other', name: 's' }],
  ['blockdev-snapshot-internal-sync', { device: 'top', name: 's' }],
  ['blockdev-snapshot-sync', { 'node-name': 'nobody', 'snapshot-file': '@/x.qcow2', 'snapshot-node-name': 'x' }],
  ['blockdev-snapshot', { node: 'nobody', overlay: 'other' }], ['blockdev-backup', { 'job-id': 'k', device: 'nobody', target: 'zero', sync: 'none' }],
  reopen(reopenQcow2('top', { backing: 'base' })), reopen(reopenQcow2('base')), reopen(reopenQcow2('dst', { backing: null })), reopen(reopenQcow2('other')),
  reopen({ driver: 'file', 'node-name': 'top-file', filename: '@/top.qcow2' }, reopenQcow2('base')), reopen(reopenQcow2('top', { backing: 'nobody' })),
  exported('base'), DEL, exported('other'), DEL, exported('top'), ['block-export-del', { id: 'e', mode: 'hard' }],
  ['block-export-add', { type: 'nbd', id: 'f', 'node-name': 'base', bitmaps: ['nobody'] }],
  above('raw', 'base'), RELEASED, above('copy-on-read', 'base'), RELEASED, above('raw', 'other'), RELEASED, above('raw', 'base', { offset: 3 }), RELEASED,
  ['block-dirty-bitmap-add', { node: 'top', name: 'b' }], ['block-dirty-bitmap-remove', { node: 'top', name: 'b' }], ['blockdev-del', { 'node-name': 'top' }],
  ['block_resize', { 'node-name': 'other', size: 65 * MiB }], ['block_resize', { 'node-name': 'base', size: 64 * MiB }],
  exported('base'), ['nbd-server-stop'],
];

peers('qemu-storage-daemon', 'qemu-img', 'qemu-io')('jobs pause as those of qemu-storage-daemon', () => {
  async function play(who: typeof ourReplies, folder: string, script: readonly JobStep[]): Promise<unknown> {
    mkdirSync(folder);
    for (const name of ['base', 'dst', 'other']) await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', `${folder}/${name}.qcow2`, '64M']);
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', `${folder}/top.qcow2`]);
    await runOk('qemu-io', ['-c', 'write -q -P 1 0 64M', `${folder}/base.qcow2`]);
    const mine = script.map((step) => JSON.parse(JSON.stringify(step).replaceAll('@/', `${folder}/`)) as JobStep);
    try {
      return JSON.parse(JSON.stringify(await who(mine, folder)).replaceAll(`${folder}/`, '@/'));
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  test.each(Object.keys(JOBS))('%s', async (name) => {
    const script = [...OPEN, JOBS[name]!, { ms: 500 }, ...COMMANDS];
    const theirs = await play(theirReplies, tmp('theirs'), script);
    expect(await play(ourReplies, tmp('ours'), script)).toEqual(theirs);
  }, 120_000);
});
