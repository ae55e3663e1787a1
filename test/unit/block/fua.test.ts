/** A write that must last costs one flush of the file, however many nodes it passes through, and never none. */
import fs, { writeFileSync } from 'node:fs';
import { afterEach, expect, jest, test } from '@jest/globals';
import { BufferPool } from '../../../src/base/buffer-pool.js';
import { RingUser } from '../../../src/base/uring.js';
import { BlockGraph } from '../../../src/block/graph.js';
import { makeRequest, RequestFlag } from '../../../src/block/request.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { createImage } from '../../../src/image/open.js';
import type { OptionTree } from '../../../src/image/options.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const BYTES = 1024 * 1024;
afterEach(() => { jest.restoreAllMocks(); });

const file = (): OptionTree => ({ driver: 'file', filename: tmp('disk') });
const raw = (below: OptionTree): OptionTree => ({ driver: 'raw', file: below });

test.each([
  ['the file itself', () => file(), 'raw'],
  ['a raw image', () => raw(file()), 'raw'],
  ['a window of it', () => ({ ...raw(file()), offset: 4096 }), 'raw'],
  ['filters', () => ({ driver: 'copy-on-read', file: { driver: 'blkdebug', image: { driver: 'preallocate', file: file() } } }), 'raw'],
  ['detection of zeroes', () => ({ ...raw(file()), 'detect-zeroes': 'on' }), 'raw'],
  ['a qcow2 image', () => ({ driver: 'qcow2', file: file() }), 'qcow2'],
] as [string, () => OptionTree, string][])('through %s', async (_what, options, format) => {
  if (format === 'raw') writeFileSync(tmp('disk'), Buffer.alloc(BYTES, 1));
  else await createImage(tmp('disk'), { format: 'qcow2', size: BYTES });
  const graph = new BlockGraph();
  const node = await openBlockdev(graph, { 'node-name': 'top', ...options() });
  await node.write(8192, Buffer.alloc(8192, 2));
  await node.flush();
  const flushes = jest.spyOn(fs, 'fdatasync');
  await node.submit(makeRequest('write', 8192, 8192, Buffer.alloc(8192, 3), RequestFlag.FUA));
  const atMost = options()['detect-zeroes'] === undefined ? 1 : 2;
  expect(flushes.mock.calls.length).toBeGreaterThanOrEqual(1);
  expect(flushes.mock.calls.length).toBeLessThanOrEqual(atMost);
  flushes.mockClear();
  await node.submit(makeRequest('write-zeroes', 8192, 4096, null, RequestFlag.FUA));
  expect(flushes.mock.calls.length).toBeGreaterThanOrEqual(1);
  await graph.closeAll();
});

test('where the flush of the file below fails, the write has failed', async () => {
  writeFileSync(tmp('disk'), Buffer.alloc(BYTES, 1));
  const graph = new BlockGraph();
  const node = await openBlockdev(graph, { 'node-name': 'top', ...raw(file()) });
  jest.spyOn(fs, 'fdatasync').mockImplementationOnce((...args: unknown[]) => {
    setImmediate(args.at(-1) as (error: Error) => void, Object.assign(new Error('EIO'), { code: 'EIO' }));
  });
  await expect(node.submit(makeRequest('write', 0, 4096, Buffer.alloc(4096, 3), RequestFlag.FUA))).rejects.toMatchObject({ errno: 'EIO' });
  // who wrote was told, and nobody was promised anything that the end could break
  await graph.closeAll();
});

test('where io_uring is to be had, a write that changes no table goes to the kernel with its sync, and one that does flushes the tables before', async () => {
  const probe = new RingUser();
  const { buffer } = await new BufferPool(8192).lease(8192);
  const works = await new Promise<boolean>((resolve) => { if (!probe.read(-1, buffer, 0, () => resolve(true))) resolve(false); });
  probe.close();
  await createImage(tmp('disk'), { format: 'qcow2', size: BYTES });
  const graph = new BlockGraph();
  const node = await openBlockdev(graph, { 'node-name': 'top', driver: 'qcow2', file: file() });
  const pairs = jest.spyOn(RingUser.prototype, 'writeAndSync');
  const [ringSyncs, poolSyncs] = [jest.spyOn(RingUser.prototype, 'sync'), jest.spyOn(fs, 'fdatasync')];
  const fua = async (at = 8192): Promise<void> => {
    for (const spy of [pairs, ringSyncs, poolSyncs]) spy.mockClear();
    await node.submit(makeRequest('write', at, 8192, buffer.fill(3), RequestFlag.FUA));
  };
  const syncs = (): number => ringSyncs.mock.results.filter(({ value }) => value === true).length + poolSyncs.mock.calls.length;
  await fua();
  expect(pairs).not.toHaveBeenCalled();
  expect(syncs()).toBeGreaterThanOrEqual(2); // what it refers to before the table that does
  await fua();
  expect([pairs.mock.calls.length, syncs()]).toEqual(works ? [1, 0] : [1, 1]);
  // its place is known now, and the table that says so is not on the disk yet
  await node.write(256 * 1024, buffer);
  await fua(256 * 1024);
  expect(pairs).not.toHaveBeenCalled();
  expect(syncs()).toBeGreaterThanOrEqual(2);
  await graph.closeAll();
});
