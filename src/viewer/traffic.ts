import { BUCKETS_PER_ROW, LATENCY_BUCKETS, NO_LATENCY, latencyAt, percentile } from './buckets.js';
import { compileFilter } from './filter.js';
import type { IoIndex } from './io-index.js';
import { OPS } from './operations.js';
import { firstAtOrAfter } from './order.js';
import type { BinQuery } from './window.js';

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
  const { times, groups, bytes: lengths, [query.latency]: latency } = index.ends;
  const { columns, heatColumns, from } = query;
  const pass = compileFilter(index, query.filter);
  const ops = Uint8Array.from(index.groups, ({ op }) => op);
  const ios = new Uint32Array(OPS.length * columns);
  const bytes = new Float64Array(OPS.length * columns);
  const fine = new Uint32Array(heatColumns * LATENCY_BUCKETS);
  const perNs = columns / (query.to - from);
  const heatPerColumn = heatColumns / columns;
  const last = firstAtOrAfter(times, times.length, query.to);
  for (let place = firstAtOrAfter(times, times.length, from); place < last; place++) {
    const group = groups[place]!;
    if (pass[group] === 0) continue;
    const at = (times[place]! - from) * perNs;
    // rounding may reach the column after the last
    const cell = ops[group]! * columns + Math.min(columns - 1, Math.floor(at));
    ios[cell]!++;
    bytes[cell] = bytes[cell]! + lengths[place]!;
    const bucket = latency[place]!;
    if (bucket !== NO_LATENCY) fine[Math.min(heatColumns - 1, Math.floor(at * heatPerColumn)) * LATENCY_BUCKETS + bucket]!++;
  }
  return { ios, bytes, totalIos: totals(ios, columns), totalBytes: totals(bytes, columns), heat: heatMap(fine, heatColumns) };
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
  for (let column = 0, place = 0; column < columns; column++) {
    for (let bucket = 0; bucket < LATENCY_BUCKETS; bucket++, place++) {
      const count = fine[place]!;
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
      counts[cell] = counts[cell]! + fine[column * LATENCY_BUCKETS + bucket]!;
    }
  }
  const quantiles = (share: number): Float64Array => perColumn.map((count, column) => percentile(fine, column * LATENCY_BUCKETS, count, share));
  return {
    columns, rows, counts, from: latencyAt(lowRow * BUCKETS_PER_ROW), factor: latencyAt(BUCKETS_PER_ROW), p50: quantiles(0.5), p99: quantiles(0.99),
    overall: { p50: percentile(all, 0, total, 0.5), p99: percentile(all, 0, total, 0.99), max: percentile(all, 0, total, 1) },
  };
}
