/**
 * Requests as analysis pairs them from records: Q opens one, G I D M X R touch it, C closes it. The viewer draws them, reports count them.
 */

/** Times are ns as in `RecordBatch`, NaN where no such record was seen. */
export interface TracedIo {
  /** Counted in order of being opened (queued, or seen first), from 0: the row in an `IoTable`. */
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
  /** The id of the request of the layer above that it was made for (a remap links them), -1 for none or not known. */
  readonly parent: number;
  /** The id of the request it was merged into, -1 for none. */
  readonly mergedInto: number;
  /** What a message said: why it was made (`l2-alloc`, `cow`, …), '' for nothing. */
  readonly cause: string;
}

/** Many of them in columns, in order of `queued` where known (else of the first time known). What viewers hold of a trace. */
export interface IoTable {
  readonly count: number;
  readonly device: Uint32Array;
  readonly sector: Float64Array;
  readonly bytes: Uint32Array;
  readonly category: Uint32Array;
  readonly pid: Uint32Array;
  readonly queued: Float64Array;
  readonly gotRequest: Float64Array;
  readonly inserted: Float64Array;
  readonly issued: Float64Array;
  readonly completed: Float64Array;
  readonly error: Uint16Array;
  /** Rows of this table, -1 for none. */
  readonly parent: Int32Array;
  readonly mergedInto: Int32Array;
  /** Indices into `causes`; 0 is ''. */
  readonly cause: Uint16Array;
  readonly causes: readonly string[];
  readonly processes: ReadonlyMap<number, string>;
  /** What our own recordings say of each device: the layer and the node or file, such as 'guest disk vm.qcow2'. */
  readonly deviceNames: ReadonlyMap<number, string>;
  /** The last time in the trace, ns. */
  readonly endNs: number;
}
