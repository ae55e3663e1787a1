import type { Filter } from './filter.js';

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
