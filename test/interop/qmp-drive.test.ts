/** drive-mirror and drive-backup beside qemu-storage-daemon: refusals, the images they make, what becomes of the graph. */
import { mkdirSync, rmSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { ourReplies, theirReplies, type JobStep } from '../support/job-script.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const NODES: JobStep = ['query-named-block-nodes', { flat: true }];
const GRAPH: JobStep = ['x-debug-query-block-graph'];
const READY: JobStep = { until: 'BLOCK_JOB_READY' };
const GONE: JobStep = { until: '"null"' };
type Args = Readonly<Record<string, unknown>>;
/** `@/` stands for the folder of the images. */
const mirror = (args: Args = {}): JobStep => ['drive-mirror', { 'job-id': 'j', device: 'top', target: '@/new.qcow2', sync: 'full', ...args }];
const backup = (args: Args = {}): JobStep => ['drive-backup', { 'job-id': 'j', device: 'top', target: '@/new.qcow2', sync: 'full', ...args }];

const OPEN: readonly JobStep[] = [
  ['blockdev-add', { driver: 'qcow2', 'node-name': 'top', discard: 'unmap', file: { driver: 'file', filename: '@/top.qcow2' } }],
  ['blockdev-add', { driver: 'raw', 'node-name': 'r', file: { driver: 'file', filename: '@/r.raw', 'node-name': 'rf' } }],
  ['block-dirty-bitmap-add', { node: 'top', name: 'b' }],
];

/** Refused before or after the image was made, as by QEMU. */
const BOTH: readonly Args[] = [
  { device: 'nope' }, { 'job-id': '1j' }, { format: 'zzz' }, { format: 'raw', sync: 'top' }, { target: '/nonexistent/x.qcow2' }, { target: '@/none', mode: 'existing' },
  { target: '@/top.qcow2', mode: 'existing' }, { target: '@/base.qcow2', mode: 'existing' }, { speed: -1 }, { target: '' }, { target: '', mode: 'existing' }, { target: 'x:y' },
  { target: '@/top.qcow2' }, { target: '@/base.qcow2', sync: 'top' }, { target: '@/base.qcow2', sync: 'none' }, { target: 'nbd:unix:@/none', mode: 'existing' },
  { target: '@/r2.raw', mode: 'existing', format: 'qcow2' }, { target: '@/r2.raw', mode: 'existing', format: 'zz' }, { target: 'json:{"driver":"null-co"}' },
];
const REFUSALS: readonly JobStep[] = [
  ...OPEN, ...BOTH.map(mirror), mirror({ device: 'rf' }), mirror({ sync: 'bitmap' }), mirror({ sync: 'incremental' }), mirror({ 'node-name': 'top' }), mirror({ 'node-name': '#x' }),
  mirror({ granularity: 3 }), mirror({ granularity: 100 }), mirror({ granularity: 3000 }), mirror({ 'buf-size': -1 }), ...['nope', 'r', 'top'].map((replaces) => mirror({ replaces })),
  mirror({ replaces: 'nope', 'node-name': 'zz' }), mirror({ replaces: 'r', 'node-name': 'zz' }),
  ...BOTH.map(backup), backup({ sync: 'bitmap' }), backup({ sync: 'incremental', bitmap: 'c' }), backup({ sync: 'bitmap', bitmap: 'b' }), backup({ 'bitmap-mode': 'always' }),
  backup({ 'filter-node-name': 'top' }), backup({ 'x-perf': { 'max-workers': 0 } }),
  ['transaction', { actions: [{ type: 'drive-backup', data: { device: 'top', 'job-id': 'j', target: '@/new.qcow2', sync: 'full' } }, { type: 'abort', data: {} }] }], GRAPH, NODES,
];

const MIRRORS: readonly JobStep[] = [
  ...OPEN, mirror(), READY, GRAPH, NODES, ['block-job-cancel', { device: 'j' }], GONE, GRAPH, NODES,
  mirror({ sync: 'top', target: '@/layer.qcow2', 'node-name': 'layer', 'auto-finalize': false, 'auto-dismiss': false }), READY, NODES, ['job-complete', { id: 'j' }],
  { until: 'BLOCK_JOB_PENDING' }, ['job-finalize', { id: 'j' }], ['query-jobs'], ['job-dismiss', { id: 'j' }], GRAPH,
];

/** With a guest's export on the disk, so that the target stays when it has taken its place. */
const PIVOTS: readonly JobStep[] = [
  ...OPEN, ['nbd-server-start', { addr: { type: 'unix', data: { path: '@/nbd.sock' } } }], ['block-export-add', { id: 'e', type: 'nbd', 'node-name': 'top', writable: true }],
  mirror({ sync: 'top', target: '@/layer.qcow2', 'node-name': 'layer' }), READY, ['job-complete', { id: 'j' }], GONE, GRAPH, NODES,
  mirror({ device: 'layer', sync: 'full', format: 'raw', target: '@/flat.raw', 'node-name': 'flat', unmap: false }), READY, ['job-complete', { id: 'j' }], GONE, GRAPH, NODES,
];

const EXISTING: readonly JobStep[] = [
  ...OPEN, ['nbd-server-start', { addr: { type: 'unix', data: { path: '@/nbd.sock' } } }], ['block-export-add', { id: 'e', type: 'nbd', 'node-name': 'top', writable: true }],
  mirror({ sync: 'top', mode: 'existing', target: '@/made.qcow2', 'node-name': 'made' }), READY, ['job-complete', { id: 'j' }], GONE, GRAPH,
  mirror({ device: 'made', mode: 'existing', target: '@/r2.raw', 'node-name': 'probed' }), READY, ['job-complete', { id: 'j' }], GONE, GRAPH, NODES,
];

const NONE: readonly JobStep[] = [
  ...OPEN, ['nbd-server-start', { addr: { type: 'unix', data: { path: '@/nbd.sock' } } }], ['block-export-add', { id: 'e', type: 'nbd', 'node-name': 'top', writable: true }],
  mirror({ sync: 'none', target: '@/over.qcow2', 'node-name': 'over' }), { ms: 200 }, ['query-jobs'], ['job-complete', { id: 'j' }], GONE, GRAPH, NODES,
];

const BACKUPS: readonly JobStep[] = [
  ...OPEN, backup(), GONE, GRAPH, NODES, backup({ target: '@/flat.raw', format: 'raw' }), GONE, backup({ target: '@/flat.raw', format: 'raw', mode: 'existing' }), GONE,
  backup({ sync: 'top', target: '@/layer.qcow2' }), GONE, backup({ sync: 'none', target: '@/none.qcow2' }), NODES, GRAPH, ['block-job-cancel', { device: 'j' }], GRAPH,
  ['transaction', { actions: [{ type: 'drive-backup', data: { device: 'top', 'job-id': 'j', target: '@/t.qcow2', sync: 'full' } }] }], GONE, GRAPH,
  ['transaction', { properties: { 'completion-mode': 'grouped' }, actions: [{ type: 'drive-backup', data: { device: 'r', 'job-id': 'j', target: '@/t.raw', sync: 'full' } }] }], GONE,
];

async function makeImages(folder: string): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', `${folder}/base.qcow2`, '4M']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 3 0 2M', `${folder}/base.qcow2`]);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', `${folder}/base.qcow2`, '-F', 'qcow2', `${folder}/top.qcow2`]);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 4 1M 1M', '-c', 'write -q -z 0 256k', `${folder}/top.qcow2`]);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', `${folder}/base.qcow2`, '-F', 'qcow2', `${folder}/made.qcow2`]);
  for (const name of ['r', 'r2']) await runOk('qemu-img', ['create', '-q', '-f', 'raw', `${folder}/${name}.raw`, '4M']);
}

/** Plays the steps to both daemons, and returns what QEMU's programs say of the images afterwards, alike for both. */
async function compare(steps: readonly JobStep[], images: readonly string[] = []): Promise<void> {
  const folder = tmp('images');
  const here = JSON.parse(JSON.stringify([...steps, ['quit']]).replaceAll('@/', `${folder}/`)) as JobStep[];
  const play = async (replies: typeof ourReplies): Promise<{ readonly messages: readonly (readonly string[])[]; readonly images: readonly string[] }> => {
    await makeImages(folder);
    const messages = await replies(here, folder);
    return { messages, images: await Promise.all(images.map((name) => imageFacts(folder, name))) };
  };
  const theirs = await play(theirReplies);
  const ours = await play(ourReplies);
  for (const [index, step] of here.entries()) expect([step, ours.messages[index]]).toEqual([step, theirs.messages[index]]);
  expect(ours.images).toEqual(theirs.images);
}

async function imageFacts(folder: string, name: string): Promise<string> {
  const format = name.endsWith('.raw') ? 'raw' : 'qcow2';
  const info = (await runOk('qemu-img', ['info', '-f', format, `${folder}/${name}`])).replace(/disk size: .*/g, '');
  const { stdout } = await run('qemu-img', ['compare', '-f', 'qcow2', '-F', format, `${folder}/top.qcow2`, `${folder}/${name}`]);
  return `${info}${stdout}`;
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('drive-mirror and drive-backup give the messages of qemu-storage-daemon', () => {
  test('where they are refused', () => compare(REFUSALS), 120_000);
  test('mirrors that leave the disk where it is', () => compare(MIRRORS, ['new.qcow2', 'layer.qcow2']), 60_000);
  test('mirrors that take its place, over the image below it', () => compare(PIVOTS, ['layer.qcow2', 'flat.raw']), 60_000);
  test('a mirror to an image that is there, with a backing file', () => compare(EXISTING, ['made.qcow2', 'r2.raw']), 60_000);
  test('a mirror of what is written from now on, which comes to lie on its source', () => compare(NONE, ['over.qcow2']), 60_000);
  test('backups', () => compare(BACKUPS, ['new.qcow2', 'flat.raw', 'layer.qcow2', 't.qcow2', 't.raw']), 60_000);
});
