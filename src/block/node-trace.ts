/**
 * What one node tells a trace. A request is queued when it arrives (at a user's door, over an edge), may wait, is issued to the driver, and
 * completes when it ends. A node of a format with tables of its own (qcow2) is three layers: the disk that it shows, and what it asks of its
 * file, as data and as metadata; the latter are told at the edge to the file. Where a node cuts a request up for its host (padding, the
 * largest transfer), only the parts are told there: they are what the host sees.
 */
import { constants } from 'node:os';
import { errnoOf } from '../base/errors.js';
import { DONE, rejected } from '../base/done.js';
import type { EventName } from '../trace/event-names.js';
import type { EventLog } from '../trace/events.js';
import type { TracedNode, TracedOp, TraceLayer, TraceSink, TraceTask } from '../trace/sink.js';
import type { BlockChild } from './child.js';
import type { BlockDriver } from './driver.js';
import { acting, actingReason, IN_PARTS, setActing, type BlockRequest } from './request.js';

/** How a request came to a node: `via` is the layer of the edge, -1 for none; `from` is the device above all of that. */
export interface TraceLane {
  readonly node: NodeTrace;
  readonly via: number;
  readonly from: number;
  /** The node it waited at, where it was queued too, until the graph put this one in its place. */
  readonly before: Predecessor | null;
}

interface Predecessor {
  readonly node: NodeTrace;
  readonly before: Predecessor | null;
}

/** The lanes of an edge; made again where the graph has put another node at one of its ends. */
export interface EdgeLanes {
  readonly below: NodeTrace;
  readonly above: NodeTrace | null;
  readonly data: TraceLane;
  readonly metadata: TraceLane;
}

/** How far a request has come at a node: queued as it is; with the driver; or (IN_PARTS) not told, as it goes on in parts. */
const QUEUED = 1;
const ISSUED = 2;

const NONE = -1;
/** How many requests are being issued in the synchronous stretch at hand: what happens below happens at the same moment. */
let depth = 0;
/** The id of the request that was queued last, at the time that the sink still holds; 0 for none. */
let latest = 0;

let everywhere: TraceSink | null = null;

/** Nodes that are made from now on tell this sink, where they are given none: for a program that traces all it does. */
export function traceNewNodes(sink: TraceSink | null): void {
  everywhere = sink;
}

export function sinkOfNewNodes(): TraceSink | null {
  return everywhere;
}

export class NodeTrace implements TracedNode {
  readonly sink: TraceSink;
  readonly driver: string;
  readonly nodeName: string;
  readonly name: string;
  readonly #kind: BlockDriver['kind'];
  readonly #hasTables: boolean;
  /** Whether a request goes to the driver as it is. */
  readonly #goesWhole: (request: BlockRequest) => boolean;
  readonly #devices = new Map<TraceLayer, number>();
  /** The device of the file below. */
  readonly #file: number;
  readonly #own: number;
  #door: TraceLane | null = null;
  readonly #partLane: TraceLane = { node: this, via: NONE, from: NONE, before: null };

  constructor(
    sink: TraceSink, node: { readonly driver: BlockDriver; readonly nodeName: string; readonly name: string }, goesWhole: (request: BlockRequest) => boolean,
  ) {
    const { kind, formatName, passesWrites } = node.driver;
    this.sink = sink;
    this.driver = formatName;
    this.nodeName = node.nodeName;
    this.name = node.name;
    this.#kind = kind;
    this.#hasTables = kind === 'format' && passesWrites !== true;
    this.#goesWhole = goesWhole;
    const file = node.driver.children?.find(({ edge }) => edge === 'file')?.node.trace;
    this.#file = file?.sink === sink ? file.#own : NONE;
    this.#own = this.#device(kind === 'format' ? 'disk' : kind === 'protocol' ? 'file' : 'filter');
  }

  /** It comes from a user, at a door. */
  enter(request: BlockRequest, task: TraceTask | null): void {
    this.#door ??= { node: this, via: this.#kind === 'format' ? NONE : this.#device('disk'), from: NONE, before: null };
    this.#come(this.#door, request, task);
  }

  /** It comes over an edge, from a node above. */
  cross(child: BlockChild, request: BlockRequest): void {
    const parent = request.parent ?? (request.ioClass === 'metadata' || request.op === 'flush' ? child.holder : null);
    this.#tellFor(request, parent, parent === null ? child.task : null);
    if (depth === 0) this.sink.tick();
    const lanes = this.#lanesOf(child);
    // where it waited for its turn above, it is let go only now
    if (parent !== null && parent.stage === QUEUED && parent.lane?.node === lanes.above) parent.lane.node.#issueWhole(parent);
    const lane = request.ioClass === 'metadata' ? lanes.metadata : lanes.data;
    this.#queue(lane, request, parent === null ? NONE : lane.from, parent?.offset ?? 0);
  }

  /** It is here: told, where neither a door nor an edge did. */
  arrive(request: BlockRequest): void {
    const { lane } = request;
    if (lane === null || lane.node.sink !== this.sink) this.#come(this.#partLane, request, null);
    else if (lane.node !== this) this.#takeOver(lane, request);
  }

  waits(request: BlockRequest): void {
    const { lane } = request;
    if (lane === null) return;
    this.sink.tick();
    latest = 0;
    if (request.stage === QUEUED) this.sink.wait(this.#own, request);
  }

  /** It goes on in parts; the next one begins at byte `at`. */
  splits(request: BlockRequest, at: number): void {
    if (request.lane !== null) this.sink.split(this.#own, request, at);
  }

  /** Hands it to the driver. Never throws. */
  issue(driver: BlockDriver, request: BlockRequest): Promise<void> {
    const { sink } = this;
    const part = driver.queues !== true && this.#tellIssued(request);
    // a protocol has nobody below whom it would ask for anything
    const running = this.#kind === 'protocol' ? submitted(driver, request) : submittedFor(driver, request);
    if (driver.queues === true && running !== DONE && request.stage === QUEUED && request.lane?.node === this) sink.wait(this.#own, request);
    if (!part) return running;
    if (running !== DONE) return this.#completePart(running, request);
    this.complete(request, null, true);
    return DONE;
  }

  /** It has to be handed over again, and is. */
  requeued(request: BlockRequest): void {
    this.sink.tick();
    this.sink.requeue(this.#own, request);
  }

  issuedAgain(request: BlockRequest): void {
    this.sink.tick();
    this.sink.issue(this.#own, request);
  }

  /** It has ended; `atOnce`: in the stretch in which it came. Told once. */
  complete(request: BlockRequest, error: unknown, atOnce = false): void {
    const { lane } = request;
    if (lane === null || lane.node !== this) return;
    request.lane = null;
    const errno = error === null ? 0 : errnoNumber(error);
    if (!atOnce || this.#kind === 'protocol') this.sink.tick();
    if (request.stage !== IN_PARTS) this.sink.complete(this.#own, request, errno);
    for (let { before } = lane; before !== null; { before } = before) this.sink.complete(before.node.#own, request, errno);
    if (lane.via !== NONE) this.sink.complete(lane.via, request, errno);
  }

  /** It waited at another node, in whose place this one is now. It goes on from there for the same layer above, and ends at both. */
  #takeOver({ node, via, from, before }: TraceLane, request: BlockRequest): void {
    this.sink.tick();
    node.#issueWhole(request);
    const told = request.stage !== IN_PARTS;
    const fromUser = via === NONE && from === NONE;
    request.lane = { node: this, via: fromUser && told ? node.#own : via, from, before: fromUser || !told ? before : { node, before } };
    this.#queueOwn(request.lane, request, request.parent === null ? NONE : from, request.parent?.offset ?? 0);
  }

  async #completePart(running: Promise<void>, request: BlockRequest): Promise<void> {
    try {
      await running;
    } catch (error) {
      this.complete(request, error);
      throw error;
    }
    this.complete(request, null);
  }

  #come(lane: TraceLane, request: BlockRequest, task: TraceTask | null): void {
    const { parent } = request;
    this.#tellFor(request, parent, task);
    this.sink.tick();
    const above = parent?.lane?.node;
    this.#queue(lane, request, above?.sink === this.sink ? above.#own : NONE, parent?.offset ?? 0);
  }

  #tellFor(request: BlockRequest, parent: BlockRequest | null, task: TraceTask | null): void {
    request.task ??= parent?.task ?? task;
    if (request.cause === '' && task !== null) request.cause = task.cause;
  }

  #queue(lane: TraceLane, request: BlockRequest, from: number, parentOffset: number): void {
    const { sink } = this;
    request.lane = lane;
    if (lane.via !== NONE) {
      sink.queue(lane.via, request, from, parentOffset);
      sink.issue(lane.via, request);
    }
    this.#queueOwn(lane, request, from, parentOffset);
  }

  #queueOwn(lane: TraceLane, request: BlockRequest, from: number, parentOffset: number): void {
    const { sink } = this;
    latest = request.id;
    if (!this.#goesWhole(request)) {
      request.stage = IN_PARTS;
      return;
    }
    request.stage = QUEUED;
    if (lane.via === NONE) sink.queue(this.#own, request, from, parentOffset);
    else sink.queue(this.#own, request, lane.via, request.offset);
  }

  /** Returns true for a part that is told as a request of its own, and of which nobody else tells the end. */
  #tellIssued(request: BlockRequest): boolean {
    if (latest !== request.id && depth === 0) this.sink.tick();
    latest = 0;
    const { parent } = request;
    const whole = parent?.lane?.node === this ? parent : null;
    if (request.lane?.node === this) this.#issueWhole(request);
    else if (whole !== null && request.op !== 'flush' && whole.stage !== IN_PARTS) this.#issueWhole(whole);
    else return this.#issuePart(request, whole);
    return false;
  }

  #issueWhole(request: BlockRequest): void {
    if (request.stage !== QUEUED) return;
    this.sink.issue(this.#own, request);
    request.stage = ISSUED;
  }

  #issuePart(request: BlockRequest, whole: BlockRequest | null): true {
    const { sink } = this;
    const above = whole?.lane ?? null;
    request.task ??= request.parent?.task ?? null;
    if (request.cause === '' && whole !== null) request.cause = whole.cause;
    request.lane = this.#partLane;
    request.stage = ISSUED;
    if (above === null) sink.queue(this.#own, request, NONE, 0);
    else if (above.via !== NONE) sink.queue(this.#own, request, above.via, whole!.offset);
    else sink.queue(this.#own, request, whole!.parent === null ? NONE : above.from, whole!.parent?.offset ?? 0);
    sink.issue(this.#own, request);
    return true;
  }

  #lanesOf(child: BlockChild): EdgeLanes {
    const above = child.parent?.trace?.sink === this.sink ? child.parent.trace : null;
    const { lanes } = child;
    if (lanes !== null && lanes.below === this && lanes.above === above) return lanes;
    return child.lanes = { below: this, above, data: this.#laneFrom(above, child, 'data'), metadata: this.#laneFrom(above, child, 'metadata') };
  }

  #laneFrom(above: NodeTrace | null, child: BlockChild, layer: 'data' | 'metadata'): TraceLane {
    const via = above !== null && above.#hasTables && child.edge === 'file' ? above.#device(layer) : NONE;
    return { node: this, via, from: above === null ? NONE : above.#own, before: null };
  }

  #device(layer: TraceLayer): number {
    let device = this.#devices.get(layer);
    if (device === undefined) this.#devices.set(layer, device = this.sink.device(this, layer, this.#file));
    return device;
  }
}

/** Whatever the driver asks of others at once is for the request. */
function submittedFor(driver: BlockDriver, request: BlockRequest): Promise<void> {
  const above = acting();
  const reason = actingReason();
  setActing(request, '');
  depth++;
  const running = submitted(driver, request);
  depth--;
  setActing(above, reason);
  return running;
}

function submitted(driver: BlockDriver, request: BlockRequest): Promise<void> {
  try {
    return driver.submit(request);
  } catch (error) {
    return rejected(error);
  }
}

/** Linux's number of the error. */
function errnoNumber(error: unknown): number {
  const { errno } = constants;
  return (errno as Readonly<Record<string, number>>)[errnoOf(error) ?? 'EIO'] ?? errno.EIO;
}

const EVENT_OF: Partial<Record<TracedOp, EventName>> = { read: 'bdrv_co_preadv', write: 'bdrv_co_pwritev', 'write-zeroes': 'bdrv_co_pwrite_zeroes' };

/** As one of QEMU's trace events. */
export function logRequest(log: EventLog, node: object, { op, offset, bytes, flags }: BlockRequest): void {
  const name = EVENT_OF[op];
  if (name !== undefined) log.emit(name, node, offset, bytes, flags);
}
