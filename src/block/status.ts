import type { BlockNode } from './node.js';
import type { BlockStatus } from './driver.js';

export interface ChainStatus extends BlockStatus {
  /** 0 = the node itself, 1 = its backing node, … */
  readonly depth: number;
  /** The node whose layer gave the answer; null where no layer has the range (it reads as zeros). */
  readonly node: BlockNode | null;
  /** The layer `depth` ends before the range, and hides by its end what is below it (QEMU takes that for allocated). */
  readonly pastEnd?: boolean;
}

/** What an unallocated range defers to: the backing node or, for a filter, the node that it filters. */
async function layerBelow(node: BlockNode): Promise<BlockNode | null> {
  const edge = node.driver.backing ?? node.children.find(({ role }) => role === 'filtered');
  return edge === undefined ? null : edge.settled();
}

/**
 * Status of a range through the backing chain: `unallocated` means that no layer has it, so it reads as zeros. With
 * `last` it means that no layer down to that one, inclusive, has it.
 */
export async function chainStatus(top: BlockNode, offset: number, bytes: number, last: BlockNode | null = null): Promise<ChainStatus> {
  let node: BlockNode | null = top;
  let span = bytes;
  for (let depth = 0; node !== null; depth++) {
    if (offset >= node.length()) return { kind: 'unallocated', bytes: span, depth, node: null, pastEnd: true };
    const inside = Math.min(span, node.length() - offset);
    const status: BlockStatus = await node.blockStatus(offset, inside);
    span = status.bytes;
    if (status.kind !== 'unallocated') return { ...status, depth, node };
    node = node === last ? null : await layerBelow(node);
    if (node === null) return { kind: 'unallocated', bytes: span, depth, node: null };
  }
  return { kind: 'unallocated', bytes: span, depth: 0, node: null };
}
