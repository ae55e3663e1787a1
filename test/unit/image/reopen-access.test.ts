/** A file that is reopened together with the node above: whatever changes at once, the descriptor fits the users afterwards. */
import fs, { statSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import type { BlockBackend } from '../../../src/block/backend.js';
import type { BlockNode } from '../../../src/block/node.js';
import { Permission } from '../../../src/block/permissions.js';
import { makeRequest } from '../../../src/block/request.js';
import { BlockGraph } from '../../../src/block/graph.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { createImage } from '../../../src/image/open.js';
import type { OptionTree } from '../../../src/image/options.js';
import { reopenBlockdevs } from '../../../src/image/reopen.js';
import { FileDriver, type FileAccess } from '../../../src/protocol/file-driver.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const MiB = 2 ** 20;
const graphs: BlockGraph[] = [];

afterEach(async () => {
  for (const graph of graphs.splice(0)) await graph.closeAll().catch(() => {});
});

test.each([
  ['writable and past the page cache', { 'read-only': true }, {}, { 'read-only': false, cache: { direct: true } }, { cache: { direct: true } }],
  ['writable and past the page cache, with a file that follows', { 'read-only': true }, { 'read-only': false, 'auto-read-only': true },
    { 'read-only': false, cache: { direct: true } }, { 'read-only': false, 'auto-read-only': true, cache: { direct: true } }],
  ['writable, with a file that follows only now', { 'read-only': true }, { 'read-only': true, 'auto-read-only': false }, { 'read-only': false }, { 'read-only': false, 'auto-read-only': true }],
  ['writable, with a file that does not follow any more', { 'read-only': true }, { 'auto-read-only': true }, { 'read-only': false }, { 'read-only': false, 'auto-read-only': false }],
] as [string, OptionTree, OptionTree, OptionTree, OptionTree][])('%s', async (_what, top, file, nextTop, nextFile) => {
  const path = tmp('a.qcow2');
  await createImage(path, { format: 'qcow2', size: 4 * MiB });
  const graph = new BlockGraph();
  graphs.push(graph);
  const node = await openBlockdev(graph, { driver: 'qcow2', 'node-name': 'q', ...top, file: { driver: 'file', filename: path, ...file } });
  await reopenBlockdevs(graph, [{ driver: 'qcow2', 'node-name': 'q', ...nextTop, file: { driver: 'file', filename: path, ...nextFile } }]);
  await node.write(0, Buffer.alloc(65536, 7));
  await node.flush();
  const found = Buffer.alloc(65536);
  await node.read(0, found);
  expect(found.equals(Buffer.alloc(65536, 7))).toBe(true);
  expect(node.children[0]!.node.direct).toBe(nextTop['cache'] !== undefined);
});

test('room made ahead of growing writes is given back when the file becomes read-only', async () => {
  const path = tmp('g.qcow2');
  await createImage(path, { format: 'qcow2', size: 64 * MiB });
  const graph = new BlockGraph();
  graphs.push(graph);
  const direct = { driver: 'qcow2', 'node-name': 'q', cache: { direct: true }, file: { driver: 'file', filename: path, cache: { direct: true } } };
  const node = await openBlockdev(graph, direct);
  for (let at = 0; at < 12; at++) await node.write(at * MiB, Buffer.alloc(MiB, 7));
  await reopenBlockdevs(graph, [{ ...direct, 'read-only': true }]);
  expect(statSync(path).size).toBeLessThan(13 * MiB);
  await graph.closeAll();
  expect(statSync(path).size).toBeLessThan(13 * MiB);
});

describe('a user that attaches while a reopen is prepared', () => {
  const all = { used: Permission.CONSISTENT_READ | Permission.WRITE, shared: Permission.ALL };

  /** Whether the reopen went through, with a writer that attached once the file was ready for it. */
  async function reopenBeside(next: OptionTree): Promise<{ node: BlockNode; door: BlockBackend; outcome: string }> {
    const path = tmp('beside.raw');
    writeFileSync(path, Buffer.alloc(MiB));
    const graph = new BlockGraph();
    graphs.push(graph);
    const file = { driver: 'file', 'node-name': 'f', filename: path, 'auto-read-only': true };
    const node = await openBlockdev(graph, file);
    const { driver } = node;
    if (!(driver instanceof FileDriver)) throw new Error('no file');
    const prepare = driver.prepareAccess!.bind(driver);
    const doors: BlockBackend[] = [];
    Object.assign(driver, {
      prepareAccess: async (access: FileAccess) => {
        const ready = await prepare(access);
        doors.push(await graph.attach(node, all));
        return ready;
      },
    });
    const outcome = await reopenBlockdevs(graph, [{ ...file, ...next }]).then(() => 'done', (error: unknown) => (error as Error).message);
    return { node, door: doors[0]!, outcome };
  }

  test.each([
    ['read-only, which that refuses', { 'auto-read-only': false, 'read-only': true }, "Read-only block node 'f' cannot support read-write users"],
    ['the same', {}, 'done'],
    ['past the page cache', { cache: { direct: true } }, 'done'],
    ['writable', { 'auto-read-only': false }, 'done'],
  ] as [string, OptionTree, string][])('can write, where the file becomes %s', async (_what, next, expected) => {
    const { node, door, outcome } = await reopenBeside(next);
    if (outcome.includes('O_DIRECT')) return; // the file system decides
    expect(outcome).toBe(expected);
    await door.submit(makeRequest('write', 4096, 4096, Buffer.alloc(4096, 7)));
    await door.submit(makeRequest('write', 100, 50, Buffer.alloc(50, 8)));
    const found = Buffer.alloc(50);
    await node.read(100, found);
    expect(found.equals(Buffer.alloc(50, 8))).toBe(true);
    expect(node.direct).toBe(outcome === 'done' && next['cache'] !== undefined);
  });
});

test('a write that was lost is told before another descriptor takes over, and not forgotten', async () => {
  const path = tmp('lost.raw');
  writeFileSync(path, Buffer.alloc(MiB));
  const graph = new BlockGraph();
  graphs.push(graph);
  const file = { driver: 'file', 'node-name': 'f', filename: path };
  const node = await openBlockdev(graph, file);
  await node.write(0, Buffer.alloc(4096, 7));
  // the kernel tells it once, and only to a descriptor that was open when it happened
  const flush = jest.spyOn(fs, 'fdatasync').mockImplementationOnce((...args: unknown[]) => {
    setImmediate(args.at(-1) as (error: Error) => void, Object.assign(new Error('EIO'), { code: 'EIO' }));
  });
  try {
    const outcome = await reopenBlockdevs(graph, [{ ...file, 'read-only': true }]).then(() => 'done', (error: unknown) => (error as Error).message);
    expect(outcome).toBe('Error flushing drive: Input/output error');
    await expect(node.flush()).rejects.toMatchObject({ code: 'IO', errno: 'EIO' });
  } finally {
    flush.mockRestore();
  }
});
