/** Changes of the graph above a node, while its users go on: filters and overlays put in, and taken out again. */
import { BlockChild } from '../block/child.js';
import { BlockError } from '../base/errors.js';
import type { BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { Permission, type NodeUser } from '../block/permissions.js';
import { setReadOnly } from './reopen.js';

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

/** blockdev-snapshot: `overlay` takes the place of `node`, which lies below it from now on and is read-only. */
export async function putOverlay(graph: BlockGraph, node: BlockNode, overlay: BlockNode): Promise<void> {
  refuseOverlay(node, overlay);
  const edge = new BlockChild('backing', 'backing', node);
  node.parents.delete(edge);
  edge.parent = overlay;
  await overlay.drained(() => node.drained(() => graph.change([node, overlay], {
    links: linksTo(node, overlay),
    edit: () => {
      node.parents.add(edge);
      overlay.driver.setBacking!(edge);
      return () => {
        node.parents.delete(edge);
        overlay.driver.setBacking!(null);
      };
    },
  })));
  // As in QEMU, a node that cannot become read-only stays writable: nobody writes to it any more
  await setReadOnly(graph, node, true).catch(() => {});
}

function refuseOverlay(node: BlockNode, overlay: BlockNode): void {
  const refuse = (why: string): never => { throw new BlockError('INVALID_ARGUMENT', why, { node: overlay.name }); };
  for (const user of node.parents) {
    if (user instanceof BlockChild && user.role === 'backing') {
      throw new BlockError('BUSY', `Node '${node.nodeName}' is busy: node is used as backing hd of '${user.parent?.nodeName}'`, { node: node.name });
    }
  }
  if ([...overlay.parents].some(({ use }) => (use.used & Permission.CONSISTENT_READ) !== 0)) refuse('The overlay is already in use');
  if (overlay.driver.kind === 'filter') refuse('Filters cannot be used as overlays');
  if (overlay.backing !== null) refuse('The overlay already has a backing image');
  if (overlay.driver.setBacking === undefined) refuse('The overlay does not support backing images');
  if (isBelow(overlay, node)) refuse(`Making '${node.nodeName}' a backing child of '${overlay.nodeName}' would create a cycle`);
}

/** True where `node` lies in the tree of `top`, or is it. */
function isBelow(node: BlockNode, top: BlockNode): boolean {
  return node === top || top.children.some((child) => isBelow(node, child.node));
}

/** The users of `from`, without the edges of the tree of `to`. */
function linksTo(from: BlockNode, to: BlockNode): Map<NodeUser, BlockNode> {
  const own = new Set<NodeUser>();
  const collect = (node: BlockNode): void => {
    for (const child of node.children) {
      own.add(child);
      collect(child.node);
    }
  };
  collect(to);
  return new Map([...from.parents].filter((user) => !own.has(user)).map((user) => [user, to]));
}
