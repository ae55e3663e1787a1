/** blockdev-mirror beside qemu-storage-daemon: refusals, events, what is told of jobs and nodes. */
import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { ourReplies, theirReplies, type JobStep } from '../support/job-script.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const NODES: JobStep = ['query-named-block-nodes', { flat: true }];
const GRAPH: JobStep = ['x-debug-query-block-graph'];
const JOBS: readonly JobStep[] = [['query-block-jobs'], ['query-jobs']];
const READY: JobStep = { until: 'BLOCK_JOB_READY' };
const GONE: JobStep = { until: '"null"' };
const mirror = (args: Readonly<Record<string, unknown>> = {}): JobStep => ['blockdev-mirror', { 'job-id': 'j', device: 'top', target: 'dst', sync: 'full', ...args }];
/** `@/` stands for the folder of the images. */
const qcow2 = (name: string, more: Readonly<Record<string, unknown>> = {}): JobStep =>
  ['blockdev-add', { driver: 'qcow2', 'node-name': name, file: { driver: 'file', filename: `@/${name}.qcow2` }, ...more }];
const raw = (name: string, file: Readonly<Record<string, unknown>> = {}): JobStep =>
  ['blockdev-add', { driver: 'raw', 'node-name': name, file: { driver: 'file', filename: `@/${name}.raw`, 'node-name': `${name}-file`, ...file } }];

const OPEN: readonly JobStep[] = [
  qcow2('top'), qcow2('dst', { backing: null }), raw('small'),
  ['object-add', { 'qom-type': 'throttle-group', id: 'tg' }], ['blockdev-add', { driver: 'throttle', 'node-name': 'thr', file: 'small', 'throttle-group': 'tg' }],
];

const REFUSALS: readonly JobStep[] = [
  ...OPEN, mirror({ device: 'nope' }), mirror({ target: 'nope' }), ['blockdev-mirror', { device: 'top', target: 'dst', sync: 'full' }], mirror({ 'job-id': '1j' }),
  ...['bitmap', 'incremental', 'foo'].map((sync) => mirror({ sync })), ...[256, 3000, 134_217_728].map((granularity) => mirror({ granularity })),
  mirror({ 'buf-size': -1 }), mirror({ speed: -1 }), ...['nope', 'small'].map((replaces) => mirror({ replaces })),
  ...['small', '#x'].map((name) => mirror({ 'filter-node-name': name })), mirror({ target: 'top' }), mirror({ device: 'thr', target: 'small' }),
  mirror({ device: 'small', target: 'thr' }), mirror({ device: 'thr', target: 'small-file' }), mirror({ target: 'small' }), GONE,
  mirror({ target: 'small', 'auto-dismiss': false }), { until: '"concluded"' }, ...JOBS, ['job-dismiss', { id: 'j' }], NODES, GRAPH,
];

const RUNNING: readonly JobStep[] = [
  ...OPEN, ['nbd-server-start', { addr: { type: 'unix', data: { path: '@/nbd.sock' } } }],
  ['block-export-add', { id: 'e0', type: 'nbd', 'node-name': 'top', writable: true }],
  mirror({ sync: 'top', speed: 8192, granularity: 65_536, 'buf-size': 65_536, 'filter-node-name': 'f' }), { asleep: 'j', moved: 65_536 }, ['query-jobs'], NODES, ['query-named-block-nodes'], GRAPH,
  ['query-blockstats', { 'query-nodes': true }],
  ['block-job-complete', { device: 'j' }], mirror(), mirror({ 'job-id': 'k', device: 'f' }), mirror({ 'job-id': 'k', device: 'small', target: 'top' }),
  ...['top', 'dst', 'f'].flatMap((name): JobStep[] => [['blockdev-del', { 'node-name': name }], ['block_resize', { 'node-name': name, size: 1_048_576 }]]),
  ...[true, false].map((writable): JobStep => ['block-export-add', { id: 'e1', type: 'nbd', 'node-name': 'dst', writable }]),
  ['block-export-add', { id: 'e2', type: 'nbd', name: 'again', 'node-name': 'top', writable: true }],
  ['block-job-set-speed', { device: 'j', speed: -5 }], ['block-job-pause', { device: 'j' }], { ms: 300 }, ['block-job-pause', { device: 'j' }], ['block-job-cancel', { device: 'j' }],
  ['block-job-set-speed', { device: 'j', speed: 0 }], ['block-job-resume', { device: 'j' }], READY, ...JOBS,
  ['block-job-pause', { device: 'j' }], { ms: 200 }, ['query-block-jobs'], ['block-job-complete', { device: 'j' }], ['block-job-resume', { device: 'j' }], GONE, GRAPH, NODES,
];

const ENDS: readonly JobStep[] = [
  ...OPEN, mirror({ 'auto-finalize': false, 'auto-dismiss': false }), READY, { ms: 150 }, ...JOBS, ['block-job-complete', { device: 'j' }], { until: 'BLOCK_JOB_PENDING' },
  ['query-block-jobs'], ['block-job-complete', { device: 'j' }], ['block-job-finalize', { id: 'j' }], ...JOBS, ['job-dismiss', { id: 'j' }], GRAPH, NODES,
];

const cancelled = (cancel: JobStep): readonly JobStep[] =>
  [mirror({ 'copy-mode': 'write-blocking' }), READY, { ms: 150 }, ['query-block-jobs'], ['query-jobs'], NODES, cancel, GONE, GRAPH];

const CANCELS: readonly JobStep[] = [
  ...OPEN, ...cancelled(['block-job-cancel', { device: 'j' }]), ...cancelled(['block-job-cancel', { device: 'j', force: true }]), ...cancelled(['job-cancel', { id: 'j' }]),
  mirror({ speed: 1 }), { asleep: 'j', moved: 65_536 }, ['block-job-cancel', { device: 'j' }], GONE, ['query-jobs'], NODES,
];

const REPLACES: readonly JobStep[] = [
  raw('a'), raw('b'), ['object-add', { 'qom-type': 'throttle-group', id: 'tg' }], ['blockdev-add', { driver: 'throttle', 'node-name': 'thr', file: 'a', 'throttle-group': 'tg' }],
  mirror({ device: 'thr', target: 'b', replaces: 'a', 'filter-node-name': 'f' }), READY, GRAPH, ['job-complete', { id: 'j' }], GONE, GRAPH, NODES,
];

async function makeImages(folder: string): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', `${folder}/base.qcow2`, '16M']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 3 0 1M', `${folder}/base.qcow2`]);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', `${folder}/top.qcow2`]);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 4 2M 1M', `${folder}/top.qcow2`]);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-u', '-b', 'base.qcow2', '-F', 'qcow2', `${folder}/dst.qcow2`, '16M']);
  for (const [name, bytes] of [['small', 8 * 2 ** 20], ['a', 4 * 2 ** 20], ['b', 4 * 2 ** 20]] as const) {
    writeFileSync(`${folder}/${name}.raw`, '');
    truncateSync(`${folder}/${name}.raw`, bytes);
  }
}

async function compare(steps: readonly JobStep[]): Promise<void> {
  const folder = tmp('images');
  const here = JSON.parse(JSON.stringify(steps).replaceAll('@/', `${folder}/`)) as JobStep[];
  await makeImages(folder);
  const theirs = await theirReplies(here, folder);
  await makeImages(folder);
  const ours = await ourReplies(here, folder);
  for (const [index, step] of here.entries()) expect([step, ours[index]]).toEqual([step, theirs[index]]);
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('blockdev-mirror gives the messages of qemu-storage-daemon', () => {
  test('where it is refused', () => compare(REFUSALS), 60_000);
  test('while it runs, is paused, and is in the way of others', () => compare(RUNNING), 60_000);
  test('when it is completed, finalized and dismissed by hand', () => compare(ENDS), 60_000);
  test('when it is cancelled', () => compare(CANCELS), 60_000);
  test('in the place of another node', () => compare(REPLACES), 60_000);
});
