/**
 * An edge of the graph: what a driver holds of a node below it, under QEMU's name for it (`file`, `backing`, …). The
 * driver never holds the node itself, so that the graph can put another one (a filter, a new backing node) in its place.
 */
import type { TraceTask } from '../trace/sink.js';
import type { BlockLimits, BlockStatus } from './driver.js';
import { IoVerbs } from './io-verbs.js';
import type { BlockNode } from './node.js';
import type { EdgeLanes } from './node-trace.js';
import { NO_USE, type ChildRole, type EdgeUse, type NodeUser } from './permissions.js';
import type { BlockRequest } from './request.js';

export type { ChildRole } from './permissions.js';

export class BlockChild extends IoVerbs implements NodeUser {
  /** QEMU's name of the edge. */
  readonly edge: string;
  readonly role: ChildRole;
  /** The node whose driver holds this edge; set when that node is made. */
  parent: BlockNode | null = null;
  use: EdgeUse = NO_USE;
  /** Whom the one works for who makes requests without knowing for what: the holder of a format's metadata mutex. Known to traces only. */
  holder: BlockRequest | null = null;
  /** For a trace: who makes requests over it that are for nobody above, such as a job at its filter. */
  task: TraceTask | null = null;
  /** Made and kept by NodeTrace. */
  lanes: EdgeLanes | null = null;
  /** How many jobs rely on it: no command may change what lies below meanwhile. */
  frozen = 0;
  #node: BlockNode;

  constructor(edge: string, role: ChildRole, node: BlockNode) {
    super();
    this.edge = edge;
    this.role = role;
    this.#node = node;
    node.parents.add(this);
  }

  get node(): BlockNode { return this.#node; }
  /** How errors call the node below. */
  get name(): string { return this.#node.name; }
  get limits(): BlockLimits { return this.#node.limits; }
  get growable(): boolean { return this.#node.driver.growable; }
  get readOnly(): boolean { return this.#node.readOnly; }
  describe(): string { return `node '${this.parent?.nodeName ?? ''}'`; }

  replace(node: BlockNode): void {
    node.parents.add(this);
    if (this.#node !== node) this.#node.parents.delete(this);
    this.#node = node;
  }

  /** Lets go of the node, and closes it where nobody else holds it. */
  async detach(): Promise<void> {
    this.#node.parents.delete(this);
    if (this.#node.parents.size === 0 && !this.#node.pinned) await this.#node.close();
  }

  length(): number { return this.#node.length(); }

  /** Waits for the end of a drained section here, above the node: the graph may put another one below meanwhile. */
  override submit(request: BlockRequest): Promise<void> {
    const node = this.#node;
    if (node.trace !== null) node.trace.cross(this, request);
    return node.draining ? this.#submitLater(request) : node.submit(request);
  }

  async #submitLater(request: BlockRequest): Promise<void> {
    this.#node.trace?.waits(request);
    return (await this.settled()).submit(request);
  }

  /** Waits for the end of a drained section, as requests do. */
  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    return (await this.settled()).blockStatus(offset, bytes);
  }

  /** The node below, outside of drained sections. */
  async settled(): Promise<BlockNode> {
    while (this.#node.draining) await this.#node.resumed();
    return this.#node;
  }

  /** A point of the format's work that error injection can hook (QEMU's BLKDBG_EVENT); names as in QEMU. */
  debugEvent(event: string): void {
    this.#node.driver.debugEvent?.(event);
  }
}
