/**
 * Tells when all data I/O that began before a moment has ended. A freed cluster may be reused only then: an I/O that
 * looked its mapping up before the free still holds the old host offset. No allocation per I/O: two counters.
 */
export class IoEpochs {
  #counts: [number, number] = [0, 0];
  #current: 0 | 1 = 0;
  #settling: Promise<void> | null = null;
  #wake: (() => void) | null = null;

  /** Call in the same synchronous stretch as the mapping lookup; hand the value to `leave`. */
  enter(): 0 | 1 {
    this.#counts[this.#current]++;
    return this.#current;
  }

  leave(epoch: 0 | 1): void {
    this.#counts[epoch]--;
    if (this.#counts[epoch] === 0 && epoch !== this.#current) this.#wake?.();
  }

  /** Resolves when all I/O entered before this call has left. */
  async settle(): Promise<void> {
    while (this.#settling !== null) await this.#settling;
    const old = this.#current;
    if (this.#counts[old] === 0) return;
    this.#current = old === 0 ? 1 : 0;
    this.#settling = new Promise<void>((resolve) => { this.#wake = resolve; });
    await this.#settling;
    this.#settling = null;
    this.#wake = null;
  }
}
