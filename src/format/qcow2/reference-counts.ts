/** Reference counts found by walking an image: sparse segments, so that memory follows what is used, not the file's length. */
const SEGMENT_CLUSTERS = 65536;

export class ReferenceCounts {
  readonly #segments = new Map<number, Uint32Array>();
  #highest = -1;

  /** Highest cluster that was counted, -1 = none. */
  get highest(): number { return this.#highest; }

  get(cluster: number): number {
    return this.#segments.get(Math.floor(cluster / SEGMENT_CLUSTERS))?.[cluster % SEGMENT_CLUSTERS] ?? 0;
  }

  add(cluster: number, count: number): void {
    for (let at = cluster; at < cluster + count; at++) {
      const key = Math.floor(at / SEGMENT_CLUSTERS);
      let segment = this.#segments.get(key);
      if (segment === undefined) {
        segment = new Uint32Array(SEGMENT_CLUSTERS);
        this.#segments.set(key, segment);
      }
      segment[at % SEGMENT_CLUSTERS]!++;
    }
    this.#highest = Math.max(this.#highest, cluster + count - 1);
  }

  /** All counted clusters in ascending order. */
  *[Symbol.iterator](): Generator<[cluster: number, count: number]> {
    for (const key of [...this.#segments.keys()].sort((a, b) => a - b)) {
      const segment = this.#segments.get(key)!;
      for (let i = 0; i < SEGMENT_CLUSTERS; i++) if (segment[i] !== 0) yield [key * SEGMENT_CLUSTERS + i, segment[i]!];
    }
  }
}
