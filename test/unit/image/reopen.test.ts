/** blockdev-reopen: what changes, what cannot, and that a refused change leaves everything as it was. */
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { BlockGraph } from '../../../src/block/graph.js';
import { Permission } from '../../../src/block/permissions.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { nodeFilename } from '../../../src/image/filename.js';
import { createImage, openImage } from '../../../src/image/open.js';
import type { OptionTree } from '../../../src/image/options.js';
import { reopenBlockdevs } from '../../../src/image/reopen.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const MiB = 2 ** 20;

async function withNull(): Promise<{ graph: BlockGraph; add: (options: OptionTree) => ReturnType<typeof openBlockdev>; reopen: (...list: OptionTree[]) => Promise<string> }> {
  const graph = new BlockGraph();
  const add = (options: OptionTree): ReturnType<typeof openBlockdev> => openBlockdev(graph, options);
  const reopen = (...list: OptionTree[]): Promise<string> => reopenBlockdevs(graph, list).then(() => 'done', (error: unknown) => (error as Error).message);
  await add({ driver: 'null-co', 'node-name': 'n0', 'read-zeroes': true });
  return { graph, add, reopen };
}

describe('sentences of qemu-storage-daemon 7.2', () => {
  test.each([
    [{ driver: 'null-co' }, 'node-name not specified'],
    [{ driver: 'null-co', 'node-name': 'zz' }, "Failed to find node with node-name='zz'"],
    [{ driver: 'null-co', 'node-name': 'n0' }, "Option 'read-zeroes' cannot be reset to its default value"],
    [{ driver: 'null-co', 'node-name': 'n0', 'read-zeroes': false }, "Cannot change the option 'read-zeroes'"],
    [{ driver: 'null-co', 'node-name': 'n0', 'read-zeroes': true, size: 5 }, "Cannot change the option 'size'"],
    [{ driver: 'null-aio', 'node-name': 'n0', 'read-zeroes': true }, "Cannot change the option 'driver'"],
    [{ driver: 'null-co', 'node-name': 'n0', 'read-zeroes': true, 'read-only': true }, 'done'],
    [{ driver: 'copy-on-read', 'node-name': 'c0', file: 'n0' }, "Block format 'copy-on-read' used by node 'c0' does not support reopening files"],
    [{ driver: 'preallocate', 'node-name': 'p0', file: 'n0', 'prealloc-size': 65536 }, 'done'],
    [{ driver: 'preallocate', 'node-name': 'p0', file: 'zz' }, "Cannot find device='' nor node-name='zz'"],
    [{ driver: 'preallocate', 'node-name': 'p0', file: 'p0' }, "Making 'p0' a file child of 'p0' would create a cycle"],
    [{ driver: 'preallocate', 'node-name': 'p0', file: { driver: 'null-co' } }, "Cannot change the option 'file.driver'"],
    [{ driver: 'blkdebug', 'node-name': 'd0', image: 'n0', align: 512 }, "Cannot change the option 'align'"],
    [{ driver: 'blkdebug', 'node-name': 'd0', image: 'n0' }, 'done'],
  ] as [OptionTree, string][])('%j: %s', async (options, outcome) => {
    const { graph, add, reopen } = await withNull();
    if (options['node-name'] === 'c0') await add({ driver: 'copy-on-read', 'node-name': 'c0', file: 'n0' });
    await add({ driver: 'preallocate', 'node-name': 'p0', file: 'n0' });
    await add({ driver: 'blkdebug', 'node-name': 'd0', image: 'n0' });
    expect(await reopen(options)).toBe(outcome);
    await graph.closeAll();
  });
});

test('a raw window moves, with its file reopened read-only', async () => {
  const path = tmp('r.raw');
  writeFileSync(path, Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(512, 2), Buffer.alloc(512, 3)]));
  const { graph, add, reopen } = await withNull();
  await add({ driver: 'raw', 'node-name': 'r0', file: { driver: 'file', filename: path }, offset: 512 });
  const node = graph.get('r0');
  const first = async (): Promise<number> => {
    const buffer = Buffer.alloc(1);
    await node.read(0, buffer);
    return buffer[0]!;
  };
  expect(await first()).toBe(2);
  expect(await reopen({ driver: 'raw', 'node-name': 'r0', file: { driver: 'file', filename: path }, offset: 1024 })).toBe('done');
  expect([await first(), node.length()]).toEqual([3, 512]);
  expect(await reopen({ driver: 'raw', 'node-name': 'r0', file: { driver: 'file', filename: `${path}2` } })).toBe("Cannot change the option 'filename'");
  expect(await reopen({ driver: 'raw', 'node-name': 'r0', file: { driver: 'file', filename: path }, size: 1024_000 })).toMatch(/^The sum of offset/);
  expect([await first(), node.length()]).toEqual([3, 512]);
  expect(await reopen({ driver: 'raw', 'node-name': 'r0', file: { driver: 'file', filename: path }, 'read-only': true })).toBe('done');
  expect([await first(), node.readOnly, node.children[0]!.node.readOnly]).toEqual([1, true, true]);
  expect(await reopen({ driver: 'raw', 'node-name': 'r0', file: 'n0', 'read-only': true })).toBe('done');
  expect(nodeFilename(node)).toBe('json:{"driver": "raw", "file": {"read-zeroes": true, "driver": "null-co"}}');
  expect(graph.nodes().map(({ driver }) => driver.formatName)).toEqual(['null-co', 'raw']);
  await graph.closeAll();
});

test('a qcow2 image becomes read-only and writable again while it is written, and loses nothing', async () => {
  const [path, base] = [tmp('q.qcow2'), tmp('b.qcow2')];
  await createImage(base, { format: 'qcow2', size: 4 * MiB });
  await createImage(path, { format: 'qcow2', backingFile: 'b.qcow2', backingFormat: 'qcow2', lazyRefcounts: true });
  const { graph, add, reopen } = await withNull();
  const file = { driver: 'file', filename: path };
  await add({ driver: 'qcow2', 'node-name': 'q', file });
  const node = graph.get('q');
  const backing = node.backing!.nodeName;
  for (let round = 0; round < 4; round++) {
    await node.write(round * 65536, Buffer.alloc(65536, round + 1));
    expect(await reopen({ driver: 'qcow2', 'node-name': 'q', file, 'read-only': true, backing })).toBe('done');
    await expect(node.write(0, Buffer.alloc(512))).rejects.toMatchObject({ code: 'READ_ONLY' });
    // closed for writing: another process may read it as a clean image
    expect(readFileSync(path).readUInt32BE(76) % 2).toBe(0);
    expect(await reopen({ driver: 'qcow2', 'node-name': 'q', file, backing, 'l2-cache-size': 65536, 'lazy-refcounts': round % 2 === 0 })).toBe('done');
  }
  expect(await reopen({ driver: 'qcow2', 'node-name': 'q', file })).toBe("backing is missing for 'q'");
  const door = await graph.attach(node, { used: Permission.WRITE, shared: Permission.ALL });
  expect(await reopen({ driver: 'qcow2', 'node-name': 'q', file, backing, 'read-only': true })).toBe("Read-only block node 'q' cannot support read-write users");
  await node.write(4 * 65536, Buffer.alloc(65536, 5));
  await graph.detach(door);
  await graph.closeAll();
  await using again = await openImage(path);
  for (let round = 0; round < 5; round++) {
    const found = Buffer.alloc(65536);
    await again.read(round * 65536, found);
    expect(found.every((byte) => byte === round + 1)).toBe(true);
  }
  expect(await again.driver.check!({})).toMatchObject({ corruptions: 0, leaks: 0 });
});

test('a backing node comes, goes and is replaced', async () => {
  const path = tmp('q.qcow2');
  await createImage(path, { format: 'qcow2', size: 4 * MiB });
  writeFileSync(tmp('base.raw'), Buffer.alloc(4 * MiB, 9));
  const { graph, add, reopen } = await withNull();
  await add({ driver: 'raw', 'node-name': 'base', 'read-only': true, file: { driver: 'file', filename: tmp('base.raw') } });
  const file = { driver: 'file', filename: path };
  await add({ driver: 'qcow2', 'node-name': 'q', file });
  const node = graph.get('q');
  const first = async (): Promise<number> => {
    const buffer = Buffer.alloc(1);
    await node.read(65536, buffer);
    return buffer[0]!;
  };
  expect(await first()).toBe(0);
  expect(await reopen({ driver: 'qcow2', 'node-name': 'q', file, backing: 'base' })).toBe('done');
  expect(await first()).toBe(9);
  await expect(graph.remove('base')).rejects.toThrow("Node 'base' is busy: node is used as backing hd of 'q'");
  expect(await reopen({ driver: 'qcow2', 'node-name': 'q', file, backing: 'q' })).toBe("Making 'q' a backing child of 'q' would create a cycle");
  // refused as a whole: the first of the two stays as it is too
  expect(await reopen({ driver: 'qcow2', 'node-name': 'q', file, backing: null }, { driver: 'null-co', 'node-name': 'n0' })).toBe("Option 'read-zeroes' cannot be reset to its default value");
  expect(await first()).toBe(9);
  expect(await reopen({ driver: 'qcow2', 'node-name': 'q', file, backing: null })).toBe('done');
  expect(await first()).toBe(0);
  await graph.remove('base');
  await graph.closeAll();
});

test('a file is opened with and without O_DIRECT, and keeps its locks', async () => {
  const path = tmp('d.raw');
  writeFileSync(path, Buffer.alloc(8192, 1));
  const { graph, add, reopen } = await withNull();
  await add({ driver: 'file', 'node-name': 'f', filename: path });
  const door = await graph.attach(graph.get('f'), { used: Permission.WRITE, shared: Permission.CONSISTENT_READ });
  for (const direct of [true, false]) {
    const outcome = await reopen({ driver: 'file', 'node-name': 'f', filename: path, cache: { direct } });
    if (outcome !== 'done') expect(outcome).toMatch(/O_DIRECT/); // the file system decides
    await graph.get('f').write(100, Buffer.alloc(50, 2));
    await expect(openImage(path, { format: 'raw' })).rejects.toMatchObject({ code: 'LOCKED' });
  }
  await graph.detach(door);
  await graph.closeAll();
  expect(readFileSync(path).subarray(99, 151)).toEqual(Buffer.from([1, ...Array.from({ length: 50 }, () => 2), 1]));
});
