/**
 * QEMU's permission model: whoever holds a node says what it does with it (`used`) and what others may do meanwhile
 * (`shared`). A parent node's needs of its children follow from what its own users ask of it and from the edge's role.
 */
import { BlockError } from '../base/errors.js';
import type { BlockChild } from './child.js';
import type { BlockNode } from './node.js';

/** Bits of a permission mask, numbered as QEMU numbers the bytes of its image locks. */
export const Permission = {
  CONSISTENT_READ: 1,
  WRITE: 2,
  /** Writes that change no content that anybody sees: copy-on-read. */
  WRITE_UNCHANGED: 4,
  RESIZE: 8,
  ALL: 15,
} as const;

const NAMES: readonly (readonly [number, string])[] = [
  [Permission.CONSISTENT_READ, 'consistent read'], [Permission.WRITE, 'write'], [Permission.WRITE_UNCHANGED, 'write unchanged'], [Permission.RESIZE, 'resize'],
];

export function permissionNames(mask: number): string {
  return NAMES.filter(([bit]) => (mask & bit) !== 0).map(([, name]) => name).join(', ');
}

export interface EdgeUse {
  readonly used: number;
  readonly shared: number;
}

export const NO_USE: EdgeUse = { used: 0, shared: Permission.ALL };

/** Why the parent has the child, as QEMU's BdrvChildRole: its data and metadata, what it filters, what it overlays. */
export type ChildRole = 'file' | 'backing' | 'filtered' | 'data';

/** Who holds a node: the edge of a node above, or a user's door. */
export interface NodeUser {
  /** QEMU's name of the edge; `root` for a door. */
  readonly edge: string;
  use: EdgeUse;
  /** "node 'x'", as refusals name it. */
  describe(): string;
  /** It follows this node, whatever others put in the node's place. */
  readonly staysAtNode?: boolean;
  /** Puts another node below. Only while no request is in flight through this edge. */
  replace(node: BlockNode): void;
}

const WRITE_OR_RESIZE = Permission.WRITE | Permission.RESIZE;

/** What an edge of `role` needs where the users of the node above do `parent`; `writable`: the node above may write. */
export function edgeUse(role: ChildRole, parent: EdgeUse, writable: boolean): EdgeUse {
  const { used, shared } = parent;
  switch (role) {
    case 'filtered':
      return { used, shared };
    case 'backing':
      return {
        used: used & Permission.CONSISTENT_READ,
        shared: Permission.CONSISTENT_READ | Permission.WRITE_UNCHANGED | ((shared & Permission.WRITE) === 0 ? 0 : WRITE_OR_RESIZE),
      };
    case 'file': // formats write metadata whether or not a guest writes, and cannot bear another writer
      return { used: used | Permission.CONSISTENT_READ | (writable ? WRITE_OR_RESIZE : 0), shared: shared & ~WRITE_OR_RESIZE };
    case 'data':
      return { used: used | ((used & Permission.WRITE) === 0 ? 0 : Permission.RESIZE), shared: shared & ~Permission.RESIZE };
  }
}

/** What one round of changes makes of edges and nodes, before any of it is done. */
interface PermissionPlan {
  readonly uses: ReadonlyMap<NodeUser, EdgeUse>;
  /** The nodes that were looked at, parents before children, with what their users do together. */
  readonly nodes: ReadonlyMap<BlockNode, EdgeUse>;
}

export interface PermissionChange {
  /** Uses that are asked for, instead of those in force. */
  readonly uses?: ReadonlyMap<NodeUser, EdgeUse> | undefined;
  /** Nodes that will be read-only or writable, instead of what they are. */
  readonly readOnly?: ReadonlyMap<BlockNode, boolean> | undefined;
}

/** Works out the uses of every edge below `roots`; throws with QEMU's sentence where two users conflict, or a node would lie below itself. */
export function planPermissions(roots: Iterable<BlockNode>, change: PermissionChange = {}): PermissionPlan {
  const uses = new Map(change.uses);
  const nodes = new Map<BlockNode, EdgeUse>();
  const useOf = (user: NodeUser): EdgeUse => uses.get(user) ?? user.use;
  for (const node of parentsFirst(roots)) {
    refuseConflicts(node, useOf);
    const together = togetherOf(node, useOf);
    const readOnly = change.readOnly?.get(node) ?? node.readOnly;
    refuseWritesTo(node, together, readOnly);
    nodes.set(node, together);
    for (const child of node.children) {
      const wanted = node.driver.childUse?.(child, together, !readOnly) ?? edgeUse(child.role, together, !readOnly);
      uses.set(child, child.node.forceShare ? { used: wanted.used, shared: Permission.ALL } : wanted);
    }
  }
  return { uses, nodes };
}

function parentsFirst(roots: Iterable<BlockNode>): BlockNode[] {
  const seen = new Set<BlockNode>();
  const above = new Set<BlockNode>();
  const order: BlockNode[] = [];
  const visit = (node: BlockNode): void => {
    if (seen.has(node)) return;
    seen.add(node);
    above.add(node);
    for (const child of node.children) {
      if (above.has(child.node)) throw cycle(node, child);
      visit(child.node);
    }
    above.delete(node);
    order.push(node);
  };
  for (const root of roots) visit(root);
  return order.reverse();
}

function cycle(parent: BlockNode, { node, edge }: Pick<BlockChild, 'node' | 'edge'>): BlockError {
  return new BlockError('INVALID_ARGUMENT', `Making '${node.nodeName}' a ${edge} child of '${parent.nodeName}' would create a cycle`, { node: parent.name });
}

/** Throws where `node` cannot become a child of `parent`, since it lies above it already, or is it. */
export function refuseCycle(parent: BlockNode, node: BlockNode, edge: string, below: Below = nodesBelow): void {
  if (reaches(node, parent, below)) throw cycle(parent, { node, edge });
}

type Below = (node: BlockNode) => readonly BlockNode[];

function nodesBelow(node: BlockNode): readonly BlockNode[] {
  return node.children.map((child) => child.node);
}

/** True where `wanted` lies below `from`, or is it. */
export function reaches(from: BlockNode, wanted: BlockNode, below: Below = nodesBelow, seen = new Set<BlockNode>()): boolean {
  if (seen.has(from)) return false;
  seen.add(from);
  return from === wanted || below(from).some((node) => reaches(node, wanted, below, seen));
}

function togetherOf(node: BlockNode, useOf: (user: NodeUser) => EdgeUse): EdgeUse {
  let used = 0;
  let shared: number = Permission.ALL;
  for (const parent of node.parents) {
    const use = useOf(parent);
    used |= use.used;
    shared &= use.shared;
  }
  return { used, shared };
}

/** Each user must grant what every other one does; of several conflicts QEMU names that of the newest user. */
function refuseConflicts(node: BlockNode, useOf: (user: NodeUser) => EdgeUse): void {
  if (node.parents.size < 2) return;
  const newestFirst = [...node.parents].reverse();
  for (const a of newestFirst) {
    const { shared } = useOf(a);
    if (shared === Permission.ALL) continue;
    for (const b of newestFirst) {
      const refused = a === b ? 0 : useOf(b).used & ~shared;
      if (refused !== 0) throw conflict(node, refused, a, b);
    }
  }
}

function conflict(node: BlockNode, refused: number, unsharing: NodeUser, requiring: NodeUser): BlockError {
  const name = node.nodeName;
  return new BlockError('BUSY',
    `Permission conflict on node '${name}': permissions '${permissionNames(refused)}' are both required by ${requiring.describe()} ` +
    `(uses node '${name}' as '${requiring.edge}' child) and unshared by ${unsharing.describe()} (uses node '${name}' as '${unsharing.edge}' child).`,
    { node: node.name });
}

function refuseWritesTo(node: BlockNode, { used }: EdgeUse, readOnly: boolean): void {
  if (readOnly && (used & (Permission.WRITE | Permission.WRITE_UNCHANGED)) !== 0) {
    throw new BlockError('READ_ONLY',
      node.readOnly ? 'Block node is read-only' : `Read-only block node '${node.nodeName}' cannot support read-write users`, { node: node.name });
  }
  if ((used & Permission.WRITE) !== 0 && (used & Permission.RESIZE) === 0 && node.length() % node.limits.requestAlignment !== 0) {
    throw new BlockError('INVALID_ARGUMENT',
      "Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment", { node: node.name });
  }
}
