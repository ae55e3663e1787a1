/**
 * An edge of the graph: what a driver holds of a node below it, under QEMU's name for it (`file`, `backing`, …). The
 * driver never holds the node itself, so that the graph can put another one (a filter, a new backing node) in its place.
 */
import type { BlockLimits, BlockStatus } from './driver.js';
import type { BlockNode } from './node.js';
import type { BlockRequest, IoClass } from './request.js';

/** Why the parent has the child, as QEMU's BdrvChildRole: its data and metadata, what it filters, what it overlays. */
export type ChildRole = 'file' | 'backing' | 'filtered' | 'data';

export class BlockChild {
  /** QEMU's name of the edge. */
  readonly edge: string;
  readonly role: ChildRole;
  /** The node whose driver holds this edge; set when that node is made. */
  parent: BlockNode | null = null;
  #node: BlockNode;

  constructor(edge: string, role: ChildRole, node: BlockNode) {
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

  /** Puts another node below. Only while no request is in flight through this edge. */
  replace(node: BlockNode): void {
    node.parents.add(this);
    this.#node.parents.delete(this);
    this.#node = node;
  }

  /** Lets go of the node, and closes it where nobody else holds it. */
  async detach(): Promise<void> {
    this.#node.parents.delete(this);
    if (this.#node.parents.size === 0 && !this.#node.pinned) await this.#node.close();
  }

  length(): number { return this.#node.length(); }
  submit(request: BlockRequest): Promise<void> { return this.#node.submit(request); }
  read(offset: number, buffer: Uint8Array, ioClass?: IoClass): Promise<void> { return this.#node.read(offset, buffer, ioClass); }
  write(offset: number, buffer: Uint8Array, flags = 0, ioClass?: IoClass): Promise<void> { return this.#node.write(offset, buffer, flags, ioClass); }
  writeZeroes(offset: number, bytes: number, flags = 0): Promise<void> { return this.#node.writeZeroes(offset, bytes, flags); }
  discard(offset: number, bytes: number): Promise<void> { return this.#node.discard(offset, bytes); }
  flush(): Promise<void> { return this.#node.flush(); }
  blockStatus(offset: number, bytes: number): Promise<BlockStatus> { return this.#node.blockStatus(offset, bytes); }

  /** Why this edge is used now (`l2-alloc`, `cow`, …), for a trace. */
  cause(cause: string, offset: number, bytes: number): void {
    this.#node.trace?.cause(this.#node.name, cause, offset, bytes);
  }

  /** A point of the format's work that error injection can hook (QEMU's BLKDBG_EVENT); names as in QEMU. */
  debugEvent(event: string): void {
    this.#node.driver.debugEvent?.(event);
  }
}
