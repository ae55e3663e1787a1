/**
 * Reference counts found by walking an image. Small segments, made when first used: memory follows what is referenced,
 * not the file's length, also where damaged tables point all over a sparse file.
 */
const SEGMENT_CLUSTERS = 128;

export class ReferenceCounts {
  readonly #segments = new Map<number, Uint32Array>();
  #highest = -1;
  /** The segment used last: neighbours come in runs. */
  #lastKey = -1;
  #last: Uint32Array = new Uint32Array(0);

  /** Highest cluster that was counted, -1 = none. */
  get highest(): number { return this.#highest; }

  get(cluster: number): number {
    return this.#segments.get(Math.floor(cluster / SEGMENT_CLUSTERS))?.[cluster % SEGMENT_CLUSTERS] ?? 0;
  }

  add(cluster: number, count: number): void {
    for (let at = cluster; at < cluster + count; at++) {
      const key = Math.floor(at / SEGMENT_CLUSTERS);
      if (key !== this.#lastKey) this.#select(key);
      this.#last[at % SEGMENT_CLUSTERS]!++;
    }
    this.#highest = Math.max(this.#highest, cluster + count - 1);
  }

  #select(key: number): void {
    let segment = this.#segments.get(key);
    if (segment === undefined) {
      segment = new Uint32Array(SEGMENT_CLUSTERS);
      this.#segments.set(key, segment);
    }
    this.#lastKey = key;
    this.#last = segment;
  }

  /** All counted clusters in ascending order. */
  *[Symbol.iterator](): Generator<[cluster: number, count: number]> {
    for (const key of [...this.#segments.keys()].sort((a, b) => a - b)) {
      const segment = this.#segments.get(key)!;
      for (let i = 0; i < SEGMENT_CLUSTERS; i++) if (segment[i] !== 0) yield [key * SEGMENT_CLUSTERS + i, segment[i]!];
    }
  }
}
