/** What a job does at once is told before the reply to the command that made it do so, as by qemu-storage-daemon. */
import { mkdirSync, rmSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { ourReplies, theirReplies, type JobStep } from '../support/job-script.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const file = (name: string): object => ({ driver: 'file', filename: `@/${name}.qcow2` });
const qcow2 = (name: string, below: object = file(name)): JobStep => ['blockdev-add', { driver: 'qcow2', 'node-name': name, file: below }];
const failing = (name: string): object => ({ driver: 'blkdebug', image: file(name), 'inject-error': [{ event: 'read_aio', errno: 5 }] });
const STOPPED: JobStep = { until: '"paused"' };

const backup = (more: object): JobStep => ['blockdev-backup', { 'job-id': 'j', device: 'base', target: 'dst', sync: 'incremental', bitmap: 'b', ...more }];
const resumed = (start: JobStep, first: readonly JobStep[]): readonly JobStep[] => [
  ...first, start, { until: 'BLOCK_JOB_ERROR' }, STOPPED, ['job-resume', { id: 'j' }], ['query-jobs'], ['block-job-resume', { device: 'j' }], ['query-jobs'],
];

const SCRIPTS: Readonly<Record<string, readonly JobStep[]>> = {
  'backups with nothing to copy': [
    qcow2('base'), qcow2('dst'), ['block-dirty-bitmap-add', { node: 'base', name: 'b' }],
    backup({}), backup({ sync: 'bitmap', 'bitmap-mode': 'never' }), backup({ sync: 'bitmap', 'bitmap-mode': 'always' }),
    backup({ 'auto-finalize': false, 'auto-dismiss': false }), ['query-jobs'], ['job-finalize', { id: 'j' }], ['job-dismiss', { id: 'j' }],
    ['transaction', { actions: [{ type: 'blockdev-backup', data: { 'job-id': 'j', device: 'base', target: 'dst', sync: 'incremental', bitmap: 'b' } }] }],
    ['query-jobs'],
  ],
  'a backup that fails again': resumed(backup({ sync: 'full', bitmap: undefined, 'on-source-error': 'stop' }), [qcow2('base', failing('base')), qcow2('dst')]),
  'a stream that fails again': [...resumed(['block-stream', { 'job-id': 'j', device: 'top', 'on-error': 'stop' }], [
    qcow2('base', failing('base')), ['blockdev-add', { driver: 'qcow2', 'node-name': 'top', file: file('top'), backing: 'base' }],
  ]), ['job-cancel', { id: 'j' }]],
  'a commit that fails again': [...resumed(['block-commit', { 'job-id': 'j', device: 'over', 'top-node': 'top', 'base-node': 'base', 'on-error': 'stop' }], [
    qcow2('base'), ['blockdev-add', { driver: 'qcow2', 'node-name': 'top', file: failing('top'), backing: 'base' }],
    ['blockdev-add', { driver: 'qcow2', 'node-name': 'over', file: file('dst'), backing: 'top' }],
  ]), ['job-cancel', { id: 'j' }]],
};

peers('qemu-storage-daemon', 'qemu-img', 'qemu-io')('replies and events come in the order of qemu-storage-daemon', () => {
  async function play(who: typeof ourReplies, folder: string, script: readonly JobStep[]): Promise<unknown> {
    mkdirSync(folder);
    for (const name of ['base', 'dst']) await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', `${folder}/${name}.qcow2`, '4M']);
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', `${folder}/top.qcow2`]);
    await runOk('qemu-io', ['-c', 'write -q -P 1 0 2M', `${folder}/base.qcow2`]);
    await runOk('qemu-io', ['-c', 'write -q -P 2 0 1M', `${folder}/top.qcow2`]);
    const mine = script.map((step) => JSON.parse(JSON.stringify(step).replaceAll('@/', `${folder}/`)) as JobStep);
    try {
      return JSON.parse(JSON.stringify(await who(mine, folder)).replaceAll(`${folder}/`, '@/'));
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  test.each(Object.keys(SCRIPTS))('%s', async (name) => {
    const theirs = await play(theirReplies, tmp('theirs'), SCRIPTS[name]!);
    expect(await play(ourReplies, tmp('ours'), SCRIPTS[name]!)).toEqual(theirs);
  }, 120_000);
});
