/** Changes of the graph above a node, while its users go on: filters put in, and taken out again. */
import { BlockError } from '../base/errors.js';
import { BlockChild } from '../block/child.js';
import type { BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import type { NodeUser } from '../block/permissions.js';

/**
 * Everybody who holds `from` holds `to` afterwards, except what lies in `to` itself. Requests that come meanwhile wait,
 * and then go to `to`. All or nothing; QEMU's sentence where permissions forbid it.
 */
export async function replaceNode(graph: BlockGraph, from: BlockNode, to: BlockNode): Promise<void> {
  await from.drained(() => graph.change([from, to], { links: linksTo(from, to) }));
}

/** Puts `filter`, which lies on `node` already, between it and its users. */
export function insertFilter(graph: BlockGraph, node: BlockNode, filter: BlockNode): Promise<void> {
  if (filter.children[0]?.node !== node) throw new BlockError('INVALID_ARGUMENT', `'${filter.nodeName}' does not lie on '${node.nodeName}'`);
  return replaceNode(graph, node, filter);
}

/** Gives the users of `filter` the node below it. The filter stays until it is removed from the graph. */
export function bypassFilter(graph: BlockGraph, filter: BlockNode): Promise<void> {
  const below = filter.driver.kind === 'filter' ? filter.children[0]?.node : undefined;
  if (below === undefined) throw new BlockError('INVALID_ARGUMENT', `'${filter.nodeName}' is no filter`);
  return replaceNode(graph, filter, below);
}

/** As `bypassFilter`, and closes the filter. What it needed of the node below is given back. */
export async function removeFilter(graph: BlockGraph, filter: BlockNode): Promise<void> {
  const below = filter.children[0]!.node;
  await bypassFilter(graph, filter);
  filter.pinned = false;
  await filter.close();
  await graph.refresh([below]);
}

/** For GraphChange.edit: `below` becomes the backing node of `node`, which has none. */
export function backingEdit(node: BlockNode, below: BlockNode): () => () => void {
  return () => {
    const edge = new BlockChild('backing', 'backing', below);
    edge.parent = node;
    node.driver.setBacking!(edge);
    return () => {
      below.parents.delete(edge);
      node.driver.setBacking!(null);
    };
  };
}

/** The users of `from`, without the edges of the tree of `to`. */
export function linksTo(from: BlockNode, to: BlockNode): Map<NodeUser, BlockNode> {
  const own = new Set<NodeUser>();
  const collect = (node: BlockNode): void => {
    for (const child of node.children) {
      own.add(child);
      collect(child.node);
    }
  };
  collect(to);
  return new Map([...from.parents].filter((user) => !own.has(user) && user.staysAtNode !== true).map((user) => [user, to]));
}
