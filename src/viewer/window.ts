import type { Filter } from './filter.js';
import { firstAtOrAfter } from './order.js';

/** A stretch of time, ns: [from, to). */
export interface TimeSpan {
  readonly from: number;
  readonly to: number;
}

/** What a panel of `columns` equal bins over a window is asked for. */
export interface BinQuery extends TimeSpan {
  readonly columns: number;
  readonly filter: Filter;
}

/**
 * Places in ordered times at which the bins of a window begin, and last where the window ends. A pass over the places between two of
 * them needs no times at all: that is what makes passes over millions of requests quick.
 */
export function edgesOf(times: Float64Array, count: number, { from, to }: TimeSpan, columns: number): Uint32Array {
  const edges = new Uint32Array(columns + 1);
  for (let column = 0; column <= columns; column++) edges[column] = firstAtOrAfter(times, count, column === columns ? to : from + ((to - from) * column) / columns);
  return edges;
}
