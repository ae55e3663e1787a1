/** The last bytes that were written; what is read is gone. */
export class RingBuffer {
  readonly #capacity: number;
  #content = Buffer.alloc(0);

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  write(data: Uint8Array): void {
    const all = Buffer.concat([this.#content, data]);
    this.#content = all.subarray(Math.max(0, all.length - this.#capacity));
  }

  read(bytes: number): Buffer {
    const taken = this.#content.subarray(0, bytes);
    this.#content = this.#content.subarray(taken.length);
    return taken;
  }
}
