/** A flush costs nothing where nothing has changed since the last one, and is never left out where something has. */
import fs, { writeFileSync } from 'node:fs';
import { afterEach, expect, jest, test } from '@jest/globals';
import { BlockGraph } from '../../../src/block/graph.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { createImage } from '../../../src/image/open.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const BYTES = 1024 * 1024;
afterEach(() => { jest.restoreAllMocks(); });

test.each(['raw', 'qcow2'] as const)('%s', async (format) => {
  if (format === 'raw') writeFileSync(tmp('disk'), Buffer.alloc(BYTES, 1));
  else await createImage(tmp('disk'), { format, size: BYTES });
  const graph = new BlockGraph();
  const node = await openBlockdev(graph, { 'node-name': 'top', driver: format, file: { driver: 'file', filename: tmp('disk') } });
  const syncs = jest.spyOn(fs, 'fdatasync');
  const flushes = async (): Promise<number> => {
    syncs.mockClear();
    await node.flush();
    return syncs.mock.calls.length;
  };
  await node.write(0, Buffer.alloc(4096, 2));
  expect(await flushes()).toBeGreaterThanOrEqual(1);
  expect([await flushes(), await flushes()]).toEqual([0, 0]);
  // qcow2 makes a new size last itself
  const resize = format === 'raw' ? [() => node.driver.resize!(2 * BYTES)] : [];
  for (const change of [() => node.write(0, Buffer.alloc(4096, 3)), () => node.writeZeroes(0, 65_536), ...resize]) {
    await change();
    expect(await flushes()).toBeGreaterThanOrEqual(1);
    expect(await flushes()).toBe(0);
  }
  // a write that ends while a flush is under way is not covered by it
  const [, flushed] = [node.write(4096, Buffer.alloc(4096, 4)), node.flush()];
  await flushed;
  await node.write(8192, Buffer.alloc(4096, 5));
  expect(await flushes()).toBeGreaterThanOrEqual(1);
  await graph.closeAll();
});

test('what failed is flushed again', async () => {
  writeFileSync(tmp('disk'), Buffer.alloc(BYTES, 1));
  const graph = new BlockGraph();
  const node = await openBlockdev(graph, {
    'node-name': 'top', driver: 'blkdebug', image: { driver: 'null-co', size: BYTES }, 'inject-error': [{ event: 'none', iotype: 'flush', once: true }],
  });
  await node.write(0, Buffer.alloc(4096, 2));
  await expect(node.flush()).rejects.toThrow('Input/output error');
  await node.flush();
  await graph.closeAll();
});
