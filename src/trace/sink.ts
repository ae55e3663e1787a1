/**
 * Where every I/O goes past: each BlockNode tells its sink when a request is issued to the driver and when it completes,
 * and formats add the cause of the I/O they make themselves. Without a sink the cost is one null check.
 */
export interface TracedRequest {
  readonly op: 'read' | 'write' | 'write-zeroes' | 'discard' | 'flush';
  readonly offset: number;
  readonly bytes: number;
  readonly flags: number;
  readonly id: number;
}

export interface TraceSink {
  /** The request is handed to the driver of the node `layer`. */
  issue(layer: string, request: TracedRequest): void;
  /** The driver settled it; `errno` is null on success. */
  complete(layer: string, request: TracedRequest, errno: string | null): void;
  /** Why the layer does I/O of its own: `l2-alloc`, `cow`, `refcount`, `rmw`, … */
  cause(layer: string, cause: string, offset: number, bytes: number): void;
}
