/** What one measurement says of both peers: the best of its runs counts, for noise only ever spoils one. */
import { met, type Target } from './series.js';

export interface ComparisonOptions {
  readonly title: string;
  /** `MB/s`: the higher the better. `s` and `ms`: the lower. */
  readonly unit: 'MB/s' | 's' | 'ms';
  readonly peer: string;
  /** Ours against the peer's: at least this, or at most this where less is better. */
  readonly bound: number;
}

export class Comparison {
  readonly title: string;
  readonly ours: number[] = [];
  readonly theirs: number[] = [];
  readonly #options: ComparisonOptions;

  constructor(options: ComparisonOptions) {
    this.title = options.title;
    this.#options = options;
  }

  get #lessIsBetter(): boolean { return this.#options.unit !== 'MB/s'; }

  get target(): Target {
    return { what: this.title, value: this.#best(this.ours) / this.#best(this.theirs), bound: this.#options.bound, atMost: this.#lessIsBetter, unit: 'x' };
  }

  #best(runs: readonly number[]): number {
    return this.#lessIsBetter ? Math.min(...runs) : Math.max(...runs);
  }

  get line(): string {
    const { unit } = this.#options;
    const numbers = [this.ours, this.theirs].flatMap((runs) => [this.#best(runs), median(runs)]).map((value) => value.toFixed(unit === 'MB/s' ? 0 : 2).padStart(9)).join('');
    return `${this.title.padEnd(72)}${numbers} ${unit.padEnd(5)}${verdict(this.target)}`;
  }

  toJSON(): object {
    const { title, unit, peer } = this.#options;
    return { title, unit, ours: this.ours, peer, theirs: this.theirs };
  }
}

export const HEADING = `${''.padEnd(72)}${['ours', 'median', 'peer', 'median'].map((name) => name.padStart(9)).join('')}`;

export function verdict(target: Target): string {
  const { value, bound, atMost, unit } = target;
  return `${value.toFixed(2)}${unit}`.padStart(8) + `  ${atMost ? '<=' : '>='} ${bound}${unit} ${met(target) ? 'met' : 'MISSED'}`;
}

/** A target that is no ratio. */
export function plainLine(target: Target): string {
  return `${target.what.padEnd(72)}${''.padEnd(42)}${verdict(target)}`;
}

function median(runs: readonly number[]): number {
  return [...runs].sort((a, b) => a - b)[Math.floor(runs.length / 2)]!;
}
