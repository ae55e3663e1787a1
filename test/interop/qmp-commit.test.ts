/** block-commit beside qemu-storage-daemon: refusals, events, what is told of jobs and nodes, and the images afterwards. */
import { expect, test } from '@jest/globals';
import { compareOnChain } from '../support/chain-images.js';
import type { JobStep } from '../support/job-script.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const commit = (args: Readonly<Record<string, unknown>>): JobStep => ['block-commit', { 'job-id': 'j', device: 'top', ...args }];
const mid = { 'top-node': 'mid', 'base-node': 'base' };
const NODES: JobStep = ['query-named-block-nodes', { flat: true }];
const GRAPH: JobStep = ['x-debug-query-block-graph'];
const JOBS: readonly JobStep[] = [['query-block-jobs'], ['query-jobs']];

const REFUSALS: readonly JobStep[] = [
  commit({ device: 'nope' }), ['block-commit', { device: 'top', ...mid }], commit({ ...mid, top: 'x' }), commit({ 'top-node': 'zz' }),
  commit({ 'top-node': 'mid', 'base-node': 'zz' }), commit({ 'top-node': 'base', 'base-node': 'mid' }), commit({ 'top-node': 'base', 'base-node': 'base' }),
  commit({ 'top-node': 'base' }), commit({ device: 'mid', ...mid }), commit({ top: 'zz' }), commit({ 'top-node': 'mid', base: 'zz' }), commit({ ...mid, base: 'x' }),
  commit({ 'base-node': 'base', 'backing-file': 'x' }), commit({ ...mid, 'job-id': '1j' }), commit({ ...mid, speed: -1 }), commit({ ...mid, 'filter-node-name': 'base' }),
  commit({ ...mid, 'filter-node-name': '1x' }), commit({ 'base-node': 'base', 'filter-node-name': 'base' }), commit({ 'base-node': 'base', speed: -1 }), NODES,
];

/** While it runs, and while it cannot go on for its speed. */
const RUNNING: readonly JobStep[] = [
  commit({ ...mid, speed: 1, 'filter-node-name': 'filter' }), { asleep: 'j', moved: 1 }, ...JOBS, NODES, GRAPH,
  commit({ ...mid, 'job-id': 'k' }), ['block-stream', { 'job-id': 'k', device: 'top' }], ['block-stream', { 'job-id': 'k', device: 'mid' }],
  ...['mid', 'top', 'base', 'filter'].map((name): JobStep => ['blockdev-del', { 'node-name': name }]),
  ['block_resize', { 'node-name': 'top', size: 8 * 2 ** 20 }], ['block_resize', { 'node-name': 'base', size: 8 * 2 ** 20 }],
  ['job-complete', { id: 'j' }], ['block-job-complete', { device: 'j' }], ['job-finalize', { id: 'j' }],
  ['block-job-set-speed', { device: 'j', speed: 0 }], { until: '"null"' }, NODES, GRAPH, ['blockdev-del', { 'node-name': 'mid' }], ['query-named-block-nodes'],
];

const PENDING: readonly JobStep[] = [
  commit({ ...mid, 'auto-dismiss': false, 'auto-finalize': false }), { until: 'BLOCK_JOB_PENDING' }, ...JOBS, GRAPH, ['job-cancel', { id: 'j' }], ...JOBS, GRAPH, NODES,
  ['job-dismiss', { id: 'j' }], GRAPH,
  commit({ ...mid, 'auto-dismiss': false, 'auto-finalize': false, 'backing-file': 'base.qcow2' }), { until: 'BLOCK_JOB_PENDING' }, ['job-finalize', { id: 'j' }], ...JOBS, GRAPH, NODES,
  ['blockdev-del', { 'node-name': 'mid' }], ['job-dismiss', { id: 'j' }], ['blockdev-del', { 'node-name': 'mid' }], NODES,
];

const PAUSED: readonly JobStep[] = [
  commit({ ...mid, speed: 1 }), { asleep: 'j', moved: 1 }, ['job-pause', { id: 'j' }], ...JOBS, ['job-pause', { id: 'j' }], ['block-job-cancel', { device: 'j' }],
  ['job-resume', { id: 'j' }], { ms: 200 }, ['job-resume', { id: 'j' }], ['block-job-cancel', { device: 'j' }], { ms: 100 }, NODES, GRAPH,
];

const ACTIVE: readonly JobStep[] = [
  commit({ 'base-node': 'base', 'auto-dismiss': false }), { until: 'BLOCK_JOB_READY' }, { ms: 200 }, ...JOBS, NODES, GRAPH,
  ...['mid', 'top', 'base'].map((name): JobStep => ['blockdev-del', { 'node-name': name }]), ['block-stream', { 'job-id': 'k', device: 'top' }], ['job-finalize', { id: 'j' }],
  ['block-job-cancel', { device: 'j' }], { until: '"concluded"' }, ...JOBS, GRAPH, ['job-dismiss', { id: 'j' }], NODES,
  commit({ 'base-node': 'mid', 'filter-node-name': 'filter' }), { until: 'BLOCK_JOB_READY' }, NODES, ['job-complete', { id: 'j' }], { until: '"null"' }, GRAPH, NODES,
  commit({ 'base-node': 'base' }), { until: 'BLOCK_JOB_READY' }, ['job-cancel', { id: 'j' }], { until: '"null"' }, NODES,
];

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('block-commit gives the messages of qemu-storage-daemon', () => {
  test('where it is refused', async () => { await compareOnChain(tmp('chain'), REFUSALS); }, 60_000);
  test('while it runs, and into a smaller base', async () => {
    const folder = tmp('chain');
    await compareOnChain(folder, RUNNING, '2M');
    expect(await runOk('qemu-io', ['-r', '-f', 'qcow2', '-c', 'read -P 1 0 1M', '-c', 'read -P 2 1M 2M', '-c', 'read -P 3 3M 64k', '-c', 'read -P 0 3136k 960k', `${folder}/top.qcow2`])).not.toContain('failed');
  });
  test('pending, finalized, cancelled and dismissed', async () => { await compareOnChain(tmp('chain'), PENDING); }, 60_000);
  test('paused and resumed', async () => { await compareOnChain(tmp('chain'), PAUSED); }, 60_000);
  test('of the active layer', async () => { await compareOnChain(tmp('chain'), ACTIVE, '2M'); }, 60_000);
});
