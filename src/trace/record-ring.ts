/**
 * The memory between those who record and the file: a few buffers of equal size, made once. One is being filled, others wait to be written or
 * are free. Where none is free, what comes is dropped, and counted: recording never waits, and nobody waits for it.
 */
import { closeSync, fstatSync, ftruncateSync, openSync, write, writeSync } from 'node:fs';
import { wrapHostError, type BlockError } from '../base/errors.js';

const FLUSH_MS = 200;

/** The same memory in two forms. */
interface RecordBuffer {
  readonly words: Uint32Array;
  readonly bytes: Uint8Array;
}

interface Filled {
  readonly buffer: RecordBuffer;
  readonly bytes: number;
}

export class RecordRing {
  /** The buffer being filled, and how much of it is. Recorders write here. */
  words: Uint32Array;
  bytes: Uint8Array;
  /** In words. */
  used = 0;
  /** Why nothing is recorded any more. */
  failure: BlockError | null = null;
  onFailure: ((error: BlockError) => void) | null = null;
  /** Bytes in the file. */
  written = 0;
  readonly #name: string;
  readonly #file: number;
  readonly #regular: boolean;
  readonly #bufferWords: number;
  readonly #free: RecordBuffer[] = [];
  readonly #filled: Filled[] = [];
  #buffer: RecordBuffer;
  readonly #timer: NodeJS.Timeout;
  #writing: Promise<void> | null = null;
  #closed = false;

  /** Throws where the file cannot be made. */
  constructor(name: string, buffers: number, bufferBytes: number) {
    this.#name = name;
    this.#bufferWords = bufferBytes / 4;
    try {
      this.#file = openSync(name, 'w');
    } catch (error) {
      throw wrapHostError(error, `Could not make the trace '${name}'`);
    }
    this.#regular = fstatSync(this.#file).isFile();
    for (let made = 0; made < buffers; made++) {
      const memory = new ArrayBuffer(bufferBytes);
      this.#free.push({ words: new Uint32Array(memory), bytes: new Uint8Array(memory) });
    }
    this.#buffer = this.#free.pop()!;
    this.words = this.#buffer.words;
    this.bytes = this.#buffer.bytes;
    this.#timer = setInterval(() => this.#handOver(), FLUSH_MS).unref();
  }

  /** Room for so many words in `words` at the index returned; -1 where there is none. */
  take(words: number): number {
    if (this.failure !== null || (this.used + words > this.#bufferWords && !this.#next())) return -1;
    const at = this.used;
    this.used += words;
    return at;
  }

  /** Everything recorded so far is in the file, and that is closed, when it resolves. Never throws: see `failure`. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    this.#keep();
    while (this.#writing !== null) await this.#writing;
    this.#closeFile();
  }

  /** The same at once, for a process that ends now. */
  closeNow(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    const underWay = this.#writing !== null;
    this.#keep(false);
    // What the thread pool may be writing is written once more, to the same place; into a pipe it must not go twice
    const left = this.#filled.splice(0).slice(underWay && !this.#regular ? 1 : 0);
    try {
      for (const { buffer, bytes } of this.failure === null ? left : []) this.#writeNow(buffer.bytes.subarray(0, bytes));
    } catch (error) {
      this.#fail(error);
    }
    if (!underWay) this.#closeFile();
  }

  /** False where no buffer is free. */
  #next(): boolean {
    this.#handOver();
    return this.used === 0 && !this.#closed && this.failure === null;
  }

  /** Gives what is there to the file, where another buffer can be filled meanwhile. */
  #handOver(): void {
    if (this.used === 0 || this.#closed || this.failure !== null) return;
    const next = this.#free.pop();
    if (next === undefined) return;
    this.#keep();
    this.#buffer = next;
    this.words = next.words;
    this.bytes = next.bytes;
  }

  #keep(write = true): void {
    if (this.used > 0 && this.failure === null) this.#filled.push({ buffer: this.#buffer, bytes: this.used * 4 });
    this.used = 0;
    if (write && this.#writing === null && this.#filled.length > 0) this.#writing = this.#writeOut();
  }

  async #writeOut(): Promise<void> {
    try {
      for (let next = this.#filled[0]; next !== undefined; next = this.#filled[0]) {
        await this.#write(next.buffer.bytes.subarray(0, next.bytes));
        if (this.#filled[0] !== next) break; // closed at once meanwhile
        this.#filled.shift();
        this.#free.push(next.buffer);
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#writing = null;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    const start = this.written;
    for (let done = 0; done < bytes.byteLength;) {
      done += await new Promise<number>((resolve, reject) => {
        write(this.#file, bytes, done, bytes.byteLength - done, this.#regular ? start + done : null, (error, count) => error === null ? resolve(count) : reject(error));
      });
    }
    this.written = start + bytes.byteLength;
  }

  #writeNow(bytes: Uint8Array): void {
    const start = this.written;
    for (let done = 0; done < bytes.byteLength;) {
      done += writeSync(this.#file, bytes, done, bytes.byteLength - done, this.#regular ? start + done : null);
    }
    this.written = start + bytes.byteLength;
  }

  /** Recording ends; whole records stay in the file. Nobody who does I/O hears of it as an error. */
  #fail(error: unknown): void {
    if (this.failure !== null) return;
    this.failure = wrapHostError(error, `Writing the trace '${this.#name}' failed: recording has stopped`);
    this.#filled.length = 0;
    this.used = 0;
    try {
      if (this.#regular) ftruncateSync(this.#file, this.written);
    } catch {
      // half a record stays at the end: readers count it as skipped
    }
    this.onFailure?.(this.failure);
  }

  #closeFile(): void {
    try {
      closeSync(this.#file);
    } catch (error) {
      this.#fail(error);
    }
  }
}
