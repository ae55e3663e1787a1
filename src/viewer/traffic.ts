import { BUCKETS_PER_ROW, LATENCY_BUCKETS, latencyAt, percentile } from './buckets.js';
import { compileFilter } from './filter.js';
import type { Endings, IoIndex } from './io-index.js';
import { OPS } from './operations.js';
import { edgesOf, type BinQuery } from './window.js';

/** Buckets of a column, and NO_LATENCY. */
const STRIDE = LATENCY_BUCKETS + 1;

export type LatencyKind = 'q2c' | 'd2c';

export interface TrafficQuery extends BinQuery {
  readonly latency: LatencyKind;
  /** Columns of the heat map. */
  readonly heatColumns: number;
}

/** What was completed, by when it was. */
export interface Traffic {
  /** Per op, then per column. */
  readonly ios: Uint32Array;
  readonly bytes: Float64Array;
  /** Totals per op. */
  readonly totalIos: Float64Array;
  readonly totalBytes: Float64Array;
  readonly heat: HeatMap;
}

/** Latencies by when requests ended. Row 0 is the quickest. */
export interface HeatMap {
  readonly columns: number;
  readonly rows: number;
  /** Requests, by column and then row. */
  readonly counts: Uint32Array;
  /** ns at the lower edge of row 0; each row is `factor` times the one below. */
  readonly from: number;
  readonly factor: number;
  /** ns per column, NaN where nothing ended. */
  readonly p50: Float64Array;
  readonly p99: Float64Array;
  /** ns over the whole window. */
  readonly overall: { readonly p50: number; readonly p99: number; readonly max: number };
}

export function binTraffic(index: IoIndex, query: TrafficQuery): Traffic {
  const { columns, heatColumns } = query;
  const { times } = index.ends;
  const pass = compileFilter(index, query.filter);
  const edges = edgesOf(times, times.length, query, columns);
  const { ios, bytes } = sums(index, pass, edges);
  const fine = latencies(index, pass, heatColumns === columns ? edges : edgesOf(times, times.length, query, heatColumns), index.ends[query.latency]);
  return { ios, bytes, totalIos: totals(ios, columns), totalBytes: totals(bytes, columns), heat: heatMap(fine, heatColumns) };
}

function sums({ groups, ends }: IoIndex, pass: Uint8Array, edges: Uint32Array): Pick<Traffic, 'ios' | 'bytes'> {
  const columns = edges.length - 1;
  const ios = new Uint32Array(OPS.length * columns);
  const bytes = new Float64Array(OPS.length * columns);
  const found = new Uint32Array(groups.length);
  const moved = new Float64Array(groups.length);
  for (let column = 0; column < columns; column++) {
    sumColumn(ends, edges[column]!, edges[column + 1]!, found.fill(0), moved.fill(0));
    for (let group = 0; group < groups.length; group++) {
      if (pass[group] === 0) continue;
      const cell = groups[group]!.op * columns + column;
      ios[cell] = ios[cell]! + found[group]!;
      bytes[cell] = bytes[cell]! + moved[group]!;
    }
  }
  return { ios, bytes };
}

/** By group: to add up all is quicker than to ask which of them count. A function of its own, see depth's `walkColumn`. */
function sumColumn({ groups, bytes }: Endings, first: number, last: number, found: Uint32Array, moved: Float64Array): void {
  for (let place = first; place < last; place++) {
    const group = groups[place]!;
    found[group] = found[group]! + 1;
    moved[group] = moved[group]! + bytes[place]!;
  }
}

/** Per column, how many took how long; and beside that, of how many it is not known. */
function latencies({ ends: { groups } }: IoIndex, pass: Uint8Array, edges: Uint32Array, buckets: Uint16Array): Uint32Array {
  const fine = new Uint32Array((edges.length - 1) * STRIDE);
  for (let column = 0; column < edges.length - 1; column++) countColumn(groups, buckets, edges[column]!, edges[column + 1]!, pass, fine, column * STRIDE);
  return fine;
}

function countColumn(groups: Uint32Array, buckets: Uint16Array, first: number, last: number, pass: Uint8Array, fine: Uint32Array, base: number): void {
  for (let place = first; place < last; place++) {
    if (pass[groups[place]!] === 1) fine[base + buckets[place]!]!++;
  }
}

function totals(cells: Uint32Array | Float64Array, columns: number): Float64Array {
  const sums = new Float64Array(OPS.length);
  for (let cell = 0; cell < cells.length; cell++) {
    const op = Math.floor(cell / columns);
    sums[op] = sums[op]! + cells[cell]!;
  }
  return sums;
}

function heatMap(fine: Uint32Array, columns: number): HeatMap {
  const all = new Uint32Array(LATENCY_BUCKETS);
  const perColumn = new Float64Array(columns);
  let low = LATENCY_BUCKETS;
  let high = -1;
  for (let column = 0; column < columns; column++) {
    for (let bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
      const count = fine[column * STRIDE + bucket]!;
      if (count === 0) continue;
      all[bucket] = all[bucket]! + count;
      perColumn[column] = perColumn[column]! + count;
      if (bucket < low) low = bucket;
      if (bucket > high) high = bucket;
    }
  }
  const total = perColumn.reduce((sum, count) => sum + count, 0);
  const lowRow = total === 0 ? 0 : Math.floor(low / BUCKETS_PER_ROW);
  const rows = total === 0 ? 0 : Math.floor(high / BUCKETS_PER_ROW) - lowRow + 1;
  const counts = new Uint32Array(columns * rows);
  for (let column = 0; column < columns; column++) {
    for (let bucket = lowRow * BUCKETS_PER_ROW; bucket <= high; bucket++) {
      const cell = column * rows + Math.floor(bucket / BUCKETS_PER_ROW) - lowRow;
      counts[cell] = counts[cell]! + fine[column * STRIDE + bucket]!;
    }
  }
  const quantiles = (share: number): Float64Array => perColumn.map((count, column) => percentile(fine, column * STRIDE, count, share));
  return {
    columns, rows, counts, from: latencyAt(lowRow * BUCKETS_PER_ROW), factor: latencyAt(BUCKETS_PER_ROW), p50: quantiles(0.5), p99: quantiles(0.99),
    overall: { p50: percentile(all, 0, total, 0.5), p99: percentile(all, 0, total, 0.99), max: percentile(all, 0, total, 1) },
  };
}
