import type { PipeBuffer } from '../base/pipe-buffer.js';

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
   * A read may leave its data here instead of in `buffer`, and a write takes it from here where it is. Only for drivers
   * that say they can (`pipes`), with nothing above them that looks at data.
   */
  readonly pipe?: PipeBuffer | undefined;
}

let lastId = 0;

export function makeRequest(
  op: BlockOp, offset: number, bytes: number, buffer: Uint8Array | null, flags = 0, ioClass: IoClass = 'interactive', pipe?: PipeBuffer,
): BlockRequest {
  lastId = lastId === Number.MAX_SAFE_INTEGER ? 1 : lastId + 1;
  return { op, offset, bytes, buffer, flags, ioClass, id: lastId, pipe };
}
