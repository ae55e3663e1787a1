import { compileFilter } from './filter.js';
import type { IoIndex } from './io-index.js';
import { firstAtOrAfter } from './order.js';
import type { BinQuery } from './window.js';

/** Requests that the device has at once: a step function, up by 1 at each D and down by 1 at each C; nothing is sampled. */
export interface Depth {
  readonly min: Uint32Array;
  readonly max: Uint32Array;
  /** Over time, within each column. */
  readonly mean: Float64Array;
  /** Each step in the window, where there are few enough; else null. `depth[i]` holds from `time[i]` on, `time[0]` is the window's start. */
  readonly steps: { readonly time: Float64Array; readonly depth: Uint32Array } | null;
  /** Over the whole window. */
  readonly peak: number;
  readonly average: number;
}

/** Steps are told one by one up to this many for each column. */
const STEPS_PER_COLUMN = 4;

export function binDepth(index: IoIndex, query: BinQuery): Depth {
  const { times, groups } = index.depthSteps;
  const { columns, from, to } = query;
  const changes = changesOf(compileFilter(index, query.filter));
  const offset = (changes.length - 1) / 2;
  let place = firstAtOrAfter(times, times.length, from);
  let depth = 0;
  for (let before = 0; before < place; before++) depth += changes[groups[before]! + offset]!;
  // a recording that lost records may complete what never began
  depth = Math.max(0, depth);
  const width = (to - from) / columns;
  const bins = { min: new Uint32Array(columns), max: new Uint32Array(columns), mean: new Float64Array(columns) };
  const steps = new Steps(STEPS_PER_COLUMN * columns, from, depth);
  let [since, peak, total] = [from, 0, 0];
  for (let column = 0; column < columns; column++) {
    const edge = column === columns - 1 ? to : from + (column + 1) * width;
    const last = firstAtOrAfter(times, times.length, edge);
    // a step exactly at the edge leaves nothing of the former depth in the column
    let fresh = place < last && times[place] === since;
    let least = depth;
    let most = depth;
    let area = 0;
    while (place < last) {
      const at = times[place]!;
      const before = depth;
      // steps at one time are one, so one request right after another is a depth of 1
      for (; place < last && times[place] === at; place++) depth += changes[groups[place]! + offset]!;
      if (depth < 0) depth = 0;
      if (fresh) least = most = depth;
      fresh = false;
      if (depth === before) continue;
      area += before * (at - since);
      since = at;
      if (depth < least) least = depth;
      if (depth > most) most = depth;
      steps.add(at, depth);
    }
    area += depth * (edge - since);
    since = edge;
    bins.min[column] = least;
    bins.max[column] = most;
    bins.mean[column] = area / width;
    if (most > peak) peak = most;
    total += area;
  }
  return { ...bins, peak, average: total / (to - from), steps: steps.all };
}

/** By a step's group, from the lowest below 0: what the step changes. */
function changesOf(pass: Uint8Array): Int8Array {
  const changes = new Int8Array(2 * pass.length + 1);
  for (let group = 0; group < pass.length; group++) {
    changes[pass.length + 1 + group] = pass[group]!;
    changes[pass.length - 1 - group] = -pass[group]!;
  }
  return changes;
}

/** The steps, as long as they are few. */
class Steps {
  private readonly times: Float64Array;
  private readonly depths: Uint32Array;
  private count = 1;

  constructor(private readonly most: number, from: number, depth: number) {
    this.times = new Float64Array(most + 1).fill(from, 0, 1);
    this.depths = new Uint32Array(most + 1).fill(depth, 0, 1);
  }

  add(at: number, depth: number): void {
    if (this.count <= this.most) {
      this.times[this.count] = at;
      this.depths[this.count] = depth;
    }
    this.count++;
  }

  get all(): Depth['steps'] {
    return this.count > this.most + 1 ? null : { time: this.times.slice(0, this.count), depth: this.depths.slice(0, this.count) };
  }
}
