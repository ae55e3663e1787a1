/**
 * The filter that a job puts over the node it works on, as QEMU's mirror_top, commit_top and the like: everything passes
 * through as it is, and the job may take writes, zeroes and discards in hand.
 */
import type { BlockChild } from '../block/child.js';
import type { BlockNode } from '../block/node.js';
import type { LatencyMeter } from '../block/latency.js';
import type { EdgeUse } from '../block/permissions.js';
import type { BlockRequest } from '../block/request.js';
import { FilterDriver } from './filter.js';
import type { WriteGate } from './write-gate.js';

/** What becomes of a write, write-zeroes or discard; `below` is the node that is filtered. */
type Intercept = (request: BlockRequest, below: BlockChild) => Promise<void>;

interface InterceptOptions {
  readonly child: BlockNode;
  /** What QMP calls the driver. */
  readonly formatName: string;
  /** QEMU's name of the edge. Default `backing`, as these filters have it there. */
  readonly edge?: string | undefined;
  /** Holds writes up before they come to anything else. */
  readonly gate?: WriteGate | undefined;
  /** Learns how long users wait for writes. */
  readonly latency?: LatencyMeter | undefined;
  /** What a write costs at the gate. Default: its bytes. */
  readonly cost?: ((request: BlockRequest) => number) | undefined;
  /** What it needs of the node below, where that is not what its users do. */
  readonly childUse?: ((parent: EdgeUse) => EdgeUse) | undefined;
}

export class InterceptFilter extends FilterDriver {
  readonly formatName: string;
  readonly queues = true;
  /** Looked up once for each request. */
  intercept: Intercept | null = null;
  readonly childUse?: (child: BlockChild, parent: EdgeUse) => EdgeUse;
  readonly #gate: WriteGate | null;
  readonly #latency: LatencyMeter | null;
  readonly #cost: (request: BlockRequest) => number;

  constructor({ child, formatName, edge = 'backing', gate, latency, cost, childUse }: InterceptOptions) {
    super(child, edge);
    this.formatName = formatName;
    this.#gate = gate ?? null;
    this.#latency = latency ?? null;
    this.#cost = cost ?? (({ bytes }) => bytes);
    if (childUse !== undefined) this.childUse = (_child, parent) => childUse(parent);
  }

  override submit(request: BlockRequest): Promise<void> {
    if (request.op === 'read' || request.op === 'flush') return this.forward(request);
    return this.#latency === null ? this.#admit(request) : this.#latency.watch(() => this.#admit(request));
  }

  #admit(request: BlockRequest): Promise<void> {
    const turn = this.#gate === null || this.#gate.bytesPerSecond === Infinity ? null : this.#gate.admit(this.#cost(request));
    return turn === null ? this.#carryOut(request) : turn.then(() => this.#carryOut(request));
  }

  readonly drainBegin = (): void => this.#gate?.pass();
  readonly drainEnd = (): void => this.#gate?.unpass();

  #carryOut(request: BlockRequest): Promise<void> {
    return this.intercept === null ? this.forward(request) : this.intercept(request, this.file);
  }
}
