/** How often each of many numbers occurs, in columns: a Map of numbers beyond 31 bits makes an object for each. */
export class Counts {
  /** Numbers told apart. */
  size = 0;
  private keys = new Float64Array(1024).fill(-1);
  private times = new Float64Array(1024);
  private readonly limit: number;

  constructor(limit: number) {
    this.limit = limit;
  }

  /** `key` is not negative. False if it is a new one, and there are as many as the limit allows. */
  add(key: number): boolean {
    const at = this.find(key);
    if (this.keys[at] !== key) {
      if (this.size >= this.limit) return false;
      this.size++;
      this.keys[at] = key;
      this.times[at] = 1;
      if (this.size * 2 > this.keys.length) this.grow();
      return true;
    }
    this.times[at]!++;
    return true;
  }

  /** The numbers, in ascending order. */
  get sorted(): Float64Array {
    return this.keys.filter((key) => key !== -1).sort();
  }

  timesOf(key: number): number {
    return this.times[this.find(key)]!;
  }

  /** How often the commonest occurs. */
  get most(): number {
    return this.times.reduce((most, times) => (times > most ? times : most), 0);
  }

  private find(key: number): number {
    const mask = this.keys.length - 1;
    const mixed = Math.imul(key ^ Math.floor(key / 0x1_0000_0000), 0x9e37_79b1);
    let at = (mixed ^ (mixed >>> 15)) & mask;
    while (this.keys[at] !== key && this.keys[at] !== -1) at = (at + 1) & mask;
    return at;
  }

  private grow(): void {
    const { keys, times } = this;
    this.keys = new Float64Array(keys.length * 2).fill(-1);
    this.times = new Float64Array(keys.length * 2);
    for (let from = 0; from < keys.length; from++) {
      if (keys[from] === -1) continue;
      const at = this.find(keys[from]!);
      this.keys[at] = keys[from]!;
      this.times[at] = times[from]!;
    }
  }
}
