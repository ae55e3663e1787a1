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

export function binDepth({ groups, devices, processes, begins, ends }: IoIndex, query: BinQuery): Depth {
  const pass = compileFilter({ groups, devices, processes }, query.filter);
  const { from, to } = query;
  const [upTimes, upGroups, downTimes, downGroups] = [begins.times, begins.groups, ends.times, ends.groups];
  const lastUp = firstAtOrAfter(upTimes, upTimes.length, to);
  const lastDown = firstAtOrAfter(downTimes, downTimes.length, to);
  let up = firstAtOrAfter(upTimes, upTimes.length, from);
  let down = firstAtOrAfter(downTimes, downTimes.length, from);
  const bins = new DepthBins(query, Math.max(0, counted(upGroups, up, pass) - counted(downGroups, down, pass)));
  while (up < lastUp || down < lastDown) {
    const upAt = up < lastUp ? upTimes[up]! : Infinity;
    const downAt = down < lastDown ? downTimes[down]! : Infinity;
    const at = upAt <= downAt ? upAt : downAt;
    // steps at one time are one, so one request right after another is a depth of 1
    let change = 0;
    for (; up < lastUp && upTimes[up] === at; up++) change += pass[upGroups[up]!]!;
    for (; down < lastDown && downTimes[down] === at; down++) change -= pass[downGroups[down]!]!;
    if (change !== 0) bins.step(at, change);
  }
  return bins.finish();
}

function counted(groups: Uint32Array, until: number, pass: Uint8Array): number {
  let count = 0;
  for (let place = 0; place < until; place++) count += pass[groups[place]!]!;
  return count;
}

class DepthBins {
  private readonly least: Uint32Array;
  private readonly most: Uint32Array;
  private readonly area: Float64Array;
  private readonly width: number;
  private readonly stepTimes: Float64Array;
  private readonly stepDepths: Uint32Array;
  private steps = 1;
  private column = 0;
  private columnStart: number;
  private since: number;

  constructor(private readonly query: BinQuery, private depth: number) {
    const { columns, from, to } = query;
    this.least = new Uint32Array(columns);
    this.most = new Uint32Array(columns);
    this.area = new Float64Array(columns);
    this.width = (to - from) / columns;
    this.stepTimes = new Float64Array(STEPS_PER_COLUMN * columns + 1).fill(from, 0, 1);
    this.stepDepths = new Uint32Array(STEPS_PER_COLUMN * columns + 1).fill(depth, 0, 1);
    this.columnStart = from;
    this.since = from;
    this.least[0] = this.most[0] = depth;
  }

  step(at: number, change: number): void {
    this.advance(at);
    // a recording that lost records may complete what never began
    const depth = Math.max(0, this.depth + change);
    this.depth = depth;
    // a step exactly at the edge leaves nothing of the former depth in the column
    const fresh = at === this.columnStart;
    if (fresh || depth < this.least[this.column]!) this.least[this.column] = depth;
    if (fresh || depth > this.most[this.column]!) this.most[this.column] = depth;
    if (this.steps < this.stepTimes.length) {
      this.stepTimes[this.steps] = at;
      this.stepDepths[this.steps] = depth;
    }
    this.steps++;
  }

  finish(): Depth {
    const { from, to } = this.query;
    this.advance(to);
    const { steps, width } = this;
    let peak = 0;
    let total = 0;
    for (let column = 0; column < this.area.length; column++) {
      peak = Math.max(peak, this.most[column]!);
      total += this.area[column]!;
    }
    const few = steps <= this.stepTimes.length;
    return {
      min: this.least, max: this.most, mean: this.area.map((area) => area / width), peak, average: total / (to - from),
      steps: few ? { time: this.stepTimes.slice(0, steps), depth: this.stepDepths.slice(0, steps) } : null,
    };
  }

  private advance(at: number): void {
    const { columns, from } = this.query;
    while (this.column < columns - 1) {
      const edge = from + (this.column + 1) * this.width;
      if (at < edge) break;
      this.area[this.column] = this.area[this.column]! + this.depth * (edge - this.since);
      this.since = edge;
      this.columnStart = edge;
      this.column++;
      this.least[this.column] = this.most[this.column] = this.depth;
    }
    this.area[this.column] = this.area[this.column]! + this.depth * (at - this.since);
    this.since = at;
  }
}
