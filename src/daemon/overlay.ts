/** External snapshots: a new image on top of a node, in its place for all of its users, with I/O going on. */
import { BlockError } from '../base/errors.js';
import { BlockChild } from '../block/child.js';
import { refuseBlocked, type BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { refuseCycle, type NodeUser } from '../block/permissions.js';
import { setReadOnly } from '../image/read-only.js';

export function refuseOverlayOn(node: BlockNode): void {
  refuseBlocked(node);
  const above = [...node.parents].find((user) => user instanceof BlockChild && user.role === 'backing');
  if (above instanceof BlockChild) {
    throw new BlockError('BUSY', `Node '${node.nodeName}' is busy: node is used as backing hd of '${above.parent?.nodeName ?? ''}'`);
  }
}

export function refuseAsOverlay(overlay: BlockNode): void {
  const refuse = (why: string): never => { throw new BlockError('INVALID_ARGUMENT', why); };
  if ([...overlay.parents].some((user) => !(user instanceof BlockChild))) refuse('The overlay is already in use');
  if (overlay.backing !== null) refuse('The overlay already has a backing image');
  if (overlay.driver.setBacking === undefined) refuse('The overlay does not support backing images');
}

export interface Overlaid {
  /** Puts the old node in its place again. */
  undo(): Promise<void>;
  /** Nothing writes to the old node any more: it becomes read-only, where its driver can. */
  settle(): Promise<void>;
}

/** Makes `overlay` what all users of `node` use, with `node` as its backing node. On drained nodes, or it drains `node`. */
export async function putOverlay(graph: BlockGraph, overlay: BlockNode, node: BlockNode): Promise<Overlaid> {
  const users = [...node.parents].filter((user) => user.staysAtNode !== true);
  refuseCycle(overlay, node, 'backing');
  const edge = { child: null as BlockChild | null };
  // Until it is settled nothing may be written to the overlay: an undo would lose it
  const letGo = holdDrained(overlay);
  await node.drained(() => graph.change([overlay, node], {
    links: new Map(users.map((user): [NodeUser, BlockNode] => [user, overlay])),
    edit: () => {
      edge.child = new BlockChild('backing', 'backing', node);
      edge.child.parent = overlay;
      overlay.driver.setBacking!(edge.child);
      return () => takeOff(overlay, edge.child!);
    },
  })).catch((error: unknown) => {
    letGo();
    throw error;
  });
  return {
    undo: () => overlay.drained(() => graph.change([overlay, node], {
      links: new Map(users.map((user): [NodeUser, BlockNode] => [user, node])),
      edit: () => {
        takeOff(overlay, edge.child!);
        return () => {
          edge.child!.node.parents.add(edge.child!);
          overlay.driver.setBacking!(edge.child);
        };
      },
    })).finally(letGo),
    settle: () => {
      letGo();
      return setReadOnly(graph, node, true);
    },
  };
}

/** Requests wait from now on, until the function returned is called. */
function holdDrained(node: BlockNode): () => void {
  let letGo: () => void = () => {};
  const gate = new Promise<void>((resolve) => { letGo = resolve; });
  void node.drained(() => gate);
  return letGo;
}

function takeOff(overlay: BlockNode, child: BlockChild): void {
  child.node.parents.delete(child);
  overlay.driver.setBacking!(null);
}
