/** What QEMU calls trees with filters in them, and what we call them. */
import { writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { BlockGraph, nodeFilename, openBlockdev, ThrottleGroup } from '../../src/index.js';
import type { Tree } from '../support/io-commands.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

async function namesInQemu(tree: Tree): Promise<string[]> {
  const commands = [{ execute: 'qmp_capabilities' }, { execute: 'blockdev-add', arguments: tree },
    { execute: 'query-named-block-nodes', arguments: { flat: true } }, { execute: 'quit' }];
  const output = await runOk('qemu-storage-daemon', ['--object', 'throttle-group,id=group', '--chardev', 'stdio,id=c', '--monitor', 'c'], { input: commands.map((command) => JSON.stringify(command)).join('\n') });
  const replies = output.trim().split('\n').map((line) => JSON.parse(line) as { readonly return?: unknown });
  const nodes = replies.map((reply) => reply.return).find((value) => Array.isArray(value)) as readonly { readonly drv: string; readonly file: string }[];
  return nodes.map(({ drv, file }) => `${drv}: ${file}`);
}

async function namesInOurs(tree: Tree): Promise<string[]> {
  const graph = new BlockGraph();
  const group = new ThrottleGroup('group');
  await openBlockdev(graph, tree, { throttleGroup: () => group });
  const names = graph.nodes().map((node) => `${node.driver.formatName}: ${nodeFilename(node)}`).toReversed();
  await graph.remove('top');
  return names;
}

peers('qemu-storage-daemon')('names of nodes against qemu-storage-daemon', () => {
  test('filters', async () => {
    for (const name of ['a', 'b']) writeFileSync(tmp(name), Buffer.alloc(65536));
    writeFileSync(tmp('config'), '[set-state]\nevent = "none"\nnew_state = "2"\n');
    const a: Tree = { driver: 'file', filename: tmp('a') };
    const raw: Tree = { driver: 'raw', file: { driver: 'file', filename: tmp('b') } };
    const trees: readonly Tree[] = [
      { driver: 'throttle', 'throttle-group': 'group', file: a },
      { driver: 'raw', file: { driver: 'throttle', 'throttle-group': 'group', file: raw } },
      { driver: 'copy-on-read', file: raw },
      { driver: 'preallocate', 'prealloc-size': 4096, file: raw },
      { driver: 'quorum', children: [a, raw], 'vote-threshold': 1, 'read-pattern': 'fifo' },
      { driver: 'quorum', children: [raw, a], 'vote-threshold': 2, blkverify: false, 'rewrite-corrupted': true },
      { driver: 'blkverify', raw: a, test: raw },
      { driver: 'blkverify', raw: { driver: 'null-co', size: 65536, 'read-zeroes': true }, test: raw },
      { driver: 'blkdebug', config: tmp('config'), image: a },
      { driver: 'blkdebug', image: a },
      { driver: 'raw', file: { driver: 'blkdebug', config: tmp('config'), image: a } },
      { driver: 'blkdebug', image: a, align: 512, 'max-transfer': 4096, 'take-child-perms': ['write'] },
      { driver: 'blkdebug', image: raw, 'inject-error': [{ event: 'pwritev', errno: 5, once: true }], 'set-state': [{ event: 'pwritev', new_state: 3 }] },
    ];
    for (const tree of trees) {
      const named = { 'node-name': 'top', ...tree };
      expect(await namesInOurs(named)).toEqual(await namesInQemu(named));
    }
  });
});
