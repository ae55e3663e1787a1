/**
 * Requests as analysis pairs them from records: Q opens one, G I D M X R touch it, C closes it. The viewer draws them, reports count them.
 */

/**
 * Many of them in columns, in order of `queued` where known (else of the first time known). What viewers hold of a trace. Times are ns as in
 * `RecordBatch`, NaN where no such record was seen.
 */
export interface IoTable {
  readonly count: number;
  readonly device: Uint32Array;
  /** Of 512 bytes. */
  readonly sector: Float64Array;
  readonly bytes: Uint32Array;
  /** Bits of `Category` that say what it is: READ, WRITE, FLUSH, SYNC, AHEAD, META, DISCARD, FUA. */
  readonly category: Uint32Array;
  /** Who queued it. */
  readonly pid: Uint32Array;
  readonly queued: Float64Array;
  readonly gotRequest: Float64Array;
  readonly inserted: Float64Array;
  readonly issued: Float64Array;
  readonly completed: Float64Array;
  /** Positive errno, 0 for success. */
  readonly error: Uint16Array;
  /** Row of the request of the layer above that it was made for (a remap links them), -1 for none or not known. */
  readonly parent: Int32Array;
  /** Row of the request it was merged into, -1 for none. */
  readonly mergedInto: Int32Array;
  /** What a message said of why it was made (`l2-alloc`, `cow`, …): index into `causes`; 0 is ''. */
  readonly cause: Uint16Array;
  readonly causes: readonly string[];
  readonly processes: ReadonlyMap<number, string>;
  /** What our own recordings say of each device: the layer and the node or file, such as 'guest disk vm.qcow2'. */
  readonly deviceNames: ReadonlyMap<number, string>;
  /** The last time in the trace, ns. */
  readonly endNs: number;
}
