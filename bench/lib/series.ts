/** Timed runs of one peer. Noise only ever slows a run, so the best counts; the median shows how noisy it was. */
export class Series {
  readonly name: string;
  readonly #runs: { readonly seconds: number; readonly bytes: number }[] = [];

  constructor(name: string) {
    this.name = name;
  }

  add(seconds: number, bytes: number): void {
    this.#runs.push({ seconds, bytes });
  }

  get empty(): boolean { return this.#runs.length === 0; }
  /** Bytes per second. */
  get best(): number { return Math.max(...this.#rates()); }
  get median(): number { return this.#rates()[Math.floor(this.#runs.length / 2)]!; }

  #rates(): number[] {
    return this.#runs.map(({ seconds, bytes }) => bytes / seconds).sort((a, b) => a - b);
  }
}

/** A promise of the project: a ratio (or a size) and its bound. */
export interface Target {
  readonly what: string;
  readonly value: number;
  readonly bound: number;
  readonly atMost: boolean;
  readonly unit: string;
}

export function met({ value, bound, atMost }: Target): boolean {
  return atMost ? value <= bound : value >= bound;
}
