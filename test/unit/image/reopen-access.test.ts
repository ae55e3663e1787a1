/** A file that is reopened together with the node above: whatever changes at once, the descriptor fits the users afterwards. */
import { statSync } from 'node:fs';
import { afterEach, expect, test } from '@jest/globals';
import { BlockGraph } from '../../../src/block/graph.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { createImage } from '../../../src/image/open.js';
import type { OptionTree } from '../../../src/image/options.js';
import { reopenBlockdevs } from '../../../src/image/reopen.js';
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
