/**
 * Where every I/O goes past. Each layer of each node is a device to the sink; a request is queued on it, may wait, is issued to what
 * does the work, and completes. Without a sink the cost is a null check.
 */
export type TracedOp = 'read' | 'write' | 'write-zeroes' | 'discard' | 'flush';

/** Who asks: the program itself is null; each client of an export and each job has one. */
export interface TraceTask {
  readonly name: string;
  /** From 1. */
  readonly number: number;
  /** Why it asks for anything: `mirror`, `backup`, …; '' for a client, who asks for what it likes. */
  readonly cause: string;
}

export interface TracedRequest {
  readonly op: TracedOp;
  readonly offset: number;
  readonly bytes: number;
  /** RequestFlag bits: 1 is FUA. */
  readonly flags: number;
  /** From 1; requests with the same one differ in their flags at most. */
  readonly id: number;
  readonly ioClass: 'interactive' | 'background' | 'metadata';
  /** Why it is made, '' where the one who asks knows: `l2-alloc`, `l2`, `refcount`, `cow`, `rmw`, `mirror`, … */
  readonly cause: string;
  readonly task: TraceTask | null;
}

/**
 * `disk`: what users of a disk ask for, at their door or at the format's node. `data`, `metadata`: what a format asks of its file.
 * `file`: what goes to the host (or to a server). `filter`: what comes to a filter's node.
 */
export type TraceLayer = 'disk' | 'data' | 'metadata' | 'file' | 'filter';

/** A node as a sink sees it; the same object each time. */
export interface TracedNode {
  readonly driver: string;
  readonly nodeName: string;
  /** Its file, mostly. */
  readonly name: string;
}

export interface TraceSink {
  /** A small number that stands for a layer of a node from here on. Asked once for each; `file` is the device of the file below a format, or -1. */
  device(node: TracedNode, layer: TraceLayer, file: number): number;
  /** Takes the time that the calls bear until the next tick: those of one synchronous stretch happen at once. */
  tick(): void;
  /** `from`: the device of the layer above that it was made for, and where on it, or -1. */
  queue(device: number, request: TracedRequest, from: number, fromOffset: number): void;
  /** It waits for its turn (a limit, a drained section, another request). */
  wait(device: number, request: TracedRequest): void;
  /** The driver, or the layer below, gets it. */
  issue(device: number, request: TracedRequest): void;
  /** `errno` is positive, 0 for success. */
  complete(device: number, request: TracedRequest, errno: number): void;
  /** It goes on in parts; the next one begins at byte `at`. */
  split(device: number, request: TracedRequest, at: number): void;
  /** It goes back into the queue, and will be issued again. */
  requeue(device: number, request: TracedRequest): void;
}
