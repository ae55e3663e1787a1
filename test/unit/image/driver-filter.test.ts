import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { BlockGraph } from '../../../src/block/graph.js';
import type { BlockNode } from '../../../src/block/node.js';
import { ThrottleGroup } from '../../../src/block/throttle.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { createImage } from '../../../src/image/open.js';
import type { OptionTree } from '../../../src/image/options.js';

const NULL = { driver: 'null-co', size: 65536 };
const group = new ThrottleGroup('group');
let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'quiesce-filters-'));
  await writeFile(path.join(folder, 'config'), '[inject-error]\nevent = "pwritev"\nerrno = "28"\n');
  for (const name of ['a', 'b']) {
    await writeFile(path.join(folder, name), '');
    await truncate(path.join(folder, name), 65536);
  }
});

afterAll(() => rm(folder, { recursive: true }));

async function opened<T>(options: OptionTree, use: (node: BlockNode, graph: BlockGraph) => Promise<T>): Promise<T> {
  const graph = new BlockGraph();
  const node = await openBlockdev(graph, { 'node-name': 'top', ...options }, { throttleGroup: (name) => name === 'group' ? group : undefined });
  try {
    return await use(node, graph);
  } finally {
    await node.close().catch(() => undefined); // its last flush may be told to fail
  }
}

test.each<[string, OptionTree, string[]]>([
  ['throttle', { driver: 'throttle', 'throttle-group': 'group', file: NULL }, ['file']],
  ['copy-on-read', { driver: 'copy-on-read', file: NULL }, ['file']],
  ['preallocate', { driver: 'preallocate', file: NULL, 'prealloc-align': '2M', 'prealloc-size': 4096 }, ['file']],
  ['quorum', { driver: 'quorum', children: [NULL, NULL, NULL], 'vote-threshold': 2, 'rewrite-corrupted': true, 'read-pattern': 'quorum' }, ['children.0', 'children.1', 'children.2']],
  ['blkverify', { driver: 'blkverify', raw: NULL, test: NULL }, ['raw', 'test']],
  ['blkdebug', { driver: 'blkdebug', image: NULL, align: 512, 'inject-error': [{ event: 'pwritev', errno: 5, once: true }], 'set-state': [{ event: 'pwritev', new_state: 2 }], 'take-child-perms': ['write', 'resize'] }, ['image']],
])('%s opens with its options, over edges named as in QEMU', async (name, options, edges) => {
  await opened(options, async (node, graph) => {
    expect(node.driver.formatName).toBe(name);
    expect(node.children.map(({ edge }) => edge)).toEqual(edges);
    expect(graph.nodes()).toHaveLength(1 + edges.length);
    await node.read(0, new Uint8Array(512));
  });
});

test('a throttle node is a member of its group as long as it is open', async () => {
  await opened({ driver: 'throttle', 'throttle-group': 'group', file: NULL }, async () => { expect(group.memberCount).toBe(1); });
  expect(group.memberCount).toBe(0);
});

test('blkdebug reads its config file, named by option or in the name of the image', async () => {
  const [config, image] = [path.join(folder, 'config'), path.join(folder, 'a')];
  for (const options of [{ driver: 'blkdebug', config, image: { driver: 'file', filename: image } }, { driver: 'blkdebug', filename: `blkdebug:${config}:${image}` }]) {
    await opened(options, async (node) => {
      await expect(node.write(0, new Uint8Array(512))).rejects.toMatchObject({ errno: 'ENOSPC' });
    });
  }
});

test('blkverify takes both images from its name', async () => {
  await opened({ driver: 'blkverify', filename: `blkverify:${path.join(folder, 'a')}:${path.join(folder, 'b')}` }, async (node) => {
    await node.write(100, new Uint8Array(50).fill(1));
    await node.read(0, new Uint8Array(1000));
  });
  await createImage(path.join(folder, 'c.qcow2'), { format: 'qcow2', size: 65536 });
  await opened({ driver: 'blkverify', filename: `blkverify:${path.join(folder, 'b')}:${path.join(folder, 'c.qcow2')}` }, async (node) => {
    expect(node.children.map((child) => child.node.driver.formatName)).toEqual(['file', 'qcow2']);
    expect(node.length()).toBe(65536);
  });
});

test('names stand inside names', async () => {
  const name = `blkdebug:${path.join(folder, 'config')}:blkverify:${path.join(folder, 'a')}:${path.join(folder, 'b')}`;
  await opened({ driver: 'blkdebug', filename: name }, async (node) => {
    expect(node.children[0]!.node.driver.formatName).toBe('blkverify');
    await expect(node.write(0, new Uint8Array(512))).rejects.toMatchObject({ errno: 'ENOSPC' });
  });
});

describe('refused as by QEMU', () => {
  test.each<[OptionTree, string]>([
    [{ driver: 'throttle', file: NULL }, 'Please specify a throttle group'],
    [{ driver: 'throttle', file: NULL, 'throttle-group': 'x' }, "Throttle group 'x' does not exist"],
    [{ driver: 'copy-on-read', file: NULL, bottom: 'x' }, "Bottom node 'x' not found"],
    [{ driver: 'copy-on-read', file: NULL, 'read-only': true }, 'Block node is read-only'],
    [{ driver: 'preallocate', file: NULL, 'prealloc-align': 3 }, 'prealloc-align parameter of preallocate filter is not aligned to 512'],
    [{ driver: 'quorum', 'vote-threshold': 1 }, 'Number of provided children must be 1 or more'],
    [{ driver: 'quorum', children: [NULL], 'vote-threshold': 0 }, "Parameter 'vote-threshold' expects a value >= 1"],
    [{ driver: 'quorum', children: [NULL], 'vote-threshold': 2 }, 'threshold may not exceed children count'],
    [{ driver: 'quorum', children: [NULL], 'vote-threshold': 1, blkverify: true }, 'blkverify=on can only be set if there are exactly two files and vote-threshold is 2'],
    [{ driver: 'quorum', children: [NULL, NULL], 'vote-threshold': 2, blkverify: true, 'rewrite-corrupted': true }, 'rewrite-corrupted=on cannot be used with blkverify=on'],
    [{ driver: 'quorum', children: [NULL], 'vote-threshold': 1, 'read-pattern': 'x' }, 'Please set read-pattern as fifo or quorum'],
    [{ driver: 'quorum', children: [NULL, { driver: 'null-co', size: 512 }], 'vote-threshold': 1 }, 'Could not refresh total sector count: Input/output error'],
    [{ driver: 'blkdebug', filename: 'blkdebug:x' }, 'blkdebug requires both config file and image path'],
    [{ driver: 'blkdebug', image: NULL, config: '/nonexistent' }, 'Could not read blkdebug config file: No such file or directory'],
    [{ driver: 'blkdebug', image: NULL, 'inject-error': [{ event: 'x' }] }, 'invalid parameter value: x'],
    [{ driver: 'blkdebug', image: NULL, 'inject-error': [{ errno: 5 }] }, 'Missing event name for rule'],
    [{ driver: 'blkdebug', image: NULL, 'inject-error': [{ event: 'none', foo: 1 }] }, "[inject-error] section doesn't support the option 'foo'"],
    [{ driver: 'blkdebug', image: NULL, 'inject-error': { foo: 1 } }, "Unused option 'foo' for [inject-error]"],
    [{ driver: 'blkdebug', image: NULL, align: 3 }, 'Cannot meet constraints with align 3'],
    [{ driver: 'blkdebug', image: NULL, align: '4G' }, 'Cannot meet constraints with align 4294967296'],
    [{ driver: 'blkdebug', image: NULL, align: 512, 'max-transfer': 3 }, 'Cannot meet constraints with max-transfer 3'],
    [{ driver: 'blkdebug', image: NULL, align: 512, 'opt-write-zero': 3 }, 'Cannot meet constraints with opt-write-zero 3'],
    [{ driver: 'blkdebug', image: NULL, 'opt-write-zero': 1024, 'max-write-zero': 512 }, 'Cannot meet constraints with max-write-zero 512'],
    [{ driver: 'blkdebug', image: NULL, align: 512, 'opt-discard': 1 }, 'Cannot meet constraints with opt-discard 1'],
    [{ driver: 'blkdebug', image: NULL, align: 512, 'max-discard': 1 }, 'Cannot meet constraints with max-discard 1'],
    [{ driver: 'blkverify', filename: 'blkverify:x' }, 'blkverify requires raw copy and original image path'],
  ])('%j', async (options, text) => {
    const graph = new BlockGraph();
    await expect(openBlockdev(graph, { 'node-name': 'top', ...options })).rejects.toThrow(text);
    expect(graph.nodes()).toEqual([]);
  });
});
