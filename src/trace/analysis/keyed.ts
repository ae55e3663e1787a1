/** One of something for each number, such as a device; those beyond a limit share one, so that a trace that is garbage takes no memory. */
export class Keyed<T> {
  /** In the order of being seen. */
  readonly all = new Map<number, T>();
  private readonly make: (key: number) => T;
  private readonly limit: number;
  private lastKey = NaN;
  private last: T | null = null;

  constructor(limit: number, make: (key: number) => T) {
    this.limit = limit;
    this.make = make;
  }

  /** The one that those beyond the limit share has the key `OTHERS`. */
  get(key: number): T {
    if (key === this.lastKey) return this.last!;
    let found = this.all.get(key);
    if (found === undefined) {
      const own = this.all.size < this.limit ? key : OTHERS;
      found = this.all.get(own);
      if (found === undefined) {
        found = this.make(own);
        this.all.set(own, found);
      }
    }
    this.lastKey = key;
    this.last = found;
    return found;
  }
}

export const OTHERS = -1;
/** Of which a trace has more is no machine's. */
export const MAX_DEVICES = 256;
export const MAX_PROCESSES = 1024;
