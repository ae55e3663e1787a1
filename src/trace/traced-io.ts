/**
 * Requests as analysis pairs them from records: Q opens one, G I D M X R touch it, C closes it. The viewer draws them, reports count them.
 */

/** Times are ns as in `RecordBatch`, NaN where no such record was seen. */
export interface TracedIo {
  /** Counted in order of being closed, from 0; those that were never closed come last. */
  readonly id: number;
  readonly device: number;
  /** Of 512 bytes. */
  readonly sector: number;
  readonly bytes: number;
  /** Bits of `Category` that say what it is: READ, WRITE, FLUSH, SYNC, AHEAD, META, DISCARD, FUA. */
  readonly category: number;
  /** Who queued it. */
  readonly pid: number;
  readonly queued: number;
  readonly gotRequest: number;
  readonly inserted: number;
  readonly issued: number;
  readonly completed: number;
  /** Positive errno, 0 for success. */
  readonly error: number;
  /** The request of the layer above that it was made for (a remap links them), -1 for none or not known. */
  readonly parent: number;
  /** The request it was merged into, -1 for none. */
  readonly mergedInto: number;
  /** What a message said: why it was made (`l2-alloc`, `cow`, …), '' for nothing. */
  readonly cause: string;
}
