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

export const binOf = (time: number, { from, to, columns }: BinQuery): number => Math.min(columns - 1, Math.max(0, Math.floor((time - from) * (columns / (to - from)))));
