/** Time and chance are parameters, so that the same code runs under a simulator and replays from a seed. */

export interface Clock {
  /** Wall-clock time in milliseconds since the epoch. */
  wallMs(): number;
  /** Monotonic time in milliseconds, with a fraction. */
  monotonicMs(): number;
  /** A signal ends the sleep early; that is no error. Nobody sleeps for longer than 24 days. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

const { hrtime } = process;

/** Monotonic milliseconds with a fraction. For those who ask often: as called here, the compiler makes neither a call nor an object of it. */
export const preciseMs = (): number => {
  const now = hrtime();
  return now[0] * 1000 + now[1] / 1e6;
};

/** A timer of Node's that is set for longer fires at once. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => {
    // performance.now() tells the same, but its first use loads modules for as long as a short command takes to do its work
    const [seconds, nanoseconds] = process.hrtime();
    return seconds * 1000 + nanoseconds / 1e6;
  },
  sleep: (ms, signal) => new Promise((resolve) => {
    if (signal?.aborted === true) return resolve();
    const wake = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', wake);
      resolve();
    };
    const timer = setTimeout(wake, Math.min(ms, MAX_TIMER_MS));
    signal?.addEventListener('abort', wake);
  }),
};

/** Seeded random numbers (xoshiro128**): the same seed gives the same sequence on every machine. */
export class Random {
  readonly #state = new Uint32Array(4);

  constructor(seed: number) {
    // splitmix32 spreads the seed: xoshiro must not start from a sparse state
    let z = Math.floor(seed) >>> 0;
    for (let i = 0; i < 4; i++) {
      z = (z + 0x9e37_79b9) >>> 0;
      let x = Math.imul(z ^ (z >>> 16), 0x85eb_ca6b);
      x = Math.imul(x ^ (x >>> 13), 0xc2b2_ae35);
      this.#state[i] = (x ^ (x >>> 16)) >>> 0;
    }
  }

  /** An integer in [0, 2^32). */
  next32(): number {
    const s = this.#state;
    const s1 = s[1]!;
    const rotated = Math.imul(s1, 5);
    const result = Math.imul((rotated << 7) | (rotated >>> 25), 9) >>> 0;
    s[2] = s[2]! ^ s[0]!;
    s[3] = s[3]! ^ s1;
    s[1] = s1 ^ s[2];
    s[0] = s[0]! ^ s[3];
    s[2] = s[2] ^ (s1 << 9);
    s[3] = (s[3] << 11) | (s[3] >>> 21);
    return result;
  }

  /** An integer in [0, limit). */
  below(limit: number): number {
    const high = this.next32() % 0x20_0000;
    return (high * 0x1_0000_0000 + this.next32()) % limit;
  }

  chance(probability: number): boolean {
    return this.next32() < probability * 0x1_0000_0000;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  fill(into: Uint8Array): void {
    let index = 0;
    for (; index + 4 <= into.length; index += 4) {
      const word = this.next32();
      into[index] = word;
      into[index + 1] = word >>> 8;
      into[index + 2] = word >>> 16;
      into[index + 3] = word >>> 24;
    }
    for (; index < into.length; index++) into[index] = this.next32();
  }
}
