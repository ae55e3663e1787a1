/** Makes open nodes read-only and writable, as QEMU does for the while of a job. */
import type { BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { presentOptions, reopenFlat } from './reopen.js';

/** Runs `work` on a node that may be written, and leaves it as read-only as it was. */
export async function whileWritable(graph: BlockGraph, node: BlockNode, work: () => Promise<void>): Promise<void> {
  if (!node.readOnly) return work();
  await setReadOnly(graph, node, false);
  try {
    await work();
  } finally {
    await setReadOnly(graph, node, true);
  }
}

/** Children that were defined in place follow, but for backing nodes. Nothing happens where the node is so already. */
export async function setReadOnly(graph: BlockGraph, node: BlockNode, readOnly: boolean): Promise<void> {
  if (node.readOnly === readOnly || node.origin === null) return;
  const flat = presentOptions(node, true);
  flat.set('read-only', readOnly);
  await reopenFlat(graph, [flat]);
}
