import type { PipeBuffer } from '../base/pipe-buffer.js';
import type { TraceTask } from '../trace/sink.js';
import type { TraceLane } from './node-trace.js';

/** One I/O. The same object is scheduled, throttled, tracked and traced on its way down. */
export type BlockOp = 'read' | 'write' | 'write-zeroes' | 'discard' | 'flush';

/** Who asks; the scheduler of a BlockBackend orders by it. */
export type IoClass = 'interactive' | 'background' | 'metadata';

export const RequestFlag = {
  /** The write is on stable storage before it completes (NBD_CMD_FLAG_FUA). */
  FUA: 1,
  /** write-zeroes may deallocate instead of writing (QEMU: BDRV_REQ_MAY_UNMAP). */
  MAY_UNMAP: 2,
  /** write-zeroes that would have to write the zeros fails with NOT_SUPPORTED instead (NBD_CMD_FLAG_FAST_ZERO). */
  NO_FALLBACK: 4,
  /** write, write-zeroes: only where this layer has nothing yet (copy on read); what others wrote meanwhile stays. */
  IF_UNALLOCATED: 8,
  /** With MAY_UNMAP: the node's own discard mode is not asked, only those below it, as QEMU does for requests at a door. */
  UNMAP_AT_DOOR: 16,
  /** read, of a copy-on-read filter: nobody wants the data (no buffer), but all of it is to be in the node below afterwards. */
  PREFETCH: 16,
  /** write-zeroes: the layer itself is to hold the zeros, even where it would show them for want of layers below: those may come. */
  OWN_ZEROES: 32,
} as const;

export interface BlockRequest {
  readonly op: BlockOp;
  /** Bytes from the start of the node. 0 for flush. */
  readonly offset: number;
  readonly bytes: number;
  /** Exactly `bytes` long for read and write, null otherwise and for PREFETCH; lent to the driver until the promise settles. */
  readonly buffer: Uint8Array | null;
  /** RequestFlag bits. */
  readonly flags: number;
  readonly ioClass: IoClass;
  readonly id: number;
  /** Ends waiting before the request reaches the host; it never settles an I/O that the host still holds. */
  readonly signal?: AbortSignal | undefined;
  /**
   * A read may leave its data here instead of in `buffer`, with which it has begun, and a write takes it from here where it is.
   * A node whose driver does not say that it can (`pipeBytes`), or that looks at data itself, moves it to `buffer` first.
   */
  readonly pipe?: PipeBuffer | undefined;
  /** The request of the node above (or of the same node, of which this is a part) that it is made for, where that is known: see `actFor`. */
  parent: BlockRequest | null;
  /** For a trace: why it is made, '' for nothing special. */
  cause: string;
  /** For a trace: who asks; null is the program itself, or whoever the parent is for. */
  task: TraceTask | null;
  /** For NodeTrace alone: where it is queued, and how far it has come there. */
  lane: TraceLane | null;
  stage: number;
}

/** A `stage`: the node tells its parts instead. */
export const IN_PARTS = 3;

let lastId = 0;
let actingFor: BlockRequest | null = null;
let actingCause = '';

/** What requests made now are made for; known only while a trace listens. To be taken before the first await of what goes on after it. */
export function acting(): BlockRequest | null {
  return actingFor;
}

/** Requests that `work` makes before its first await are made for `parent`, and for the reason `cause`. */
export function actFor<T>(parent: BlockRequest | null, work: () => T, cause = ''): T {
  const before = actingFor;
  const causeBefore = actingCause;
  actingFor = parent;
  actingCause = cause;
  try {
    return work();
  } finally {
    actingFor = before;
    actingCause = causeBefore;
  }
}

/** The same for whoever it is for now. */
export function because<T>(cause: string, work: () => T): T {
  return actFor(actingFor, work, cause);
}

/** As `actFor`, for those who do it for each request; returns nothing to undo it with: they ask `acting` and `actingReason` before. */
export function setActing(parent: BlockRequest | null, cause: string): void {
  actingFor = parent;
  actingCause = cause;
}

export function actingReason(): string {
  return actingCause;
}

let tasks = 0;

/** A client or a job, as traces tell them apart. */
export function makeTask(name: string, cause = ''): TraceTask {
  return { name, number: ++tasks, cause };
}

export function makeRequest(
  op: BlockOp, offset: number, bytes: number, buffer: Uint8Array | null, flags = 0, ioClass: IoClass = 'interactive', pipe?: PipeBuffer,
): BlockRequest {
  lastId = lastId === Number.MAX_SAFE_INTEGER ? 1 : lastId + 1;
  return { op, offset, bytes, buffer, flags, ioClass, id: lastId, pipe, parent: actingFor, cause: actingCause, task: null, lane: null, stage: 0 };
}

/** A request that is made for another one, or is a part of it. */
export function makePart(
  parent: BlockRequest | null, op: BlockOp, offset: number, bytes: number, buffer: Uint8Array | null, flags = 0, ioClass: IoClass = 'interactive',
): BlockRequest {
  const part = makeRequest(op, offset, bytes, buffer, flags, ioClass);
  part.parent = parent;
  return part;
}

/** The same request with other flags (or as another operation), where it is: for the node that took it. */
export function remakeRequest(request: BlockRequest, flags: number, op = request.op, buffer = request.buffer): BlockRequest {
  const { offset, bytes, ioClass, pipe, parent } = request;
  const remade = makeRequest(op, offset, bytes, buffer, flags, ioClass, pipe);
  remade.cause = request.cause;
  remade.task = request.task;
  if (request.stage === IN_PARTS && op !== request.op) {
    // now it goes whole: the one part of what came
    remade.parent = request;
    return remade;
  }
  remade.parent = parent;
  remade.lane = request.lane;
  remade.stage = request.stage;
  return remade;
}
