/** Copy on read beside another user who writes to the node below: what that user wrote stays. */
import { expect, test } from '@jest/globals';
import { BlockGraph } from '../../../src/block/graph.js';
import { BlockNode } from '../../../src/block/node.js';
import { Permission } from '../../../src/block/permissions.js';
import { makeRequest, type BlockRequest } from '../../../src/block/request.js';
import { openBlockdev } from '../../../src/image/blockdev.js';
import { createImage } from '../../../src/image/open.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();

/** Reads wait until the test lets them go. */
class Slow extends MemoryDriver {
  land: () => void = () => {};
  readonly #landing = new Promise<void>((resolve) => { this.land = resolve; });
  override async submit(request: BlockRequest): Promise<void> {
    if (request.op === 'read') await this.#landing;
    return super.submit(request);
  }
}
const sleep = (ms: number): Promise<unknown> => new Promise((resolve) => setTimeout(resolve, ms));

test.each([1, 0])('a copy (of bytes %i) does not undo what was written below the filter meanwhile', async (old) => {
  const graph = new BlockGraph();
  const slow = new Slow({ bytes: 1 << 20, growable: false });
  const base = new BlockNode({ name: 'base', nodeName: graph.takeName('base'), driver: slow, pinned: true });
  graph.add(base);
  await base.write(0, Buffer.alloc(65536, old));
  await createImage(tmp('q'), { format: 'qcow2', size: 1 << 20 });
  const q = await openBlockdev(graph, { driver: 'qcow2', 'node-name': 'q', file: { driver: 'file', filename: tmp('q') }, backing: 'base' });
  const c = await openBlockdev(graph, { driver: 'copy-on-read', 'node-name': 'c', file: 'q' });
  const reader = await graph.attach(c, { used: Permission.CONSISTENT_READ, shared: Permission.ALL });
  const writer = await graph.attach(q, { used: Permission.CONSISTENT_READ | Permission.WRITE, shared: Permission.ALL });
  const found = Buffer.alloc(4096);
  const reading = reader.submit(makeRequest('read', 0, 4096, found));
  await sleep(10);
  await writer.submit(makeRequest('write', 0, 65536, Buffer.alloc(65536, 2)));
  slow.land();
  await reading;
  await writer.submit(makeRequest('read', 0, 4096, found));
  expect([found[0], found[4095]]).toEqual([2, 2]);
  // and where nobody wrote, it does copy
  await reader.submit(makeRequest('read', 131072, 4096, found));
  expect(await q.blockStatus(131072, 65536)).toMatchObject({ kind: 'zero', bytes: 65536 });
  await graph.detach(reader);
  await graph.detach(writer);
  await graph.closeAll();
});
