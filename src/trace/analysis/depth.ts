/** Depths above are counted as this one. */
const MAX_DEPTH = 65_535;

/** A queue's depth as the step function that it is: how long it stood at each depth. Times are ns, and do not go back. */
export class DepthMeter {
  depth = 0;
  max = 0;
  /** Stretches in which it was not empty; those that touch are one. */
  busyPeriods = 0;
  private times = new Float64Array(16);
  private since = NaN;
  private emptiedAt = NaN;

  enter(time: number): void {
    this.passTo(time);
    if (this.depth === 0 && time !== this.emptiedAt) this.busyPeriods++;
    this.depth++;
    if (this.depth > this.max) this.max = this.depth;
  }

  leave(time: number): void {
    this.passTo(time);
    if (this.depth === 0) return;
    this.depth--;
    if (this.depth === 0) this.emptiedAt = time;
  }

  /** ns at this depth, from the first request on. */
  at(depth: number): number {
    return this.times[depth] ?? 0;
  }

  get depths(): number {
    return Math.min(this.max, MAX_DEPTH) + 1;
  }

  get busyNs(): number {
    let sum = 0;
    for (let depth = 1; depth < this.times.length; depth++) sum += this.times[depth]!;
    return sum;
  }

  /** Mean while it was not empty; NaN if it always was. */
  get meanBusy(): number {
    let area = 0;
    for (let depth = 1; depth < this.times.length; depth++) area += depth * this.times[depth]!;
    return area / this.busyNs;
  }

  /** When it was empty last, or, if it is not, when it last changed. */
  get lastNs(): number {
    return this.depth === 0 ? this.emptiedAt : this.since;
  }

  private passTo(time: number): void {
    if (Number.isNaN(this.since)) this.since = time;
    if (time <= this.since) return;
    const depth = Math.min(this.depth, MAX_DEPTH);
    if (depth >= this.times.length) {
      const grown = new Float64Array(Math.max(depth + 1, this.times.length * 2));
      grown.set(this.times);
      this.times = grown;
    }
    this.times[depth]! += time - this.since;
    this.since = time;
  }
}
