import { Counts } from './counts.js';
import { Histogram } from './histogram.js';

/** Distances that are counted one by one; beyond, the commonest is that of these, and the median right within `HISTOGRAM_ERROR`. */
const MAX_EXACT = 8192;

/**
 * How far apart requests are that follow each other, in sectors: 0 where they touch or overlap, else from the end of the former up or
 * from its start down, as btt has it. The first one is that far from sector 0.
 */
export class Seeks {
  /** Exact count, sum and mean. */
  readonly distances = new Histogram();
  sequential = 0;
  private readonly exact = new Counts(MAX_EXACT);
  private complete = true;
  private start = 0;
  private end = 0;

  add(start: number, sectors: number): void {
    const end = start + sectors;
    let distance = 0;
    const touches = (this.start <= start && start <= this.end) || (this.start <= end && end <= this.end);
    if (!touches) distance = start > this.end ? start - this.end : this.start - start;
    if (start === this.end) this.sequential++;
    this.start = start;
    this.end = end;
    this.distances.add(distance);
    if (!this.exact.add(distance)) this.complete = false;
  }

  /** The lower of the two middle ones. */
  get median(): number {
    if (!this.complete) return this.distances.quantile(0.5);
    let rank = Math.ceil(this.distances.count / 2);
    for (const distance of this.exact.sorted) {
      rank -= this.exact.timesOf(distance);
      if (rank <= 0) return distance;
    }
    return NaN;
  }

  /** Those that occur most often, in order, and how often. */
  get mode(): { readonly distances: readonly number[]; readonly count: number } {
    const count = this.exact.most;
    return { distances: Array.from(this.exact.sorted.filter((distance) => this.exact.timesOf(distance) === count)), count };
  }
}
