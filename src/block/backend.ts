/**
 * A user's door to a node: exports, jobs and the command line submit here. Admission (throttling, scheduling by class)
 * is about who asks, so it lives here and never in the graph: no node waits on policy, and no lock is held meanwhile.
 */
import type { TraceTask } from '../trace/sink.js';
import type { BlockNode } from './node.js';
import { NO_USE, type EdgeUse, type NodeUser } from './permissions.js';
import { RequestFlag, type BlockRequest } from './request.js';
import { chainStatus, type ChainStatus } from './status.js';

/** Lets a request in now (null) or later (a promise). Rejecting refuses it. */
export type Admission = (request: BlockRequest) => Promise<void> | null;

let made = 0;

export class BlockBackend implements NodeUser {
  readonly edge = 'root';
  /** What refusals call it; empty for an export or a job, which QEMU calls unnamed. */
  readonly name: string;
  admission: Admission | null = null;
  /** Every write is on stable storage before it is answered. */
  writethrough = false;
  use: EdgeUse = NO_USE;
  /** Who asks here, for a trace; null is the program itself. */
  task: TraceTask | null = null;
  /** Doors in the order in which they were made. */
  readonly serial = ++made;
  #node: BlockNode;

  /** Without a graph nobody checks permissions; BlockGraph.attach makes doors that are checked. */
  constructor(name: string, node: BlockNode) {
    this.name = name;
    this.#node = node;
  }

  /** The node below; the graph may put another one there. */
  get node(): BlockNode { return this.#node; }
  describe(): string { return this.name === '' ? 'an unnamed block device' : `block device '${this.name}'`; }

  replace(node: BlockNode): void {
    node.parents.add(this);
    if (this.#node !== node) this.#node.parents.delete(this);
    this.#node = node;
  }

  submit(request: BlockRequest): Promise<void> {
    const { trace } = this.#node;
    if (trace !== null) trace.enter(request, this.task);
    const now = this.admission === null && request.signal === undefined && !this.writethrough && !this.#node.draining;
    return now ? this.#node.submit(request) : this.#submitAdmitted(request);
  }

  /** Status through the backing chain; like a request, not while the node is drained. */
  async blockStatus(offset: number, bytes: number): Promise<ChainStatus> {
    while (this.#node.draining) await this.#node.resumed();
    return chainStatus(this.#node, offset, bytes);
  }

  async #submitAdmitted(request: BlockRequest): Promise<void> {
    const wait = this.admission === null ? null : this.admission(request);
    if (wait !== null || this.#node.draining) this.#node.trace?.waits(request);
    try {
      if (wait !== null) await wait;
      request.signal?.throwIfAborted();
    } catch (error) {
      request.lane?.node.complete(request, error); // where it was queued, whatever node is below by now
      throw error;
    }
    while (this.#node.draining) await this.#node.resumed();
    await this.#node.submit(this.writethrough ? durable(request) : request);
  }
}

function durable(request: BlockRequest): BlockRequest {
  return request.op === 'write' || request.op === 'write-zeroes' ? { ...request, flags: request.flags | RequestFlag.FUA } : request;
}
