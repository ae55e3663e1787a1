/** Logarithmic buckets. Of latencies: 32 to each doubling, so a percentile read from them is off by 1.1 % at most. */

const PER_OCTAVE = 32;
/** Up to 2^40 ns, 18 minutes; what is longer goes into the last. */
export const LATENCY_BUCKETS = 40 * PER_OCTAVE;
/** What is not known is counted beside them. */
export const NO_LATENCY = LATENCY_BUCKETS;
/** Rows of a latency heat map to each doubling. */
const ROWS_PER_OCTAVE = 4;
export const BUCKETS_PER_ROW = PER_OCTAVE / ROWS_PER_OCTAVE;

/** NO_LATENCY for what is not known. */
export function latencyBucket(ns: number): number {
  if (!(ns >= 0)) return NO_LATENCY;
  if (ns < 1) return 0;
  return Math.min(Math.floor(Math.log2(ns) * PER_OCTAVE), LATENCY_BUCKETS - 1);
}

/** The lower end of a bucket; of one with a fraction, a point within it. */
export const latencyAt = (bucket: number): number => 2 ** (bucket / PER_OCTAVE);

/** The value below which `share` of the `total` counts at `from` lie; NaN where nothing was counted. */
export function percentile(counts: Uint32Array, from: number, total: number, share: number): number {
  if (total === 0) return Number.NaN;
  const wanted = Math.max(1, Math.ceil(total * share));
  let seen = 0;
  let bucket = 0;
  for (; bucket < LATENCY_BUCKETS; bucket++) {
    seen += counts[from + bucket]!;
    if (seen >= wanted) break;
  }
  return latencyAt(bucket + 0.5);
}

/** Sizes and run lengths: bucket n holds [2^n, 2^(n+1)). */
export const POWERS = 33;
export const powerOf = (value: number): number => 31 - Math.clz32(Math.min(value, 0xffff_ffff));

/** Seek distances in sectors, by sign and power of two: 0 in the middle, [2^n, 2^(n+1)) at the middle + n + 1. */
export const SEEK_MIDDLE = 40;
export const SEEK_BUCKETS = 2 * SEEK_MIDDLE + 1;
export function seekBucket(sectors: number): number {
  if (sectors === 0) return SEEK_MIDDLE;
  const far = Math.abs(sectors);
  const power = far < 0x8000_0000 ? 32 - Math.clz32(far) : Math.min(Math.floor(Math.log2(far)) + 1, SEEK_MIDDLE);
  return sectors > 0 ? SEEK_MIDDLE + power : SEEK_MIDDLE - power;
}
