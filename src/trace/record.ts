/**
 * The words of blktrace's binary format (Linux, include/uapi/linux/blktrace_api.h): one record is a header and a payload of
 * `pduLength` bytes; `action` is a code in its low byte and categories in its upper half.
 */

/** Codes of actions, with the letter that blkparse prints. */
export const Action = {
  QUEUE: 1, BACK_MERGE: 2, FRONT_MERGE: 3, GET_REQUEST: 4, SLEEP: 5, REQUEUE: 6, ISSUE: 7, COMPLETE: 8, PLUG: 9, UNPLUG: 10,
  UNPLUG_TIMER: 11, INSERT: 12, SPLIT: 13, BOUNCE: 14, REMAP: 15, ABORT: 16, DRIVER_DATA: 17, ZONE_PLUG: 18, ZONE_UNPLUG: 19,
} as const;

/** Codes of a record of the category NOTIFY. */
export const Notify = { PROCESS: 0, TIMESTAMP: 1, MESSAGE: 2 } as const;

/** Set in the action where a payload begins with the 64-bit id of a cgroup. */
export const CGROUP_FLAG = 0x100;

/** Categories, as bits above the lower half of an action. */
export const Category = {
  READ: 0x1, WRITE: 0x2, FLUSH: 0x4, SYNC: 0x8, QUEUE: 0x10, REQUEUE: 0x20, ISSUE: 0x40, COMPLETE: 0x80, FS: 0x100, PC: 0x200,
  NOTIFY: 0x400, AHEAD: 0x800, META: 0x1000, DISCARD: 0x2000, DRIVER_DATA: 0x4000, FUA: 0x8000,
  // version 2 of the format only
  ZONE_APPEND: 0x1_0000, ZONE_RESET: 0x2_0000, ZONE_RESET_ALL: 0x4_0000, ZONE_FINISH: 0x8_0000, ZONE_OPEN: 0x10_0000,
  ZONE_CLOSE: 0x20_0000, WRITE_ZEROES: 0x40_0000,
} as const;

export const SECTOR_BYTES = 512;
/** Of a header, in the versions 7 and 8 of the format. */
export const HEADER_BYTES = { 7: 48, 8: 64 } as const;
/** The upper three bytes of each record; the lowest is the version. */
export const MAGIC = 0x6561_7400;

/** The kernel's dev_t: 12 bits major, 20 bits minor. */
export const deviceOf = (major: number, minor: number): number => major * 0x10_0000 + minor;
export const majorOf = (device: number): number => Math.floor(device / 0x10_0000);
export const minorOf = (device: number): number => device % 0x10_0000;

/** Our devices: never the number of one that exists, for fio replays writes onto those. */
export const QUIESCE_MAJOR = 4000;

/**
 * Records in columns, in order of time: what readers hand on and what analysis takes. A batch is lent until the next one is asked for.
 * The columns may be longer than `count`.
 */
export interface RecordBatch {
  readonly count: number;
  /** ns since the first event or message of the trace; exact up to 104 days. Other notifications keep their place in the order. */
  readonly time: Float64Array;
  /** 0 for notifications and what the kernel did not count. */
  readonly sequence: Uint32Array;
  /** In units of 512 bytes. */
  readonly sector: Float64Array;
  readonly bytes: Uint32Array;
  /** `Action` or, with Category.NOTIFY, `Notify`. */
  readonly action: Uint8Array;
  /** Bits of `Category`. */
  readonly category: Uint32Array;
  readonly pid: Uint32Array;
  readonly device: Uint32Array;
  readonly cpu: Uint32Array;
  /** As it stands in the record: negative errnos as 16 bits without sign. */
  readonly error: Uint16Array;
  /** Offset of the payload within `payloads`, without the id of a cgroup, and its length. */
  readonly pduOffset: Uint32Array;
  readonly pduLength: Uint16Array;
  /** Numbers in those of timestamps have their lowest byte first, whatever the file has; in those of remap, split and unplug the upper byte comes first. */
  readonly payloads: Uint8Array;
}

/** What reading found besides records: nothing is skipped without being counted. */
export interface ReadFindings {
  /** Bytes that are no record (a wrong magic, a cut end). */
  skippedBytes: number;
  /** Places where that happened. */
  skips: number;
  /** Records that were earlier than one before them in the same file. They are put in order; one that comes too late for that gets the last time told. */
  outOfOrder: number;
}

/** A trace as a stream of batches in order of time. */
export interface TraceReader extends AsyncIterable<RecordBatch> {
  readonly findings: ReadFindings;
  /** Bytes read so far, and of all files; null for a stream. */
  readonly progress: { readonly bytes: number; readonly total: number | null };
  /** Names of processes by pid, as far as read. */
  readonly processes: ReadonlyMap<number, string>;
  /** ns since 1970 of time 0, or null where the trace does not tell. */
  readonly epochNs: bigint | null;
}
