/** Gives a node another length, and its dirty bitmaps with it. */
import { BlockError } from '../base/errors.js';
import type { Preallocation } from './driver.js';
import type { BlockNode } from './node.js';

/** Throws, in QEMU's words, where it cannot have it. What was written beyond the new end is gone. */
export async function resizeNode(node: BlockNode, bytes: number, preallocation: Preallocation = 'off'): Promise<void> {
  await node.drained(async () => {
    const { driver } = node;
    if (driver.resize === undefined) throw new BlockError('NOT_SUPPORTED', 'Image format driver does not support resize', { node: node.name });
    node.bitmaps.checkResize();
    await driver.resize(bytes, preallocation);
    node.bitmaps.resize(node.length());
  });
}
