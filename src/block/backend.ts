/**
 * A user's door to a node: exports, jobs and the command line submit here. Admission (throttling, scheduling by class)
 * is about who asks, so it lives here and never in the graph: no node waits on policy, and no lock is held meanwhile.
 */
import type { BlockNode } from './node.js';
import type { BlockRequest } from './request.js';

/** Lets a request in now (null) or later (a promise). Rejecting refuses it. */
export type Admission = (request: BlockRequest) => Promise<void> | null;

export class BlockBackend {
  readonly name: string;
  readonly node: BlockNode;
  admission: Admission | null = null;

  constructor(name: string, node: BlockNode) {
    this.name = name;
    this.node = node;
  }

  submit(request: BlockRequest): Promise<void> {
    return this.admission === null && request.signal === undefined ? this.node.submit(request) : this.#submitAdmitted(request);
  }

  async #submitAdmitted(request: BlockRequest): Promise<void> {
    const wait = this.admission === null ? null : this.admission(request);
    if (wait !== null) await wait;
    request.signal?.throwIfAborted();
    await this.node.submit(request);
  }
}
