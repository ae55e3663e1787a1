/** Commands drawn from a seed, sent to qemu-storage-daemon and to ours: the same replies and events, whatever state the former ones left. */
import { rm } from 'node:fs/promises';
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { DIED, negotiated, ourDaemonTranscript, theirTranscript } from '../support/transcript.js';

const tmp = useTmp();
const COMMANDS = 120;
const SEEDS = (process.env['QUIESCE_SEEDS'] ?? '1,4,5,7').split(',').map(Number);

type Value = null | boolean | number | string | readonly Value[] | { readonly [name: string]: Value };
type Draw = <T>(...of: readonly T[]) => T;

/** A small generator of its own, so that a seed means the same script everywhere. */
function drawFrom(seed: number): Draw {
  let state = seed * 2_654_435_761 % 2 ** 32;
  return (...of) => {
    state = (state * 1_664_525 + 1_013_904_223) % 2 ** 32;
    return of[Math.floor((state / 2 ** 32) * of.length)]!;
  };
}

type Command = (draw: Draw) => readonly [string, Value];

const node = (draw: Draw): string => draw('n0', 'n1', 'n2', 'f0', 'f1', 'q0', 'q1', 'r0', 'nope');
const bitmap = (draw: Draw): string => draw('b0', 'b1', 'b2', 'nope');
const flag = (draw: Draw): boolean => draw(true, false);

function definition(draw: Draw): Value {
  return draw<(() => Value)>(
    () => ({ driver: draw('null-co', 'null-aio'), 'node-name': draw('n0', 'n1', 'n2', '1n', ''), size: draw(65_536, 512, 1000) }),
    () => ({ driver: 'file', 'node-name': draw('f0', 'f1'), filename: draw(tmp('a.qcow2'), tmp('b.raw'), '/nonexistent/x', ''), 'read-only': flag(draw) }),
    () => ({ driver: 'qcow2', 'node-name': draw('q0', 'q1'), file: draw('f0', 'f1', 'n0', 'nope'), 'read-only': flag(draw) }),
    () => ({ driver: 'raw', 'node-name': draw('r0', 'n2'), file: node(draw), offset: draw(0, 512, 2 ** 21) }),
    () => ({ driver: 'throttle', 'node-name': draw('n1', 'n2'), 'throttle-group': draw('tg', 'nope'), file: node(draw) }),
    () => ({ driver: 'copy-on-read', 'node-name': draw('n1', 'n2'), file: node(draw) }),
  )();
}

function bitmapAction(draw: Draw): { type: string; data: Value } {
  return draw<() => { type: string; data: Value }>(
    () => ({ type: 'block-dirty-bitmap-add', data: { node: node(draw), name: bitmap(draw), granularity: draw(512, 4096, 65_536, 3), disabled: flag(draw) } }),
    () => ({ type: 'block-dirty-bitmap-remove', data: { node: node(draw), name: bitmap(draw) } }),
    () => ({ type: 'block-dirty-bitmap-clear', data: { node: node(draw), name: bitmap(draw) } }),
    () => ({ type: 'block-dirty-bitmap-enable', data: { node: node(draw), name: bitmap(draw) } }),
    () => ({ type: 'block-dirty-bitmap-disable', data: { node: node(draw), name: bitmap(draw) } }),
    () => ({ type: 'block-dirty-bitmap-merge', data: { node: node(draw), target: bitmap(draw), bitmaps: [bitmap(draw), { node: node(draw), name: bitmap(draw) }] } }),
  )();
}

const GRAMMAR: readonly Command[] = [
  (draw) => ['blockdev-add', definition(draw)],
  (draw) => ['blockdev-add', definition(draw)],
  (draw) => ['blockdev-add', definition(draw)],
  (draw) => ['blockdev-del', { 'node-name': node(draw) }],
  (draw) => ['blockdev-reopen', { options: [definition(draw)] }],
  (draw) => {
    const { type, data } = bitmapAction(draw);
    return [type, data];
  },
  (draw) => {
    const { type, data } = bitmapAction(draw);
    return [type, data];
  },
  (draw) => ['transaction', { actions: [bitmapAction(draw), bitmapAction(draw), ...draw([], [{ type: 'abort', data: {} }])] }],
  (draw) => ['transaction', { actions: [bitmapAction(draw)], properties: { 'completion-mode': draw('individual', 'grouped') } }],
  (draw) => ['x-debug-block-dirty-bitmap-sha256', { node: node(draw), name: bitmap(draw) }],
  (draw) => ['block-export-add', { type: 'nbd', id: draw('e0', 'e1', '1e'), 'node-name': node(draw), name: draw('x', 'y'), writable: flag(draw), bitmaps: draw<string[]>([], ['b0'], ['nope']) }],
  (draw) => ['block-export-add', { type: 'nbd', id: draw('e0', 'e1'), 'node-name': node(draw), writethrough: flag(draw) }],
  (draw) => ['block-export-del', { id: draw('e0', 'e1', 'nope'), mode: draw('safe', 'hard') }],
  (draw) => ['nbd-server-add', { device: node(draw), name: draw('e0', 'e2'), writable: flag(draw) }],
  (draw) => ['nbd-server-remove', { name: draw('e0', 'e2'), mode: draw('safe', 'hard') }],
  (draw) => draw<readonly [string, Value]>(['nbd-server-start', { addr: { type: 'unix', data: { path: tmp('nbd') } } }], ['nbd-server-stop', {}]),
  (draw) => ['block_resize', { 'node-name': node(draw), size: draw(0, -1, 1_048_576, 1000, 65_536) }],
  (draw) => ['block-set-write-threshold', { 'node-name': node(draw), 'write-threshold': draw(0, 1, 2 ** 40) }],
  (draw) => ['blockdev-snapshot', { node: node(draw), overlay: node(draw) }],
  (draw) => ['blockdev-snapshot-internal-sync', { device: node(draw), name: draw('s0', 's1', '') }],
  (draw) => ['blockdev-snapshot-delete-internal-sync', { device: node(draw), name: draw('s0', 's1', 'nope') }],
  (draw) => ['change-backing-file', { device: node(draw), 'image-node-name': node(draw), 'backing-file': 'x' }],
  (draw) => ['object-add', draw<Value>({ 'qom-type': 'throttle-group', id: 'tg', limits: { 'iops-total': draw(0, 100) } }, { 'qom-type': 'iothread', id: 'io' }, { 'qom-type': 'secret', id: draw('s', '1s'), data: 'x' })],
  (draw) => ['object-del', { id: draw('tg', 'io', 's', 'nope') }],
  (draw) => ['qom-list', { path: draw('/', '/objects', 'tg', 'nope') }],
  (draw) => ['qom-get', { path: draw('tg', 'io'), property: draw('limits', 'poll-max-ns', 'type', 'nope') }],
  (draw) => ['x-blockdev-change', { parent: node(draw), ...draw<Record<string, Value>>({ node: 'n0' }, { child: 'file' }, {}) }],
  (draw) => ['x-blockdev-set-iothread', { 'node-name': node(draw), iothread: draw(null, 'io', 'nope') }],
  (draw) => [draw('job-cancel', 'job-pause', 'job-resume', 'job-complete', 'job-finalize', 'job-dismiss'), { id: draw('j0', 'nope') }],
  (draw) => ['query-named-block-nodes', { flat: flag(draw) }],
  () => ['query-block-exports', {}],
  () => ['x-debug-query-block-graph', {}],
  () => ['query-blockstats', { 'query-nodes': true }],
];

function script(seed: number): string[] {
  const draw = drawFrom(seed);
  return Array.from({ length: COMMANDS }, () => {
    const [execute, args] = draw(...GRAMMAR)(draw);
    return JSON.stringify({ execute, arguments: args });
  });
}

async function images(): Promise<void> {
  await rm(tmp('nbd'), { force: true });
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('a.qcow2'), '1M']);
  await runOk('qemu-img', ['create', '-q', '-f', 'raw', tmp('b.raw'), '1M']);
}

/** What a file system decides, or a clock, made equal. */
function even(message: string): string {
  return message
    .replace(/#block\d+/g, '#block')
    .replace(/"(actual-size|date-sec|date-nsec|vm-clock-sec|vm-clock-nsec|wr_highest_offset|thread-id|idle_time_ns)": \d+/g, '"$1": N');
}

peers('qemu-storage-daemon', 'qemu-img')('as qemu-storage-daemon', () => {
  test.each(SEEDS)('the script of seed %d', async (seed) => {
    const lines = script(seed);
    const transcript = { ...negotiated(...lines), untilReply: true };
    await images();
    const theirs = (await theirTranscript(transcript, tmp('monitor'))).map(even);
    await images();
    const ours = (await ourDaemonTranscript(transcript, tmp('monitor'))).map(even);
    const died = theirs.findIndex((message) => message === DIED);
    const compared = died < 0 ? theirs.length : died;
    expect(compared).toBeGreaterThan(10);
    const told = (messages: readonly string[]): string[] => messages.slice(0, compared);
    expect(told(ours)).toEqual(told(theirs));
  });
});
