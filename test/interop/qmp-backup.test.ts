/** blockdev-backup and the copy-before-write filter beside qemu-storage-daemon: refusals, events, bitmaps, errors, transactions, and what the targets hold. */
import { mkdirSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { add } from '../support/chain-images.js';
import { ourReplies, theirReplies, type JobStep } from '../support/job-script.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
type Args = Readonly<Record<string, unknown>>;
const backup = (args: Args = {}): JobStep => ['blockdev-backup', { 'job-id': 'j', device: 's', target: 't', sync: 'full', ...args }];
const bitmap = (name: string, args: Args = {}): JobStep => ['block-dirty-bitmap-add', { node: 's', name, ...args }];
const NODES: JobStep = ['query-named-block-nodes', { flat: true }];
const GRAPH: JobStep = ['x-debug-query-block-graph'];
const JOBS: readonly JobStep[] = [['query-block-jobs'], ['query-jobs']];
const END: JobStep = { until: '"null"' };
const CONCLUDED: JobStep = { until: '"concluded"' };
const IMAGES = ['s', 's2', 't', 't2', 'small'];

async function makeImages(folder: string): Promise<void> {
  const file = (name: string): string => `${folder}/${name}.qcow2`;
  for (const name of IMAGES) await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', file(name), name === 'small' ? '1M' : '4M']);
  for (const name of ['s', 's2']) await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 5 0 2M', '-c', 'write -q -P 6 3M 64k', file(name)]);
}

/** Plays the steps to both daemons, each on new images. */
async function compare(steps: readonly JobStep[], nodes = (folder: string): readonly JobStep[] => IMAGES.map((name) => add(folder, name))): Promise<string> {
  const folder = tmp('images');
  mkdirSync(folder);
  const all: readonly JobStep[] = [...nodes(folder), ...steps, ['quit']];
  await makeImages(folder);
  const expected = await theirReplies(all, folder);
  await makeImages(folder);
  const actual = await ourReplies(all, folder);
  for (const [index, step] of all.entries()) expect([step, actual[index]]).toEqual([step, expected[index]]);
  for (const name of IMAGES) expect(await runOk('qemu-img', ['check', `${folder}/${name}.qcow2`])).toContain('No errors');
  return folder;
}

const REFUSALS: readonly JobStep[] = [
  ['blockdev-backup', { device: 's', target: 't', sync: 'full' }], backup({ 'job-id': '1j' }), backup({ device: 'q' }), backup({ target: 'q' }), backup({ target: 's' }),
  backup({ target: 'small' }), backup({ speed: -1 }), backup({ sync: 'bitmap' }), backup({ sync: 'incremental' }),
  backup({ sync: 'incremental', bitmap: 'b', 'bitmap-mode': 'never' }), backup({ sync: 'bitmap', bitmap: 'b' }), backup({ sync: 'bitmap', bitmap: 'b', 'bitmap-mode': 'always' }),
  bitmap('b'), backup({ sync: 'bitmap', bitmap: 'b' }), backup({ sync: 'none', bitmap: 'b', 'bitmap-mode': 'always' }), backup({ bitmap: 'b', 'bitmap-mode': 'never' }),
  backup({ sync: 'top', bitmap: 'b', 'bitmap-mode': 'never' }), backup({ 'bitmap-mode': 'never' }), backup({ 'x-perf': { 'max-workers': 0 } }),
  backup({ 'x-perf': { 'max-workers': 3_000_000_000 } }), backup({ 'x-perf': { 'max-chunk': -1 } }), backup({ 'x-perf': { 'max-chunk': 4096 } }),
  backup({ 'filter-node-name': 't' }), backup({ 'filter-node-name': '1x' }), backup({ sync: 'nonsense' }), backup({ target: 's-file' }), backup({ device: 's-file' }),
  backup({ device: 't-file' }), NODES, GRAPH,
];

const RUNNING: readonly JobStep[] = [
  backup(), END, NODES, backup({ speed: 1, 'auto-dismiss': false, 'filter-node-name': 'filter' }), { asleep: 'j', moved: 1 }, ...JOBS, NODES, GRAPH,
  ['block-job-pause', { device: 'j' }], ['block-job-pause', { device: 'j' }], ...JOBS, ['block-job-cancel', { device: 'j' }], ['block-job-resume', { device: 'j' }],
  ['block-job-resume', { device: 'j' }], ['block-job-set-speed', { device: 'j', speed: -1 }], ['block-job-complete', { device: 'j' }], ['block-job-finalize', { id: 'j' }],
  ['block-job-dismiss', { id: 'j' }], ['job-cancel', { id: 'j' }], ...JOBS, NODES, ['job-dismiss', { id: 'j' }],
  backup({ 'auto-finalize': false, 'auto-dismiss': false }), { until: 'BLOCK_JOB_PENDING' }, ...JOBS, NODES, GRAPH, ['job-finalize', { id: 'j' }], ...JOBS,
  ['job-dismiss', { id: 'j' }], backup({ 'auto-finalize': false }), { until: 'BLOCK_JOB_PENDING' }, ['job-cancel', { id: 'j' }], ...JOBS, GRAPH,
];

const BITMAPS: readonly JobStep[] = [
  bitmap('b'), bitmap('d', { disabled: true }), bitmap('p', { persistent: true, granularity: 131_072 }),
  backup({ bitmap: 'b', 'bitmap-mode': 'always', speed: 1, 'auto-dismiss': false }), { asleep: 'j', moved: 1 }, NODES, ['block-dirty-bitmap-clear', { node: 's', name: 'b' }],
  ['block-dirty-bitmap-remove', { node: 's', name: 'b' }], ['block-dirty-bitmap-merge', { node: 's', target: 'd', bitmaps: ['b'] }], ['block-dirty-bitmap-disable', { node: 's', name: 'b' }],
  ['job-cancel', { id: 'j' }], NODES, ['job-dismiss', { id: 'j' }],
  backup({ sync: 'bitmap', bitmap: 'b', 'bitmap-mode': 'never' }), END, NODES, backup({ sync: 'incremental', bitmap: 'b' }), END, NODES,
  backup({ sync: 'top', bitmap: 'd', 'bitmap-mode': 'always' }), END, NODES,
];

const transaction = (actions: readonly Args[], grouped = false): JobStep =>
  ['transaction', { actions, ...(grouped ? { properties: { 'completion-mode': 'grouped' } } : {}) }];
const action = (id: string, device: string, target: string, args: Args = {}): Args => ({ type: 'blockdev-backup', data: { 'job-id': id, device, target, sync: 'full', ...args } });

const TRANSACTIONS: readonly JobStep[] = [
  transaction([action('a', 's', 't'), action('a', 's2', 't2')], true), transaction([action('a', 's', 't'), action('b', 's2', 'q')], true),
  transaction([action('a', 's', 't'), { type: 'abort', data: {} }]), transaction([action('a', 's', 't'), { type: 'block-dirty-bitmap-add', data: { node: 's', name: 'b' } }], true),
  transaction([{ type: 'block-dirty-bitmap-add', data: { node: 's', name: 'b' } }, action('a', 's', 't', { bitmap: 'b', 'bitmap-mode': 'always' })]), END, NODES,
  transaction([action('a', 's', 't', { speed: 1, 'auto-dismiss': false, bitmap: 'b', 'bitmap-mode': 'on-success' }), action('b', 's2', 't2', { 'auto-dismiss': false })], true),
  { until: 'waiting' }, ...JOBS, NODES, ['job-cancel', { id: 'a' }], ...JOBS, NODES, ['job-dismiss', { id: 'a' }], ['job-dismiss', { id: 'b' }],
  transaction([action('a', 's', 't', { speed: 1, 'auto-dismiss': false }), action('b', 's2', 't2', { 'auto-dismiss': false })], true),
  { until: 'waiting' }, ['job-cancel', { id: 'b' }], ...JOBS, GRAPH,
];

const FILTERS: readonly JobStep[] = [
  ['blockdev-add', { driver: 'copy-before-write', 'node-name': 'c', file: 's' }], ['blockdev-add', { driver: 'snapshot-access', 'node-name': 'c' }], bitmap('b'),
  ...[{ node: 's', name: 'q' }, { node: 'q', name: 'q' }].map((one): JobStep => ['blockdev-add', { driver: 'copy-before-write', 'node-name': 'c', file: 's', target: 't', bitmap: one }]),
  ['block-dirty-bitmap-add', { node: 'small', name: 'b' }],
  ['blockdev-add', { driver: 'copy-before-write', 'node-name': 'c', file: 's', target: 't', bitmap: { node: 'small', name: 'b' } }],
  ['blockdev-add', { driver: 'copy-before-write', 'node-name': 'c', file: 's', target: 't', bitmap: { node: 's', name: 'b' }, 'on-cbw-error': 'break-snapshot', 'cbw-timeout': 1 }],
  ['blockdev-add', { driver: 'snapshot-access', 'node-name': 'a', file: 'c' }], NODES, GRAPH, ['blockdev-del', { 'node-name': 'c' }], ['blockdev-del', { 'node-name': 'a' }],
  ['blockdev-del', { 'node-name': 'c' }], NODES,
];

/** Fails the first request that touches a sector of the second piece. */
function failing(folder: string, name: string, iotype: string, errno: number): JobStep {
  return ['blockdev-add', {
    driver: 'blkdebug', 'node-name': name, 'inject-error': [{ event: 'none', iotype, errno, once: true, sector: 3072 }],
    image: { driver: 'qcow2', 'node-name': `${name}-image`, file: { driver: 'file', filename: `${folder}/${name}.qcow2` } },
  }];
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('blockdev-backup gives the messages of qemu-storage-daemon', () => {
  test('where it is refused', async () => { await compare(REFUSALS); }, 60_000);
  test('while it runs, paused, cancelled, pending and finalized', async () => {
    const folder = await compare(RUNNING);
    expect(await runOk('qemu-img', ['compare', `${folder}/s.qcow2`, `${folder}/t.qcow2`])).toContain('identical');
  });
  test('with bitmaps', async () => { await compare(BITMAPS); }, 60_000);
  test('in transactions', async () => { await compare(TRANSACTIONS); }, 60_000);
  test('for its filter and what shows the old content', async () => { await compare(FILTERS); }, 60_000);

  const ONE = { 'x-perf': { 'max-workers': 1 }, 'auto-dismiss': false };
  for (const policy of ['report', 'ignore', 'stop', 'enospc', 'auto']) {
    test(`where reads and writes fail once, with the policy ${policy}`, async () => {
      // the job begins paused, while the source is drained
      const resume: readonly JobStep[] = [{ until: 'BLOCK_JOB_ERROR' }, { until: '"paused"' }, ['query-block-jobs'], ['block-job-resume', { device: 'j' }]];
      const [onRead, onWrite] = [['stop'], ['stop', 'enospc', 'auto']].map((stopping) => (stopping.includes(policy) ? resume : []));
      await compare([
        backup({ ...ONE, target: 't2', 'on-source-error': policy }), ...onRead!, CONCLUDED, ...JOBS, ['job-dismiss', { id: 'j' }],
        backup({ ...ONE, device: 's-image', 'on-target-error': policy }), ...onWrite!, CONCLUDED, ...JOBS, ['job-dismiss', { id: 'j' }], GRAPH,
      ], (folder) => [failing(folder, 's', 'read', 5), failing(folder, 't', 'write', 28), add(folder, 't2')]);
    });
  }
});
