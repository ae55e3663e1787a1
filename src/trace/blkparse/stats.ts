/** What blkparse counts: per CPU, per device and per process, and how it prints that. */

/** Rows of two: reads, then writes. */
export const Count = {
  QUEUED: 0, ISSUED: 2, REQUEUED: 4, COMPLETED: 6, MERGED: 8,
  QUEUED_KB: 10, ISSUED_KB: 12, COMPLETED_KB: 14, MERGED_KB: 16,
  /** What is left of each request beyond its whole KiB. */
  QUEUED_B: 18, ISSUED_B: 20, COMPLETED_B: 22, MERGED_B: 24,
  PC_QUEUED: 26, PC_ISSUED: 28, PC_REQUEUED: 30, PC_COMPLETED: 32,
  PC_QUEUED_KB: 34, PC_ISSUED_KB: 36, PC_QUEUED_B: 38, PC_ISSUED_B: 40,
  /** By plugging ended, by its timer. */
  UNPLUGS: 42,
} as const;

const LENGTH = 44;

export type IoStats = Float64Array;

export function newStats(): IoStats {
  return new Float64Array(LENGTH);
}

/** One request of a kind whose amount is told, too. */
export function countIo(stats: IoStats, kind: number, kb: number, b: number, write: number, bytes: number): void {
  stats[kind + write] = stats[kind + write]! + 1;
  stats[kb + write] = stats[kb + write]! + Math.floor(bytes / 1024);
  stats[b + write] = stats[b + write]! + bytes % 1024;
}

/** A completed one: blkparse takes its bytes for a signed number. */
export function countCompleted(stats: IoStats, write: number, bytes: number): void {
  stats[Count.COMPLETED + write] = stats[Count.COMPLETED + write]! + 1;
  stats[Count.COMPLETED_KB + write] = stats[Count.COMPLETED_KB + write]! + Math.floor((bytes < 2 ** 31 ? bytes : bytes - 2 ** 32) / 1024);
  stats[Count.COMPLETED_B + write] = stats[Count.COMPLETED_B + write]! + bytes % 1024;
}

/** A queued packet command. The whole KiB of reads blkparse adds to those of all other reads. */
export function countPacketQueued(stats: IoStats, write: number, bytes: number): void {
  countIo(stats, Count.PC_QUEUED, write === 1 ? Count.PC_QUEUED_KB : Count.QUEUED_KB, Count.PC_QUEUED_B, write, bytes);
}

/** One that goes back: its amount counts as not issued. Less than nothing is a huge number then, as in C. */
export function countRequeue(stats: IoStats, kind: number, kb: number, b: number, write: number, bytes: number): void {
  stats[kind + write] = stats[kind + write]! + 1;
  stats[kb + write] = stats[kb + write]! - Math.floor(bytes / 1024);
  stats[b + write] = stats[b + write]! - bytes % 1024;
}

const SUFFIXES = ['', 'K', 'M', 'G', 'P'];

function unsigned(value: number): bigint {
  return BigInt.asUintN(64, BigInt(value));
}

function scaled(value: bigint, suffix: number): string {
  let number = value;
  let at = suffix;
  for (; number > 1_000_000n && at < SUFFIXES.length - 1; at++) number /= 1000n;
  return `${number}`.padStart(8) + SUFFIXES[at]!;
}

const many = (value: number): string => scaled(unsigned(value), 0);
const amount = (kb: number, b: number): string => `${scaled(BigInt.asUintN(64, unsigned(kb) + unsigned(b) / 1024n), 1)}iB`;
const plain = (value: number): string => `${unsigned(value)}`.padStart(8);

/** The block below a title. `depth` is told per CPU only. */
export function statsText(title: string, stats: IoStats, depth: readonly [number, number] | null): string {
  const io = (index: number, kb: number, b: number): string => `${many(stats[index]!)}, ${amount(stats[kb]!, stats[b]!)}`;
  const row = (read: string, write: string, kind: number, kb: number, b: number): string => (
    ` ${read.padEnd(16)} ${io(kind, kb, b)}\t ${write.padEnd(17)} ${io(kind + 1, kb + 1, b + 1)}\n`);
  const bare = (read: string, write: string, kind: number): string => ` ${read.padEnd(16)} ${many(stats[kind]!)}\t\t ${write.padEnd(17)} ${many(stats[kind + 1]!)}\n`;
  const pair = (left: string, right: string, a: number, b: number): string => ` ${left.padEnd(16)} ${plain(a)}${' '.repeat(8)}\t ${right.padEnd(17)} ${plain(b)}\n`;
  const hasPc = stats.subarray(Count.PC_QUEUED, Count.PC_QUEUED_KB).some((value) => value !== 0);
  return `${title}\n` +
    row('Reads Queued:', 'Writes Queued:', Count.QUEUED, Count.QUEUED_KB, Count.QUEUED_B) +
    row('Read Dispatches:', 'Write Dispatches:', Count.ISSUED, Count.ISSUED_KB, Count.ISSUED_B) +
    bare('Reads Requeued:', 'Writes Requeued:', Count.REQUEUED) +
    row('Reads Completed:', 'Writes Completed:', Count.COMPLETED, Count.COMPLETED_KB, Count.COMPLETED_B) +
    row('Read Merges:', 'Write Merges:', Count.MERGED, Count.MERGED_KB, Count.MERGED_B) +
    (depth === null ? '' : pair('Read depth:', 'Write depth:', ...depth)) +
    (hasPc ? row('PC Reads Queued:', 'PC Writes Queued:', Count.PC_QUEUED, Count.PC_QUEUED_KB, Count.PC_QUEUED_B) +
      row('PC Read Disp.:', 'PC Write Disp.:', Count.PC_ISSUED, Count.PC_ISSUED_KB, Count.PC_ISSUED_B) +
      bare('PC Reads Req.:', 'PC Writes Req.:', Count.PC_REQUEUED) +
      bare('PC Reads Compl.:', 'PC Writes Compl.:', Count.PC_COMPLETED) : '') +
    pair('IO unplugs:', 'Timer unplugs:', stats[Count.UNPLUGS]!, stats[Count.UNPLUGS + 1]!);
}

/** The longest waits of a process, ns: allocation, dispatch, completion, each of reads and of writes. */
export function waitsText(waits: Float64Array): string {
  const microseconds = (index: number): string => `${Math.floor(waits[index]! / 1000)}`.padStart(8);
  return ['Allocation', 'Dispatch', 'Completion'].map((what, index) => {
    const title = `${what} wait:`;
    return ` ${title.padEnd(16)} ${microseconds(2 * index)}${' '.repeat(8)}\t ${title.padEnd(17)} ${microseconds(2 * index + 1)}\n`;
  }).join('');
}
