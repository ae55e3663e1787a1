import { SECTOR_BYTES } from '../trace/record.js';
import { POWERS, powerOf, SEEK_BUCKETS, seekBucket } from './buckets.js';
import { compileFilter } from './filter.js';
import type { IoIndex } from './io-index.js';
import { OPS, READ, WRITE } from './operations.js';
import { firstAtOrAfter } from './order.js';
import type { BinQuery } from './window.js';

/** How large requests are, how far they jump, and how long they go on without a jump: in order of being queued. */
export interface Shapes {
  /** Requests by op and power of two of their bytes. */
  readonly sizes: Uint32Array;
  /** Requests of reads, then of writes, by distance from the end of the former in the same direction on the same device. */
  readonly seeks: Uint32Array;
  /** Runs of reads, then of writes, by power of two of their requests: each request of a process starts where its former ended. */
  readonly runs: Uint32Array;
}

/** Streams are told apart for this many processes; the others share one. */
const STREAMS = 256;

export function binShapes(index: IoIndex, query: BinQuery): Shapes {
  const { table, op } = index;
  const pass = compileFilter(index, query.filter);
  const sizes = new Uint32Array(OPS.length * POWERS);
  const seeks = new Uint32Array(2 * SEEK_BUCKETS);
  const runs = new Uint32Array(2 * POWERS);
  const heads = new Float64Array(index.devices.length * 2).fill(-1);
  const streamEnds = new Float64Array(index.devices.length * 2 * STREAMS).fill(-1);
  const streamLengths = new Uint32Array(streamEnds.length);
  const last = firstAtOrAfter(index.at, table.count, query.to);
  for (let row = firstAtOrAfter(index.at, table.count, query.from); row < last; row++) {
    if (pass[index.group[row]!] === 0) continue;
    const kind = op[row]!;
    const length = table.bytes[row]!;
    if (length > 0) sizes[kind * POWERS + powerOf(length)]!++;
    if (kind !== READ && kind !== WRITE) continue;
    const sector = table.sector[row]!;
    const end = sector + length / SECTOR_BYTES;
    const head = index.device[row]! * 2 + kind;
    if (heads[head]! >= 0) seeks[kind * SEEK_BUCKETS + seekBucket(sector - heads[head]!)]!++;
    heads[head] = end;
    const stream = head * STREAMS + Math.min(index.process[row]!, STREAMS - 1);
    if (streamEnds[stream] !== sector) {
      endRun(runs, kind, streamLengths[stream]!);
      streamLengths[stream] = 0;
    }
    streamLengths[stream]!++;
    streamEnds[stream] = end;
  }
  for (let stream = 0; stream < streamLengths.length; stream++) endRun(runs, Math.floor(stream / STREAMS) % 2, streamLengths[stream]!);
  return { sizes, seeks, runs };
}

function endRun(runs: Uint32Array, kind: number, requests: number): void {
  if (requests > 0) runs[kind * POWERS + powerOf(requests)]!++;
}
