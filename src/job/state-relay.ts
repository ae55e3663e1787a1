/** Passes RAM state on: one buffer is filled while the other is sent. */
import { MiB } from '../base/bytes.js';
import type { VmStateOutput } from '../vmstate/sinks.js';
import type { VmStateConsumer } from '../vmstate/writer.js';

const BUFFER_BYTES = MiB;

export class StateRelay implements VmStateConsumer {
  readonly #output: VmStateOutput;
  readonly #onSent: (bytes: number) => void;
  #filling = new Uint8Array(BUFFER_BYTES);
  #other = new Uint8Array(BUFFER_BYTES);
  #used = 0;
  #total = 0;
  /** Of the other buffer. */
  #sending: Promise<void> = Promise.resolve();

  constructor(output: VmStateOutput, onSent: (bytes: number) => void) {
    this.#output = output;
    this.#onSent = onSent;
  }

  space(): Uint8Array | Promise<Uint8Array> {
    if (this.#used < BUFFER_BYTES) return this.#filling.subarray(this.#used);
    return this.#swap().then(() => this.#filling);
  }

  advance(bytes: number): void {
    this.#used += bytes;
    this.#total += bytes;
    this.#onSent(this.#total);
  }

  async write(data: Uint8Array): Promise<void> {
    for (let done = 0; done < data.byteLength;) {
      const space = await this.space();
      const part = data.subarray(done, done + space.byteLength);
      space.set(part);
      this.advance(part.byteLength);
      done += part.byteLength;
    }
  }

  /** Sends the rest and the end. Returns the bytes of all. */
  async finish(): Promise<number> {
    await this.#swap();
    await this.#sending;
    await this.#output.finish();
    return this.#total;
  }

  async #swap(): Promise<void> {
    await this.#sending;
    const full = this.#filling.subarray(0, this.#used);
    [this.#filling, this.#other] = [this.#other, this.#filling];
    this.#used = 0;
    this.#sending = full.byteLength === 0 ? Promise.resolve() : this.#output.write(full);
    this.#sending.catch(() => undefined); // told by the next that waits for it
  }
}
