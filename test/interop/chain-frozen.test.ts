/** What stands between an active commit's top and its base stays there until the job is over: refused as by qemu-storage-daemon. */
import { mkdirSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { add, addChain, makeChain } from '../support/chain-images.js';
import { ourReplies, theirReplies, type JobStep } from '../support/job-script.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

function steps(folder: string): readonly JobStep[] {
  const file = (name: string): object => ({ driver: 'file', 'node-name': `${name}-file`, filename: `${folder}/${name}.qcow2` });
  const reopen = (name: string, backing: string | null, more: object = {}): JobStep =>
    ['blockdev-reopen', { options: [{ driver: 'qcow2', 'node-name': name, file: file(name), backing, ...more }] }];
  return [
    ...addChain(folder), add(folder, 'over', { backing: null }),
    ['block-commit', { 'job-id': 'j', device: 'top', 'base-node': 'base', 'filter-node-name': 'filter' }], { until: 'BLOCK_JOB_READY' },
    ...['top', 'mid', 'base'].map((node): JobStep => ['blockdev-snapshot', { node, overlay: 'over' }]),
    ['block-stream', { 'job-id': 'k', device: 'mid' }], ['block-stream', { 'job-id': 'k', device: 'top', 'base-node': 'base' }], ['block-stream', { 'job-id': 'k', device: 'filter' }],
    ['block-commit', { 'job-id': 'k', device: 'filter', 'top-node': 'mid', 'base-node': 'base' }], ['block-commit', { 'job-id': 'k', device: 'top', 'base-node': 'base' }],
    ...['mid', 'base', 'top'].map((device): JobStep => ['blockdev-mirror', { 'job-id': 'k', device, target: 'over', sync: 'full' }]),
    ...['mid', 'base', 'top'].map((device): JobStep => ['blockdev-backup', { 'job-id': 'k', device, target: 'over', sync: 'full' }]),
    reopen('top', 'base'), reopen('top', null), reopen('mid', null, { 'read-only': true }), reopen('base', 'over', { 'read-only': true }),
    ...['top', 'mid', 'base', 'filter'].map((name): JobStep => ['blockdev-del', { 'node-name': name }]),
    ...['top', 'mid', 'base'].map((name): JobStep => ['change-backing-file', { device: 'filter', 'image-node-name': name, 'backing-file': 'x' }]),
    ...['top', 'mid', 'base'].map((name): JobStep => ['block_resize', { 'node-name': name, size: 8 * 2 ** 20 }]),
    ['job-complete', { id: 'j' }], { until: '"null"' }, reopen('mid', null, { 'read-only': true }), reopen('mid', 'base', { 'read-only': true }), ['quit'],
  ];
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('links below an active commit', () => {
  test('cannot be changed while it runs', async () => {
    const folder = tmp('chain');
    mkdirSync(folder);
    const play = async (replies: typeof ourReplies): Promise<readonly (string | undefined)[]> => {
      await makeChain(folder);
      await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', `${folder}/over.qcow2`, '4M']);
      // how often a job stands still for others is not compared
      return (await replies(steps(folder), folder)).map((messages) => messages.at(-1));
    };
    const theirs = await play(theirReplies);
    const ours = await play(ourReplies);
    expect(theirs.join('\n')).toContain("Cannot change frozen 'backing' link from 'mid' to 'base'");
    for (const [index, step] of steps(folder).entries()) expect([step, ours[index]]).toEqual([step, theirs[index]]);
  });
});
