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
  const pass = compileFilter(index, query.filter);
  const { time, change, count } = stepsOf(index, pass, query);
  const { columns, from, to } = query;
  const width = (to - from) / columns;
  const bins = { min: new Uint32Array(columns), max: new Uint32Array(columns), mean: new Float64Array(columns) };
  const depths = new Uint32Array(count + 1);
  let depth = depthBefore(index, pass, from);
  depths[0] = depth;
  let [next, since, peak, total] = [0, from, depth, 0];
  for (let column = 0; column < columns; column++) {
    const edge = column === columns - 1 ? to : from + (column + 1) * width;
    // a step exactly at the edge leaves nothing of the former depth in the column
    let least = next < count && time[next]! <= since ? 0xffff_ffff : depth;
    let most = least === depth ? depth : 0;
    let area = 0;
    for (; next < count && time[next]! < edge; next++) {
      area += depth * (time[next]! - since);
      since = time[next]!;
      // a recording that lost records may complete what never began
      depth = Math.max(0, depth + change[next]!);
      depths[next + 1] = depth;
      if (depth < least) least = depth;
      if (depth > most) most = depth;
    }
    area += depth * (edge - since);
    since = edge;
    bins.min[column] = least;
    bins.max[column] = most;
    bins.mean[column] = area / width;
    peak = Math.max(peak, most);
    total += area;
  }
  const few = count <= STEPS_PER_COLUMN * columns;
  return { ...bins, peak, average: total / (to - from), steps: few ? { time: Float64Array.of(from, ...time.subarray(0, count)), depth: depths } : null };
}

/** The steps in the window, in order; those at one time are one, so one request right after another is a depth of 1. */
function stepsOf({ begins, ends }: IoIndex, pass: Uint8Array, { from, to }: BinQuery): { time: Float64Array; change: Int32Array; count: number } {
  let up = firstAtOrAfter(begins.times, begins.times.length, from);
  let down = firstAtOrAfter(ends.times, ends.times.length, from);
  const lastUp = firstAtOrAfter(begins.times, begins.times.length, to);
  const lastDown = firstAtOrAfter(ends.times, ends.times.length, to);
  const time = new Float64Array(lastUp - up + lastDown - down);
  const change = new Int32Array(time.length);
  let count = 0;
  while (up < lastUp || down < lastDown) {
    const upAt = up < lastUp ? begins.times[up]! : Infinity;
    const downAt = down < lastDown ? ends.times[down]! : Infinity;
    const goesDown = downAt < upAt;
    const group = goesDown ? ends.groups[down++]! : begins.groups[up++]!;
    if (pass[group] === 0) continue;
    const at = goesDown ? downAt : upAt;
    if (count === 0 || time[count - 1] !== at) time[count++] = at;
    change[count - 1] = change[count - 1]! + (goesDown ? -1 : 1);
  }
  return { time, change, count };
}

function depthBefore({ table, begins }: IoIndex, pass: Uint8Array, time: number): number {
  const until = firstAtOrAfter(begins.times, begins.times.length, time);
  let depth = 0;
  for (let place = 0; place < until; place++) {
    if (pass[begins.groups[place]!] === 1 && !(table.completed[begins.rows[place]!]! < time)) depth++;
  }
  return depth;
}
