/** block-stream beside qemu-storage-daemon: refusals, events, what is told of jobs and nodes, and the images afterwards. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { BlockGraph, openBlockdev } from '../../src/index.js';
import { compareOnChain } from '../support/chain-images.js';
import type { JobStep } from '../support/job-script.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const stream = (args: Readonly<Record<string, unknown>>): JobStep => ['block-stream', { 'job-id': 'j', device: 'top', ...args }];
const NODES: JobStep = ['query-named-block-nodes', { flat: true }];
const GRAPH: JobStep = ['x-debug-query-block-graph'];
const JOBS: readonly JobStep[] = [['query-block-jobs'], ['query-jobs']];

const REFUSALS: readonly JobStep[] = [
  stream({ device: 'nope' }), ['block-stream', { device: 'top' }], stream({ base: 'x', 'base-node': 'base' }), stream({ base: 'x', bottom: 'base' }),
  stream({ 'base-node': 'base', bottom: 'base' }), stream({ base: 'x' }), stream({ 'base-node': 'x' }), stream({ 'base-node': 'top' }), stream({ 'base-node': 'mid-file' }),
  stream({ bottom: 'mid-file' }), stream({ bottom: 'x' }), stream({ bottom: 'mid', 'backing-file': 'x' }), stream({ 'backing-file': 'x' }),
  stream({ device: 'mid', 'base-node': 'base', speed: -1 }), stream({ 'base-node': 'base', speed: -1 }), stream({ 'base-node': 'base', 'filter-node-name': 'base' }),
  stream({ 'base-node': 'base', 'filter-node-name': '1x' }), stream({ 'base-node': 'base', 'job-id': '1j' }), GRAPH, NODES,
];

const RUNNING: readonly JobStep[] = [
  stream({ 'base-node': 'base', speed: 1, 'filter-node-name': 'filter' }), { asleep: 'j', moved: 1 }, ...JOBS, GRAPH,
  ...['mid', 'top', 'base', 'filter'].map((name): JobStep => ['blockdev-del', { 'node-name': name }]), stream({ 'job-id': 'k', device: 'mid' }), ['job-complete', { id: 'j' }],
  ['job-finalize', { id: 'j' }], ['block-commit', { 'job-id': 'k', device: 'top', 'base-node': 'base' }],
  ['block-job-set-speed', { device: 'j', speed: 0 }], { until: '"null"' }, NODES, GRAPH, ['blockdev-del', { 'node-name': 'mid' }], NODES,
  stream({}), { until: '"null"' }, ['blockdev-del', { 'node-name': 'base' }], NODES, GRAPH,
];

const PENDING: readonly JobStep[] = [
  stream({ 'base-node': 'base', 'auto-dismiss': false, 'auto-finalize': false }), { until: 'BLOCK_JOB_PENDING' }, ...JOBS, ['job-cancel', { id: 'j' }], ...JOBS,
  ['job-dismiss', { id: 'j' }], GRAPH,
  stream({ 'base-node': 'base', 'auto-dismiss': false, 'backing-file': 'base.qcow2' }), { until: '"concluded"' }, ...JOBS, ['blockdev-del', { 'node-name': 'mid' }],
  ['job-dismiss', { id: 'j' }], ['blockdev-del', { 'node-name': 'mid' }], NODES,
];

const BOTTOM: readonly JobStep[] = [
  stream({ bottom: 'mid' }), { until: '"null"' }, NODES, GRAPH, stream({ bottom: 'top', 'job-id': 'none' }),
  stream({ device: 'mid', base: 'nowhere' }), stream({ device: 'mid' }), { until: '"null"' }, NODES, GRAPH,
];

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('block-stream gives the messages of qemu-storage-daemon', () => {
  test('where it is refused', async () => { await compareOnChain(tmp('chain'), REFUSALS); }, 60_000);
  test('while it runs, down to the base and then of all', async () => {
    const folder = tmp('chain');
    await compareOnChain(folder, RUNNING, '2M');
    const reads = ['read -P 1 0 1M', 'read -P 2 1M 2M', 'read -P 3 3M 64k', 'read -P 0 3136k 960k'].flatMap((read) => ['-c', read]);
    expect(await runOk('qemu-io', ['-r', '-f', 'qcow2', ...reads, `${folder}/top.qcow2`])).not.toContain('failed');
  });
  test('of all: nothing is left of the format below, whatever lies below later', async () => {
    const folder = tmp('chain');
    await compareOnChain(folder, [stream({}), { until: '"null"' }]);
    const top = `${folder}/top.qcow2`;
    // a name without a format: QEMU's image has none then, and so has ours
    await runOk('qemu-img', ['create', '-q', '-f', 'raw', `${folder}/other.raw`, '4M']);
    const header = readFileSync(top).subarray(0, 4096);
    const at = header.indexOf(Buffer.from([0xe2, 0x79, 0x2a, 0xca]));
    expect(header.subarray(at + 8, at + 8 + header.readUInt32BE(at + 4)).every((byte) => byte === 0)).toBe(true);
    const graph = new BlockGraph();
    const node = await openBlockdev(graph, { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename: top }, backing: null });
    expect(node.driver.describe?.()).toMatchObject({ backingFile: null, backingFormat: null });
    await node.drained(() => node.driver.changeBackingFile!('other.raw', 'raw'));
    await graph.closeAll();
    expect(await runOk('qemu-img', ['info', top])).toContain('backing file: other.raw (actual path: ' + folder + '/other.raw)\nbacking file format: raw');
    expect(await runOk('qemu-img', ['check', top])).toContain('No errors');
  });
  test('pending, finalized, cancelled and dismissed', async () => { await compareOnChain(tmp('chain'), PENDING); }, 60_000);
  test('down to a bottom node, and of a read-only image', async () => { await compareOnChain(tmp('chain'), BOTTOM); }, 60_000);
});
