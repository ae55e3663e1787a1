/** The same QMP commands on dirty bitmaps sent to qemu-storage-daemon and to ours: replies are equal, and so are the images. */
import { expect, test } from '@jest/globals';
import { join } from 'node:path';
import { findOnPath, peers } from '../support/peers.js';
import { qemuBitmaps, qemuSha256 } from '../support/qemu-bitmaps.js';
import { repository, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const MiB = 2 ** 20;
type Command = readonly [name: string, args?: Readonly<Record<string, unknown>>];

const add = (args: Readonly<Record<string, unknown>>): Command => ['block-dirty-bitmap-add', { node: 'disk', ...args }];
const verb = (name: string, bitmap: string): Command => [`block-dirty-bitmap-${name}`, { node: 'disk', name: bitmap }];
const merge = (target: string, ...bitmaps: readonly unknown[]): Command => ['block-dirty-bitmap-merge', { node: 'disk', target, bitmaps }];
const together = (...actions: readonly Command[]): Command => ['transaction', { actions: actions.map(([type, data]) => ({ type, data })) }];

const VERBS: readonly Command[] = [
  add({ name: 'a' }), add({ name: 'p', persistent: true, granularity: 4096 }), add({ name: 'off', persistent: true, disabled: true }),
  add({ name: 'a' }), add({ name: 'a', persistent: true }), add({ name: '' }), add({ node: 'none', name: 'x' }),
  add({ name: 'x', granularity: 1000 }), add({ name: 'x', granularity: 2 ** 31 }), add({ name: 'y', granularity: 2 ** 32 }),
  add({ node: 'raw', name: 'x', persistent: true }), add({ node: 'v2', name: 'x', persistent: true }), add({ node: 'raw', name: 'x' }),
  add({ name: 'n'.repeat(1024) }), add({ name: 'n'.repeat(1024), persistent: true }),
  verb('clear', 'none'), ['block-dirty-bitmap-clear', { node: 'none', name: 'a' }], verb('disable', 'a'), verb('enable', 'off'),
  merge('a', 'p', 'off', { node: 'disk', name: 'p' }), merge('a', 'p', 'none'), merge('a', { node: 'none', name: 'p' }), merge('a', { node: 'raw', name: 'x' }), merge('none', 'p'),
  ['x-debug-block-dirty-bitmap-sha256', { node: 'disk', name: 'p' }], ['x-debug-block-dirty-bitmap-sha256', { node: 'disk', name: 'none' }],
  together(add({ name: 't1' }), verb('clear', 'p'), add({ name: 'a' })),
  together(add({ name: 't1', persistent: true }), merge('t1', 'p'), verb('remove', 'a')),
  together(verb('remove', 't1'), verb('disable', 'zz')),
  verb('remove', 'a'), verb('remove', 'none'),
  ['query-named-block-nodes', { flat: true }],
];

function exported(socket: string): readonly Command[] {
  return [
    ['nbd-server-start', { addr: { type: 'unix', data: { path: socket } } }],
    ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'disk', writable: true, bitmaps: ['p'] }],
    ...['remove', 'clear', 'enable', 'disable'].map((name) => verb(name, 'p')),
    merge('p', 'off'), merge('off', 'p'),
    ['block-export-add', { type: 'nbd', id: 'e2', name: 'q', 'node-name': 'disk', bitmaps: ['off'] }],
    ['block-export-add', { type: 'nbd', id: 'e3', name: 'r', 'node-name': 'disk', bitmaps: ['none'] }],
    ['query-named-block-nodes', { flat: true }],
    ['block-export-del', { id: 'e' }],
    ['block_resize', { 'node-name': 'disk', size: 128 * MiB }],
    ['query-named-block-nodes', { flat: true }],
  ];
}

/** Replies, with what is told of nodes cut down to their bitmaps. */
async function converse(binary: string, folder: string, commands: readonly Command[]): Promise<readonly unknown[]> {
  const nodes = [
    `file,node-name=f,filename=${folder}-disk.qcow2`, 'qcow2,node-name=disk,file=f', `file,node-name=raw,filename=${folder}-disk.raw`,
    `qcow2,node-name=v2,file.driver=file,file.filename=${folder}-v2.qcow2`,
  ];
  const lines = [['qmp_capabilities'], ...commands, ['quit']].map(([execute, args]) => JSON.stringify({ execute, ...(args === undefined ? {} : { arguments: args }) }));
  const stdout = await runOk(binary, [...nodes.flatMap((node) => ['--blockdev', node]), '--chardev', 'stdio,id=m', '--monitor', 'm'], { input: `${lines.join('\n')}\n` });
  const replies = stdout.trim().split('\n').filter((line) => /^\{"(?:return|error)"/.test(line));
  expect(replies).toHaveLength(lines.length);
  return replies.map((line) => {
    const reply = JSON.parse(line) as { readonly return?: unknown };
    if (!Array.isArray(reply.return)) return line;
    return (reply.return as readonly Readonly<Record<string, unknown>>[]).filter((node) => !String(node['node-name']).startsWith('#'))
      .map((node) => JSON.stringify([node['node-name'], node['dirty-bitmaps']]));
  });
}

async function makeImages(folder: string): Promise<void> {
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', `${folder}-disk.qcow2`, '64M']);
  await runOk('qemu-img', ['bitmap', '--add', `${folder}-disk.qcow2`, 'stored']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q 3M 5M', `${folder}-disk.qcow2`]);
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', `${folder}-v2.qcow2`, '64M']);
  await runOk('qemu-img', ['create', '-q', '-f', 'raw', `${folder}-disk.raw`, '1M']);
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('QMP on dirty bitmaps', () => {
  test('gives the replies of qemu-storage-daemon and leaves the same bitmaps', async () => {
    const [theirs, ours] = [tmp('theirs'), tmp('ours')];
    await Promise.all([theirs, ours].map(makeImages));
    const commands = (folder: string): readonly Command[] => [...VERBS, ...exported(`${folder}.sock`)];
    const [expected, actual] = await Promise.all([
      converse(findOnPath('qemu-storage-daemon')!, theirs, commands(theirs)), converse(join(repository, 'cli', 'quiesce-storage-daemon'), ours, commands(ours)),
    ]);
    for (const [index, reply] of actual.entries()) expect([commands('')[index - 1], reply]).toEqual([commands('')[index - 1], expected[index]]);
    const stored = await qemuBitmaps(`${theirs}-disk.qcow2`);
    expect(await qemuBitmaps(`${ours}-disk.qcow2`)).toEqual(stored);
    expect(stored.length).toBeGreaterThan(3);
    for (const { name } of stored) expect([name, await qemuSha256(`${ours}-disk.qcow2`, name)]).toEqual([name, await qemuSha256(`${theirs}-disk.qcow2`, name)]);
    expect(await runOk('qemu-img', ['check', `${ours}-disk.qcow2`])).toContain('No errors were found');
  });
});
