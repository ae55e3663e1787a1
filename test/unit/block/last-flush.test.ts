/** what nobody flushed is flushed when its node closes, and a failure of that is told. */
import fs, { writeFileSync } from 'node:fs';
import { afterEach, expect, jest, test } from '@jest/globals';
import { BlockGraph } from '../../../src/block/graph.js';
import { BlockNode } from '../../../src/block/node.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { createImage, openImage } from '../../../src/image/open.js';
import { openNbdDriver } from '../../../src/protocol/nbd.js';
import { useServed } from '../../support/nbd-served.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const serve = useServed();
const BYTES = 1024 * 1024;
afterEach(() => { jest.restoreAllMocks(); });

async function syncsAtClose(node: BlockNode): Promise<number> {
  const syncs = jest.spyOn(fs, 'fdatasync');
  syncs.mockClear();
  await node.close();
  const { length } = syncs.mock.calls;
  syncs.mockRestore();
  return length;
}

test.each(['raw', 'qcow2'] as const)('a %s file', async (format) => {
  if (format === 'raw') writeFileSync(tmp('disk'), Buffer.alloc(BYTES, 1));
  else await createImage(tmp('disk'), { format, size: BYTES });
  const open = (cache: 'writeback' | 'unsafe' = 'writeback'): Promise<BlockNode> => openImage(tmp('disk'), { format, cache });
  let node = await open();
  await node.write(0, Buffer.alloc(4096, 2));
  expect(await syncsAtClose(node)).toBeGreaterThanOrEqual(1);
  node = await open();
  expect(await syncsAtClose(node)).toBe(0);
  node = await open();
  await node.write(0, Buffer.alloc(4096, 3));
  await node.flush();
  expect(await syncsAtClose(node)).toBe(0);
  node = await open('unsafe');
  await node.write(0, Buffer.alloc(4096, 4));
  expect(await syncsAtClose(node)).toBe(0);
});

test('a format node that leaves while its file stays', async () => {
  writeFileSync(tmp('disk'), Buffer.alloc(BYTES, 1));
  const graph = new BlockGraph();
  await openBlockdev(graph, { driver: 'file', 'node-name': 'file', filename: tmp('disk') });
  const node = await openBlockdev(graph, { driver: 'raw', 'node-name': 'raw', file: 'file' });
  await node.write(0, Buffer.alloc(4096, 2));
  expect(await syncsAtClose(node)).toBe(1);
  await graph.closeAll();
});

test('an export, before the goodbye', async () => {
  const { disk } = await serve(tmp('s'));
  const node = new BlockNode({ name: 'export', driver: await openNbdDriver({ address: { type: 'unix', path: tmp('s') } }) });
  await node.write(0, Buffer.alloc(512, 1));
  await node.close();
  expect(disk.log.map((line) => line.split(' ')[0])).toEqual(['write', 'flush']);
});

test('a flush that fails is told, and the node is closed all the same', async () => {
  const graph = new BlockGraph();
  const node = await openBlockdev(graph, {
    'node-name': 'top', driver: 'blkdebug', image: { driver: 'null-co', size: BYTES }, 'inject-error': [{ event: 'none', iotype: 'flush', once: false }],
  });
  await node.write(0, Buffer.alloc(4096, 2));
  await expect(graph.remove('top')).rejects.toThrow('Input/output error');
  expect(graph.nodes()).toEqual([]);
});
