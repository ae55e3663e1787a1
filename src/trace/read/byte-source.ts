/** Where the bytes of a trace come from: a file, or whatever delivers chunks. */
import { open, type FileHandle } from 'node:fs/promises';
import { wrapHostError } from '../../base/errors.js';

export interface ByteSource {
  /** Bytes put into `into`; 0 at the end. */
  read(into: Uint8Array): Promise<number>;
  close(): Promise<void>;
  /** Bytes in all, where known. */
  readonly size: number | null;
  /** Somebody may be writing it just now, so that what there is must not wait for more. */
  readonly live: boolean;
}

export class FileSource implements ByteSource {
  readonly size: number;
  readonly live = false;
  readonly #path: string;
  readonly #file: FileHandle;

  private constructor(path: string, file: FileHandle, size: number) {
    this.#path = path;
    this.#file = file;
    this.size = size;
  }

  static async open(path: string): Promise<FileSource> {
    let file: FileHandle | null = null;
    try {
      file = await open(path, 'r');
      return new FileSource(path, file, (await file.stat()).size);
    } catch (error) {
      await file?.close();
      throw wrapHostError(error, `cannot open the trace '${path}'`);
    }
  }

  async read(into: Uint8Array): Promise<number> {
    try {
      return (await this.#file.read(into, 0, into.length, null)).bytesRead;
    } catch (error) {
      throw wrapHostError(error, `cannot read the trace '${this.#path}'`);
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/** Chunks of any size, one after the other. */
export class ChunkSource implements ByteSource {
  readonly size = null;
  readonly live = true;
  readonly #name: string;
  readonly #chunks: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array(0);
  #ended = false;
  #waiting = false;

  constructor(name: string, chunks: AsyncIterable<Uint8Array>) {
    this.#name = name;
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  async read(into: Uint8Array): Promise<number> {
    while (this.#rest.length === 0) {
      if (this.#ended) return 0;
      this.#waiting = true;
      try {
        const { done, value } = await this.#chunks.next();
        if (done === true) this.#ended = true;
        else this.#rest = value;
      } catch (error) {
        throw wrapHostError(error, `cannot read the trace from ${this.#name}`);
      } finally {
        this.#waiting = false;
      }
    }
    const taken = this.#rest.subarray(0, into.length);
    into.set(taken);
    this.#rest = this.#rest.subarray(taken.length);
    return taken.length;
  }

  async close(): Promise<void> {
    this.#rest = new Uint8Array(0);
    if (this.#ended) return;
    this.#ended = true;
    const closed = this.#chunks.return?.();
    // one that is waited for may never come
    if (!this.#waiting) await closed;
  }
}

/** Bytes that were read to look at them, and then the rest. */
export class PeekedSource implements ByteSource {
  readonly #source: ByteSource;
  #head: Uint8Array;

  private constructor(source: ByteSource, head: Uint8Array) {
    this.#source = source;
    this.#head = head;
  }

  /** `head` are the first bytes, as many as asked for unless the source ends before. */
  static async peek(source: ByteSource, bytes: number): Promise<{ readonly head: Uint8Array; readonly source: ByteSource }> {
    const head = new Uint8Array(bytes);
    let filled = 0;
    for (let got = -1; got !== 0 && filled < bytes; filled += got) got = await source.read(head.subarray(filled));
    const whole = head.subarray(0, filled);
    return { head: whole, source: new PeekedSource(source, whole) };
  }

  get size(): number | null { return this.#source.size; }
  get live(): boolean { return this.#source.live; }

  async read(into: Uint8Array): Promise<number> {
    if (this.#head.length === 0) return this.#source.read(into);
    const taken = this.#head.subarray(0, into.length);
    into.set(taken);
    this.#head = this.#head.subarray(taken.length);
    return taken.length;
  }

  close(): Promise<void> {
    return this.#source.close();
  }
}
