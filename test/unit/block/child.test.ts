/** Edges: what is asked through one waits for the end of a drained section, and then asks the node that is below. */
import { expect, test } from '@jest/globals';
import { BlockNode } from '../../../src/block/node.js';
import type { BlockChild } from '../../../src/block/child.js';
import { chainStatus } from '../../../src/block/status.js';
import { RawDriver } from '../../../src/format/raw.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';

const BYTES = 65_536;
const soon = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function memory(name: string): BlockNode {
  return new BlockNode({ name, driver: new MemoryDriver({ bytes: BYTES, growable: false }), pinned: true });
}

test.each([
  ['through an edge', (child: BlockChild) => child.blockStatus(0, BYTES)],
  ['through a chain', (child: BlockChild) => chainStatus(child.parent!, 0, BYTES)],
])('block status %s waits at a drained node, and tells of the one that took its place', async (_name, ask) => {
  const [first, second] = [memory('first'), memory('second')];
  await first.write(0, Buffer.alloc(BYTES, 1));
  const top = new BlockNode({ name: 'top', driver: new RawDriver(first) });
  const child = top.children[0]!;
  let asked: Promise<unknown> = Promise.resolve();
  let answered = false;
  await first.drained(async () => {
    asked = ask(child).finally(() => { answered = true; });
    await soon();
    expect(answered).toBe(false);
    child.replace(second);
  });
  expect(await asked).toMatchObject({ kind: 'zero', bytes: BYTES });
  await top.close();
});
