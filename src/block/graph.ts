/**
 * The graph of one process: its nodes by name, who holds them, and the changes that must be all or nothing. A change of
 * uses is planned and checked as a whole, then prepared (locks, descriptors), then made in one synchronous step.
 */
import { BlockError } from '../base/errors.js';
import { Mutex } from '../base/mutex.js';
import type { TraceSink } from '../trace/sink.js';
import { BlockBackend } from './backend.js';
import { BlockChild } from './child.js';
import type { PreparedUse } from './driver.js';
import type { BlockNode } from './node.js';
import { NO_USE, planPermissions, type EdgeUse, type NodeUser, type PermissionChange } from './permissions.js';

const MAX_NAME_LENGTH = 31;

interface BlockGraphOptions {
  /** Two digits at the end of each generated name; by default a random number. */
  readonly randomBelow?: (limit: number) => number;
}

/** Edges that are to point elsewhere, with the uses and access modes that then hold. */
export interface GraphChange extends PermissionChange {
  readonly links?: ReadonlyMap<NodeUser, BlockNode> | undefined;
  /** More edits of edges, made after the links; returns what undoes them. Does not throw. */
  readonly edit?: (() => () => void) | undefined;
}

export class BlockGraph {
  /** In the order in which names were taken; null = not open yet. */
  readonly #nodes = new Map<string, BlockNode | null>();
  readonly #mutex = new Mutex();
  readonly #randomBelow: (limit: number) => number;
  #generated = 0;
  #trace: TraceSink | null = null;

  constructor(options: BlockGraphOptions = {}) {
    this.#randomBelow = options.randomBelow ?? ((limit) => process.getBuiltinModule('node:crypto').randomInt(limit));
  }

  /** Hears of all I/O of all nodes. */
  get trace(): TraceSink | null { return this.#trace; }

  /** Those that are there, and those that come. */
  traceTo(sink: TraceSink | null): void {
    this.#trace = sink;
    // files first: a format counts as what lies on its file
    for (const node of this.nodes().toSorted((a, b) => depthOf(a) - depthOf(b))) node.traceTo(sink);
  }

  /** All nodes, oldest first. */
  nodes(): readonly BlockNode[] { return [...this.#nodes.values()].filter((node) => node !== null); }

  find(nodeName: string): BlockNode | undefined { return this.#nodes.get(nodeName) ?? undefined; }

  /** For commands that take a node only. */
  get(nodeName: string): BlockNode {
    const node = this.find(nodeName);
    if (node === undefined) throw new BlockError('NOT_FOUND', `Failed to find node with node-name='${nodeName}'`);
    return node;
  }

  /** For commands that take a device or a node; this process has no devices. */
  lookUp(name: string): BlockNode {
    const node = this.find(name);
    if (node === undefined) throw new BlockError('NOT_FOUND', `Cannot find device='${name}' nor node-name='${name}'`);
    return node;
  }

  /** For commands that take a disk: a node that no other node uses, and no job. */
  root(name: string): BlockNode {
    const node = this.lookUp(name);
    if ([...node.parents].some((user) => !(user instanceof BlockBackend))) throw new BlockError('INVALID_ARGUMENT', 'Need a root block node');
    return node;
  }

  /**
   * A name for a node about to be opened, generated where none is wanted (`#blockNNN`). It is taken until `add` or
   * `dropName`.
   */
  takeName(wanted: string | undefined): string {
    const name = wanted ?? this.#generate();
    if (wanted !== undefined && !/^[A-Za-z][A-Za-z0-9._-]*$/.test(wanted)) {
      throw new BlockError('INVALID_ARGUMENT', `Invalid node-name: '${wanted}'`);
    }
    if (this.#nodes.has(name)) throw new BlockError('EXISTS', `Duplicate nodes with node-name='${name}'`);
    if (name.length > MAX_NAME_LENGTH) throw new BlockError('INVALID_ARGUMENT', 'Node name too long');
    this.#nodes.set(name, null);
    return name;
  }

  dropName(name: string): void {
    if (this.#nodes.get(name) === null) this.#nodes.delete(name);
  }

  /** Takes a node in, under the name that was taken for it. */
  add(node: BlockNode): void {
    this.#nodes.set(node.nodeName, node);
    if (this.#trace !== null && node.trace === null) node.traceTo(this.#trace);
    node.onClosed = () => this.#nodes.delete(node.nodeName);
  }

  /** A user's door. Throws QEMU's refusal where what it does conflicts with other users of the node. */
  async attach(node: BlockNode, { name = '', ...use }: EdgeUse & { readonly name?: string }): Promise<BlockBackend> {
    const door = new BlockBackend(name, node);
    await this.hold(node, door, use);
    return door;
  }

  /** Makes `user` one of the users of `node`, all or nothing. */
  async hold(node: BlockNode, user: NodeUser, use: EdgeUse): Promise<void> {
    node.parents.add(user);
    try {
      await this.change([node], { uses: new Map([[user, use]]) });
    } catch (error) {
      node.parents.delete(user);
      throw error;
    }
  }

  /** Ends what `attach` or `hold` began; the node closes where nobody else holds it. */
  async release(node: BlockNode, user: NodeUser): Promise<void> {
    user.use = NO_USE;
    node.parents.delete(user);
    if (node.parents.size === 0 && !node.pinned) await node.close();
    else await this.refresh([node]);
  }

  async detach(door: BlockBackend): Promise<void> {
    await this.release(door.node, door);
  }

  /** Changes what a user does with its node. */
  async setUse(user: NodeUser & { readonly node: BlockNode }, use: EdgeUse): Promise<void> {
    await this.change([user.node], { uses: new Map([[user, use]]) });
  }

  /** Works the uses out anew below `roots`, after users have gone: that needs no more than before, so it cannot fail. */
  async refresh(roots: readonly BlockNode[]): Promise<void> {
    await this.change(roots.filter((node) => !node.closing), {});
  }

  /**
   * Links, uses and access modes, all or nothing; QEMU's sentence where users conflict. Nodes whose edges move must be
   * drained by the caller. `commit` joins the synchronous step that makes the change.
   */
  change(roots: readonly BlockNode[], change: GraphChange, commit?: () => void): Promise<void> {
    return this.#mutex.runExclusive(() => this.#change(roots, change, commit));
  }

  async #change(roots: readonly BlockNode[], change: GraphChange, commit?: () => void): Promise<void> {
    const before = new Map<NodeUser, BlockNode>();
    let undoEdit = (): void => {};
    const undo = (): void => {
      undoEdit();
      for (const [user, node] of before) user.replace(node);
    };
    for (const [user, node] of change.links ?? []) before.set(user, holderNode(user, node));
    try {
      for (const [user, node] of change.links ?? []) user.replace(node);
      undoEdit = change.edit?.() ?? undoEdit;
      const plan = planPermissions([...roots, ...before.values()].filter((node) => !node.closing), change);
      const prepared = await prepareAll([...plan.nodes]);
      for (const ready of prepared) ready.commit();
      for (const [user, use] of plan.uses) user.use = use;
      for (const [node, readOnly] of change.readOnly ?? []) node.readOnly = readOnly;
      commit?.();
    } catch (error) {
      undo();
      throw error;
    }
  }

  /** blockdev-del: only what the monitor owns and nobody uses. */
  async remove(nodeName: string): Promise<void> {
    const node = this.get(nodeName);
    const parents = [...node.parents];
    if (parents.some((user) => user instanceof BlockBackend)) throw new BlockError('BUSY', `Node ${nodeName} is in use`);
    refuseBlocked(node);
    refuseAsBacking(node);
    if (!node.pinned) throw new BlockError('BUSY', `Node ${nodeName} is not owned by the monitor`);
    if (parents.length > 0) throw new BlockError('BUSY', `Block device ${nodeName} is in use`);
    const below = node.children.map((child) => child.node);
    node.pinned = false;
    try {
      await node.close();
    } finally {
      // a close that failed has closed it nevertheless: those below are used by one less
      await this.refresh(below);
    }
  }

  /** Closes every node, users' doors or not; for the end of the process. Throws the first error after trying all. */
  async closeAll(): Promise<void> {
    const errors: unknown[] = [];
    for (const node of this.nodes()) node.pinned = false;
    for (let open = this.nodes(); open.length > 0; open = this.nodes()) {
      const top = open.find((node) => ![...node.parents].some((user) => user instanceof BlockChild)) ?? open[0]!;
      await top.close().catch((error: unknown) => errors.push(error));
      this.#nodes.delete(top.nodeName);
    }
    if (errors.length > 0) throw errors[0];
  }

  #generate(): string {
    return `#block${this.#generated++}${String(this.#randomBelow(100)).padStart(2, '0')}`;
  }
}

/** A job works on the node: QEMU refuses whatever would change it. */
export function refuseBlocked(node: BlockNode): void {
  const newest = [...node.blockers].at(-1);
  if (newest !== undefined) throw new BlockError('BUSY', `Node '${node.nodeName}' is busy: ${newest.reason}`, { node: node.name });
}

/** What lies below an overlay is the overlay's: QEMU blocks whatever would change it. */
export function refuseAsBacking(node: BlockNode): void {
  for (const user of node.parents) {
    if (user instanceof BlockChild && user.role === 'backing') {
      throw new BlockError('BUSY', `Node '${node.nodeName}' is busy: node is used as backing hd of '${user.parent?.nodeName ?? ''}'`, { node: node.name });
    }
  }
}

/** Where a user points now. */
function holderNode(user: NodeUser, fallback: BlockNode): BlockNode {
  return user instanceof BlockChild || user instanceof BlockBackend ? user.node : fallback;
}

async function prepareAll(nodes: readonly (readonly [BlockNode, EdgeUse])[]): Promise<PreparedUse[]> {
  const prepared: PreparedUse[] = [];
  try {
    for (const [node, use] of nodes) {
      const ready = await node.driver.prepareUse?.(use);
      if (ready !== undefined) prepared.push(ready);
    }
  } catch (error) {
    for (const ready of prepared.reverse()) ready.abort();
    throw error;
  }
  return prepared;
}

function depthOf(node: BlockNode): number {
  return node.children.reduce((depth, { node: below }) => Math.max(depth, 1 + depthOf(below)), 0);
}
