/** Errors of disks below block-commit and block-stream, injected on both sides: each policy does what qemu-storage-daemon does (trap J-12). */
import { test } from '@jest/globals';
import { add, compareOnChain } from '../support/chain-images.js';
import type { JobStep } from '../support/job-script.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const POLICIES = ['report', 'stop', 'ignore', 'enospc', 'auto'] as const;
type Policy = (typeof POLICIES)[number];
type Failing = 'base' | 'mid' | 'top';

const NO_SPACE = { event: 'write_aio', errno: 28, once: true };
/** In the second mebibyte of the disk. */
const BAD_SECTOR = { event: 'read_aio', errno: 5, once: true, sector: (320 + 512) * 2 };

function nodes(folder: string, failing: Failing, rule: object): readonly JobStep[] {
  const file = (name: Failing) => (name !== failing ? {} : {
    file: { driver: 'blkdebug', 'node-name': `${name}-debug`, 'inject-error': [rule], image: { driver: 'file', filename: `${folder}/${name}.qcow2` } },
  });
  return [
    add(folder, 'base', { 'read-only': failing !== 'base', ...file('base') }), add(folder, 'mid', { 'read-only': true, backing: 'base', ...file('mid') }),
    add(folder, 'top', { backing: 'mid', ...file('top') }),
  ];
}

function steps(job: JobStep, stops: boolean): readonly JobStep[] {
  const end: readonly JobStep[] = [{ until: '"concluded"' }, ['query-block-jobs'], ['job-dismiss', { id: 'j' }], ['blockdev-del', { 'node-name': 'mid' }]];
  const stopped: readonly JobStep[] = [{ until: 'BLOCK_JOB_ERROR' }, { until: '"paused"' }, ['query-block-jobs'], ['job-pause', { id: 'j' }], ['block-job-resume', { device: 'j' }]];
  return [job, ...(stops ? stopped : []), ...end];
}

const commit = (policy: Policy): JobStep => ['block-commit', { 'job-id': 'j', device: 'top', 'top-node': 'mid', 'base-node': 'base', 'on-error': policy, 'auto-dismiss': false, 'backing-file': 'base.qcow2' }];
/** Only the piece at 1 MiB is to be copied: which write fails is not a matter of their order. */
const stream = (policy: Policy): JobStep => ['block-stream', { 'job-id': 'j', device: 'top', 'base-node': 'base', 'on-error': policy, 'auto-dismiss': false, 'backing-file': 'base.qcow2' }];

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('an error of the host', () => {
  for (const policy of POLICIES) {
    test(`while a commit reads, on-error=${policy}`, async () => {
      const folder = tmp('chain');
      await compareOnChain(folder, steps(commit(policy), policy === 'stop'), '4M', nodes(folder, 'mid', BAD_SECTOR));
    }, 60_000);
    test(`while a commit writes, on-error=${policy}`, async () => {
      const folder = tmp('chain');
      await compareOnChain(folder, steps(commit(policy), policy !== 'report' && policy !== 'ignore'), '4M', nodes(folder, 'base', NO_SPACE));
    }, 60_000);
    test(`while a stream reads, on-error=${policy}`, async () => {
      const folder = tmp('chain');
      await compareOnChain(folder, steps(stream(policy), policy === 'stop'), '4M', nodes(folder, 'mid', BAD_SECTOR));
    }, 60_000);
  }
});
