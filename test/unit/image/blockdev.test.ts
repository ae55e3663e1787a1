/** Trees of nodes from BlockdevOptions: names, references, permissions, and the sentences of refusals. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { BlockGraph } from '../../../src/block/graph.js';
import { Permission } from '../../../src/block/permissions.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { createImage } from '../../../src/image/open.js';
import type { OptionTree } from '../../../src/image/options.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const MiB = 2 ** 20;

function graphWith(): { graph: BlockGraph; add: (options: OptionTree) => ReturnType<typeof openBlockdev>; names: () => string[] } {
  const graph = new BlockGraph({ randomBelow: () => 7 });
  return { graph, add: (options) => openBlockdev(graph, options), names: () => graph.nodes().map(({ nodeName }) => nodeName) };
}

async function refusal(promise: Promise<unknown>): Promise<string> {
  return promise.then(() => 'no refusal', (error: unknown) => (error as Error).message);
}

async function overlay(): Promise<{ base: string; top: string }> {
  const [base, top] = [tmp('base.qcow2'), tmp('top.qcow2')];
  await createImage(base, { format: 'qcow2', size: 4 * MiB });
  await createImage(top, { format: 'qcow2', backingFile: 'base.qcow2', backingFormat: 'qcow2' });
  return { base, top };
}

describe('names', () => {
  test('children are named by a counter and come before their parents, the chain last', async () => {
    const { top } = await overlay();
    const { graph, add, names } = graphWith();
    await add({ driver: 'qcow2', 'node-name': 'top', file: { driver: 'file', filename: top } });
    expect(names()).toEqual(['#block007', 'top', '#block107', '#block207']);
    expect(graph.find('#block207')!.readOnly).toBe(true);
    await graph.remove('top');
    expect(names()).toEqual([]);
  });

  test.each([
    [{ driver: 'null-co' }, "'node-name' must be specified for the root node"],
    [{ driver: 'null-co', 'node-name': '#n' }, "Invalid node-name: '#n'"],
    [{ driver: 'null-co', 'node-name': '0n' }, "Invalid node-name: '0n'"],
    [{ driver: 'null-co', 'node-name': 'a'.repeat(32) }, 'Node name too long'],
    [{ driver: 'null-co', 'node-name': 'n0' }, "Duplicate nodes with node-name='n0'"],
    [{ driver: 'raw', 'node-name': 'r', file: 'none' }, "Cannot find device='none' nor node-name='none'"],
    [{ driver: 'raw', 'node-name': 'r' }, 'A block device must be specified for "file"'],
    [{ driver: 'raw', 'node-name': 'r', file: 'n0', size: 1000 }, 'Specified size is not multiple of 512'],
    [{ driver: 'null-co', 'node-name': 'r', 'latency-ns': -1 }, 'latency-ns is invalid'],
    [{ driver: 'null-co', 'node-name': 'r', odd: 1 }, "Block protocol 'null-co' doesn't support the option 'odd'"],
    [{ driver: 'null-co', 'node-name': 'r', 'force-share': true }, 'force-share=on can only be used with read-only images'],
    [{ driver: 'null-co', 'node-name': 'r', 'detect-zeroes': 'unmap' }, 'setting detect-zeroes to unmap is not allowed without setting discard operation to unmap'],
    [{ driver: 'null-co', 'node-name': 'r', 'read-only': 'maybe' }, "Parameter 'read-only' expects 'on' or 'off'"],
  ] as const)('%j is refused', async (options, message) => {
    const { add, names } = graphWith();
    await add({ driver: 'null-co', 'node-name': 'n0', size: 4096 });
    expect(await refusal(add(options))).toBe(message);
    expect(names()).toEqual(['n0']);
  });

  test('files of the wrong kind are refused', async () => {
    const { add } = graphWith();
    mkdirSync(tmp('folder'));
    writeFileSync(tmp('plain'), 'x');
    expect(await refusal(add({ driver: 'file', 'node-name': 'f', filename: tmp('none') }))).toBe(`Could not open '${tmp('none')}': No such file or directory`);
    expect(await refusal(add({ driver: 'file', 'node-name': 'f', filename: '/dev/null' }))).toBe("'file' driver requires '/dev/null' to be a regular file");
    expect(await refusal(add({ driver: 'host_device', 'node-name': 'f', filename: tmp('plain') })))
      .toBe(`'host_device' driver requires '${tmp('plain')}' to be either a character or block device`);
  });
});

describe('permissions', () => {
  test('two formats cannot write one file, and the newer one is refused', async () => {
    const { base } = await overlay();
    const { graph, add } = graphWith();
    await add({ driver: 'file', 'node-name': 'f', filename: base });
    await add({ driver: 'qcow2', 'node-name': 'q0', file: 'f' });
    expect(await refusal(add({ driver: 'qcow2', 'node-name': 'q1', file: 'f' }))).toBe(
      "Permission conflict on node 'f': permissions 'write, resize' are both required by node 'q0' (uses node 'f' as 'file' child) " +
      "and unshared by node 'q1' (uses node 'f' as 'file' child).");
    await add({ driver: 'raw', 'node-name': 'r', file: 'f' });
    expect(await refusal(graph.attach(graph.get('r'), { used: Permission.WRITE, shared: Permission.ALL }))).toBe(
      "Permission conflict on node 'f': permissions 'write' are both required by node 'r' (uses node 'f' as 'file' child) " +
      "and unshared by node 'q0' (uses node 'f' as 'file' child).");
    await graph.closeAll();
  });

  test('locks follow the users: unused nodes of one file stand side by side, used ones do not', async () => {
    const { base } = await overlay();
    const { graph, add } = graphWith();
    await add({ driver: 'file', 'node-name': 'f0', filename: base });
    await add({ driver: 'file', 'node-name': 'f1', filename: base });
    await add({ driver: 'qcow2', 'node-name': 'q0', file: 'f0' });
    expect(await refusal(add({ driver: 'qcow2', 'node-name': 'q1', file: 'f1' }))).toBe('Failed to get "write" lock');
    expect(await refusal(add({ driver: 'qcow2', 'node-name': 'q1', file: 'f1', 'read-only': true }))).toBe('Failed to get shared "write" lock');
    await graph.remove('q0');
    await add({ driver: 'qcow2', 'node-name': 'q1', file: 'f1' });
    await graph.closeAll();
  });

  test('a file opened for later writing is opened for writing by the first writer', async () => {
    const path = tmp('disk.raw');
    writeFileSync(path, Buffer.alloc(4096));
    const { graph, add } = graphWith();
    await add({ driver: 'raw', 'node-name': 'r', file: { driver: 'file', filename: path, 'auto-read-only': true } });
    const node = graph.get('r');
    await expect(node.write(0, Buffer.alloc(512, 1))).rejects.toThrow('EBADF');
    const door = await graph.attach(node, { used: Permission.WRITE, shared: Permission.ALL });
    await node.write(0, Buffer.alloc(512, 1));
    await graph.detach(door);
    await graph.closeAll();
  });
});

describe('removal', () => {
  test('only what the monitor owns and nobody uses', async () => {
    const { base } = await overlay();
    const { graph, add, names } = graphWith();
    await add({ driver: 'file', 'node-name': 'f', filename: base });
    await add({ driver: 'qcow2', 'node-name': 'q', file: 'f' });
    const door = await graph.attach(graph.get('q'), { used: Permission.WRITE, shared: Permission.ALL });
    expect(await refusal(graph.remove('zz'))).toBe("Failed to find node with node-name='zz'");
    expect(await refusal(graph.remove('f'))).toBe('Block device f is in use');
    expect(await refusal(graph.remove('q'))).toBe('Node q is in use');
    await graph.detach(door);
    await graph.remove('q');
    await graph.remove('f');
    expect(names()).toEqual([]);
  });
});
