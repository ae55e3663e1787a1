import { compileFilter } from './filter.js';
import type { DepthSteps, IoIndex } from './io-index.js';
import { edgesOf, type BinQuery } from './window.js';

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
  const { depthSteps } = index;
  const { times } = depthSteps;
  const { columns, from, to } = query;
  const changes = changesOf(compileFilter(index, query.filter));
  const edges = edgesOf(times, times.length, query, columns);
  const before = depthBefore(depthSteps, edges[0]!, changes);
  const bins = { min: new Uint32Array(columns), max: new Uint32Array(columns), mean: new Float64Array(columns) };
  const walk: Walk = { depth: before, since: from, area: 0, least: 0, most: 0, count: 0 };
  let [peak, total] = [0, 0];
  for (let column = 0; column < columns; column++) {
    walk.area = 0;
    walk.least = Infinity;
    walk.most = 0;
    walkColumn(depthSteps, edges[column]!, edges[column + 1]!, changes, walk);
    hold(walk, column === columns - 1 ? to : from + ((to - from) * (column + 1)) / columns);
    bins.min[column] = walk.least;
    bins.max[column] = walk.most;
    bins.mean[column] = (walk.area * columns) / (to - from);
    if (walk.most > peak) peak = walk.most;
    total += walk.area;
  }
  const steps = walk.count > STEPS_PER_COLUMN * columns ? null : stepsOf(depthSteps, edges, changes, { count: walk.count, from, before });
  return { ...bins, peak, average: total / (to - from), steps };
}

/** Where a walk along the steps stands; `area`, `least` and `most` are of the column at hand. */
interface Walk {
  depth: number;
  /** Of the last step, or the column's beginning. */
  since: number;
  /** Depth times ns, until `since`. */
  area: number;
  least: number;
  most: number;
  /** Steps so far; those at one time may count as one. */
  count: number;
}

/** The depth stays as it is until `time`. */
function hold(walk: Walk, time: number): void {
  walk.area += walk.depth * (time - walk.since);
  walk.since = time;
  walk.least = Math.min(walk.least, walk.depth);
  walk.most = Math.max(walk.most, walk.depth);
}

/** A function of its own, since V8 makes much slower code of a loop over millions within the call that began it. */
function walkColumn({ times, groups }: DepthSteps, first: number, last: number, changes: Int8Array, walk: Walk): void {
  const middle = (changes.length - 1) / 2;
  let { depth, since, area, least, most, count } = walk;
  for (let place = first; place < last; place++) {
    const change = changes[groups[place]! + middle]!;
    if (change === 0) continue;
    const at = times[place]!;
    // of several steps at one time only the last leaves a depth, so one request right after another is a depth of 1
    if (at > since) {
      area += depth * (at - since);
      since = at;
      count++;
      if (depth < least) least = depth;
      if (depth > most) most = depth;
    }
    depth += change;
    if (depth < 0) depth = 0;
  }
  walk.depth = depth;
  walk.since = since;
  walk.area = area;
  walk.least = least;
  walk.most = most;
  walk.count = count;
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

/** Before the step at `place`. A recording that lost records may complete what never began. */
function depthBefore({ groups, every, known }: DepthSteps, place: number, changes: Int8Array): number {
  const middle = (changes.length - 1) / 2;
  const mark = Math.floor(place / every);
  let depth = 0;
  for (let group = 0; group < middle; group++) depth += known[mark * middle + group]! * changes[middle + 1 + group]!;
  for (let step = mark * every; step < place; step++) depth += changes[groups[step]! + middle]!;
  return Math.max(0, depth);
}

/** One by one, where they are few. */
function stepsOf({ times, groups }: DepthSteps, edges: Uint32Array, changes: Int8Array, { count, from, before }: { count: number; from: number; before: number }): Depth['steps'] {
  const middle = (changes.length - 1) / 2;
  const last = edges.at(-1)!;
  // one more for a step at the very beginning
  const steps = { time: new Float64Array(count + 2).fill(from, 0, 1), depth: new Uint32Array(count + 2).fill(before, 0, 1) };
  let [depth, next] = [before, 1];
  for (let place = edges[0]!; place < last;) {
    const at = times[place]!;
    let now = depth;
    for (; place < last && times[place] === at; place++) now += changes[groups[place]! + middle]!;
    now = Math.max(0, now);
    if (now === depth) continue;
    depth = now;
    steps.time[next] = at;
    steps.depth[next++] = now;
  }
  return { time: steps.time.slice(0, next), depth: steps.depth.slice(0, next) };
}
