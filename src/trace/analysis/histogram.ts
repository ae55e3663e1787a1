/** How many, and exactly the least, the greatest and the sum. */
export class Summary {
  count = 0;
  sum = 0;
  min = Infinity;
  max = -Infinity;

  add(value: number): void {
    this.count++;
    this.sum += value;
    if (value < this.min) this.min = value;
    if (value > this.max) this.max = value;
  }

  merge(other: Summary): void {
    this.count += other.count;
    this.sum += other.sum;
    if (other.min < this.min) this.min = other.min;
    if (other.max > this.max) this.max = other.max;
  }

  /** NaN of nothing. */
  get mean(): number { return this.sum / this.count; }
}

/** Buckets per octave. */
const STEPS = 64;
const STEP_BITS = 6;
/** A quantile is at most this share of itself away from the true one; below 64 it is exact, for whole numbers. */
export const HISTOGRAM_ERROR = 1 / (2 * STEPS);

/**
 * Counts of values from 0 to 2^53 in buckets whose width is 1/64 of their octave, as HDR histograms have them: memory is constant (25 KiB
 * at most, what is used of it), and quantiles are right within `HISTOGRAM_ERROR`.
 */
export class Histogram extends Summary {
  private counts = new Float64Array(STEPS);

  override add(value: number): void {
    super.add(value);
    const bucket = bucketOf(value);
    if (bucket >= this.counts.length) {
      const grown = new Float64Array(Math.max(bucket + 1, this.counts.length * 2));
      grown.set(this.counts);
      this.counts = grown;
    }
    this.counts[bucket]!++;
  }

  /** The value that a share `quantile` (0 to 1) is not above; NaN of nothing. */
  quantile(quantile: number): number {
    if (this.count === 0) return NaN;
    let rank = Math.max(1, Math.ceil(this.count * quantile));
    for (let bucket = 0; bucket < this.counts.length; bucket++) {
      rank -= this.counts[bucket]!;
      if (rank <= 0) return Math.min(this.max, Math.max(this.min, middleOf(bucket)));
    }
    return this.max;
  }

  /** The same for what mostly comes in round numbers, such as sizes: powers of two are told exactly, others are up to twice as far away. */
  roundQuantile(quantile: number): number {
    const near = this.quantile(quantile);
    return Number.isNaN(near) ? near : Math.max(this.min, lowestOf(bucketOf(near)));
  }

  override merge(other: Histogram): void {
    super.merge(other);
    if (other.counts.length > this.counts.length) {
      const grown = new Float64Array(other.counts.length);
      grown.set(this.counts);
      this.counts = grown;
    }
    other.counts.forEach((count, bucket) => { this.counts[bucket]! += count; });
  }

  /** From the least to the greatest value, buckets that hold something. */
  * buckets(): Generator<{ readonly from: number; readonly to: number; readonly count: number }> {
    for (let bucket = 0; bucket < this.counts.length; bucket++) {
      const count = this.counts[bucket]!;
      if (count > 0) yield { from: lowestOf(bucket), to: lowestOf(bucket + 1), count };
    }
  }
}

function bucketOf(value: number): number {
  if (value < STEPS) return value < 0 ? 0 : Math.floor(value);
  let octave = -STEP_BITS;
  let scaled = value;
  while (scaled >= 0x8000_0000) {
    scaled /= 0x1_0000;
    octave += 16;
  }
  const bits = 31 - Math.clz32(scaled);
  octave += bits;
  return (octave + 1) * STEPS + ((scaled >>> (bits - STEP_BITS)) & (STEPS - 1));
}

function lowestOf(bucket: number): number {
  if (bucket < STEPS) return bucket;
  const octave = Math.floor(bucket / STEPS) - 1;
  return (STEPS + bucket % STEPS) * 2 ** octave;
}

function middleOf(bucket: number): number {
  const lowest = lowestOf(bucket);
  return bucket < 2 * STEPS ? lowest : (lowest + lowestOf(bucket + 1)) / 2;
}
