/**
 * Exclusive and shared locks over byte ranges, granted first come, first served: a request waits for every earlier
 * overlapping one it conflicts with, so no request starves. Two shared locks may overlap.
 */
export interface RangeHold {
  readonly start: number;
  readonly end: number;
  readonly exclusive: boolean;
}

interface Waiter {
  readonly hold: RangeHold;
  readonly grant: () => void;
}

function conflict(a: RangeHold, b: RangeHold): boolean {
  return (a.exclusive || b.exclusive) && a.start < b.end && b.start < a.end;
}

export class RangeLock {
  readonly #held = new Set<RangeHold>();
  /** How many of them are exclusive: shared locks among themselves need no search. */
  #exclusives = 0;
  #queue: Waiter[] = [];

  get heldCount(): number { return this.#held.size; }
  get held(): Iterable<RangeHold> { return this.#held; }

  /** Takes the range at once, or returns null where that would mean waiting. No allocation beyond the hold itself. */
  tryAcquire(start: number, end: number, exclusive = true): RangeHold | null {
    const hold: RangeHold = { start, end, exclusive };
    if (exclusive || this.#exclusives > 0 || this.#queue.length > 0) {
      for (const waiter of this.#queue) if (conflict(waiter.hold, hold)) return null;
      for (const other of this.#held) if (conflict(other, hold)) return null;
    }
    this.#hold(hold);
    return hold;
  }

  async acquire(start: number, end: number, exclusive = true): Promise<RangeHold> {
    const now = this.tryAcquire(start, end, exclusive);
    if (now !== null) return now;
    const hold: RangeHold = { start, end, exclusive };
    await new Promise<void>((grant) => this.#queue.push({ hold, grant }));
    return hold;
  }

  /** The first position in [start, end) that somebody else holds or waits for in a way that excludes us; `end` where there is none. */
  freeUntil(start: number, end: number): number {
    const wanted: RangeHold = { start, end, exclusive: true };
    let free = end;
    for (const other of this.#held) if (conflict(other, wanted)) free = Math.min(free, Math.max(start, other.start));
    for (const { hold } of this.#queue) if (conflict(hold, wanted)) free = Math.min(free, Math.max(start, hold.start));
    return free;
  }

  /** Takes more behind a hold, up to `end`, which `freeUntil` found free in the same turn. */
  extend(hold: RangeHold, end: number): RangeHold {
    return this.#exchange(hold, { ...hold, end })[0]!;
  }

  /** Makes two holds of one, each with its own release. */
  split(hold: RangeHold, at: number): readonly [RangeHold, RangeHold] {
    return this.#exchange(hold, { ...hold, end: at }, { ...hold, start: at }) as [RangeHold, RangeHold];
  }

  #exchange(hold: RangeHold, ...instead: RangeHold[]): readonly RangeHold[] {
    this.#held.delete(hold);
    if (hold.exclusive) this.#exclusives--;
    for (const one of instead) this.#hold(one);
    return instead;
  }

  release(hold: RangeHold): void {
    if (this.#held.delete(hold) && hold.exclusive) this.#exclusives--;
    if (this.#queue.length === 0) return;
    const still: Waiter[] = [];
    for (const waiter of this.#queue) {
      const blocked = still.some((earlier) => conflict(earlier.hold, waiter.hold)) ||
        [...this.#held].some((other) => conflict(other, waiter.hold));
      if (blocked) {
        still.push(waiter);
      } else {
        this.#hold(waiter.hold);
        waiter.grant();
      }
    }
    this.#queue = still;
  }

  #hold(hold: RangeHold): void {
    this.#held.add(hold);
    if (hold.exclusive) this.#exclusives++;
  }
}
