import type { BlockNode } from './node.js';

/**
 * For jobs: bulk data that is written to the node from now on goes to its disk early, so that it need not wait for that at the
 * end. Returns what ends it.
 */
export function writeOutEarly(node: BlockNode): () => void {
  let holder = node;
  while (holder.driver.writeOut === undefined) {
    const below = holder.children.find(({ role }) => role !== 'backing');
    if (below === undefined) return () => undefined;
    holder = below.node;
  }
  const { writeOut } = holder.driver;
  writeOut.begin();
  return () => writeOut.end();
}
