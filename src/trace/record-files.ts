/**
 * The memory between those who record and the files: buffers that all files share. A file that has something to hold takes one, and gives it
 * back when it is written. Where none is free, what comes is dropped, and counted: recording never waits, and nobody waits for it.
 */
import { closeSync, fstatSync, ftruncateSync, lstatSync, openSync, unlinkSync, write, writeSync } from 'node:fs';
import { wrapHostError, type BlockError } from '../base/errors.js';

const FLUSH_MS = 200;
export const BUFFER_BYTES = 256 * 1024;
/** Of those that come with a file, where files are many. */
const SMALL_BUFFER_BYTES = 32 * 1024;

/** The same memory in two forms. */
interface RecordBuffer {
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
}

interface Filled {
  readonly file: RecordFile;
  readonly buffer: RecordBuffer;
  readonly bytes: number;
}

interface OpenFile {
  readonly file: RecordFile;
  readonly descriptor: number;
  readonly regular: boolean;
  /** Where the next bytes go. */
  position: number;
}

const NOTHING: RecordBuffer = { words: new Int32Array(0), bytes: new Uint8Array(0) };

/** One file. Recorders write into `words` (or `bytes`) where `take` says. */
export class RecordFile {
  words = NOTHING.words;
  bytes = NOTHING.bytes;
  /** Records in this file that are events, those that found no room among them. */
  sequence = 0;
  readonly name: string;
  readonly #files: RecordFiles;
  #buffer: RecordBuffer = NOTHING;
  /** In words. */
  #used = 0;

  constructor(name: string, files: RecordFiles) {
    this.name = name;
    this.#files = files;
  }

  /** As `take`, for a record that is an event. */
  takeEvent(words: number): number {
    this.sequence++;
    const at = this.#used;
    if (at + words > this.words.length) return this.take(words);
    this.#used = at + words;
    return at;
  }

  /** Room for so many words: their index, or -1 where there is none. */
  take(words: number): number {
    if (this.#used + words > this.words.length && !this.#next()) return -1;
    const at = this.#used;
    this.#used += words;
    return at;
  }

  /** Gives what it holds away, to be written. */
  handOver(): Filled | null {
    if (this.#used === 0) return null;
    const filled = { file: this, buffer: this.#buffer, bytes: this.#used * 4 };
    this.#hold(NOTHING);
    return filled;
  }

  #next(): boolean {
    const next = this.#files.freeBuffer();
    if (next === null) return false;
    this.#files.write(this.handOver());
    this.#hold(next);
    return true;
  }

  #hold(buffer: RecordBuffer): void {
    this.#buffer = buffer;
    this.words = buffer.words;
    this.bytes = buffer.bytes;
    this.#used = 0;
  }
}

function makeBuffer(size: number): RecordBuffer {
  const memory = new ArrayBuffer(size);
  return { words: new Int32Array(memory), bytes: new Uint8Array(memory) };
}

export class RecordFiles {
  /** Why nothing is recorded any more. */
  failure: BlockError | null = null;
  onFailure: ((error: BlockError) => void) | null = null;
  /** Bytes in all files. */
  written = 0;
  readonly #name: string;
  readonly #open: OpenFile[] = [];
  readonly #free: RecordBuffer[] = [];
  readonly #filled: Filled[] = [];
  readonly #timer: NodeJS.Timeout;
  /** So many files find two buffers each. */
  readonly #filesServed: number;
  #writing: Promise<void> | null = null;
  #closed = false;

  /** `name` without `.blktrace.N`. What an older trace of that name left is removed, where it would count as part of this one. */
  constructor(name: string, buffers: number) {
    this.#name = name;
    for (let made = 0; made < buffers; made++) this.#free.push(makeBuffer(BUFFER_BYTES));
    this.#filesServed = buffers / 2;
    // a slow disk shall not come to hold the memory of all: what is full alone is added to what it has to write
    this.#timer = setInterval(() => { if (this.#writing === null) this.#flush(); }, FLUSH_MS).unref();
  }

  get count(): number { return this.#open.length; }
  /** Of all files. */
  get records(): number { return this.#open.reduce((sum, { file }) => sum + file.sequence, 0); }

  /** Throws where it cannot be made. */
  add(): RecordFile {
    const index = this.#open.length;
    const file = new RecordFile(this.nameOf(index), this);
    try {
      const descriptor = openSync(file.name, 'w');
      this.#open.push({ file, descriptor, regular: fstatSync(descriptor).isFile(), position: 0 });
      if (index === 0) this.#removeOlder();
    } catch (error) {
      throw wrapHostError(error, `Could not make the trace '${file.name}'`);
    }
    // however little a file has, it holds one buffer, and another one is being written
    if (this.#open.length > this.#filesServed) this.#free.push(makeBuffer(SMALL_BUFFER_BYTES), makeBuffer(SMALL_BUFFER_BYTES));
    return file;
  }

  nameOf(index: number): string {
    return `${this.#name}.blktrace.${index}`;
  }

  freeBuffer(): RecordBuffer | null {
    return this.failure !== null || this.#closed ? null : this.#free.pop() ?? null;
  }

  write(filled: Filled | null): void {
    if (filled === null || this.failure !== null) return;
    this.#filled.push(filled);
    this.#writing ??= this.#writeOut();
  }

  /** Everything recorded so far is in the files, and they are closed, when it resolves. Never throws: see `failure`. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#flush();
    this.#closed = true;
    clearInterval(this.#timer);
    while (this.#writing !== null) await this.#writing;
    this.#closeFiles();
  }

  /** The same at once, for a process that ends now. */
  closeNow(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    const underWay = this.#writing !== null;
    // What the thread pool may be writing is written once more, to the same place; into a pipe it must not go twice
    const left = this.#filled.splice(0).filter(({ file }, index) => !underWay || index > 0 || this.#openOf(file).regular);
    for (const { file } of this.#open) {
      const filled = file.handOver();
      if (filled !== null) left.push(filled);
    }
    try {
      for (const filled of this.failure === null ? left : []) this.#writeNow(filled);
    } catch (error) {
      this.#fail(error);
    }
    if (!underWay) this.#closeFiles();
  }

  #flush(): void {
    if (this.#closed || this.failure !== null) return;
    for (const { file } of this.#open) this.write(file.handOver());
  }

  async #writeOut(): Promise<void> {
    try {
      for (let next = this.#filled[0]; next !== undefined; next = this.#filled[0]) {
        await this.#write(next);
        if (this.#filled[0] !== next) break; // closed at once meanwhile
        this.#filled.shift();
        this.#free.push(next.buffer);
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#writing = null;
  }

  async #write({ file, buffer, bytes }: Filled): Promise<void> {
    const open = this.#openOf(file);
    const { descriptor, regular, position } = open;
    for (let done = 0; done < bytes;) {
      done += await new Promise<number>((resolve, reject) => {
        write(descriptor, buffer.bytes, done, bytes - done, regular ? position + done : null, (error, count) => error === null ? resolve(count) : reject(error));
      });
    }
    open.position = position + bytes;
    this.written += bytes;
  }

  #writeNow({ file, buffer, bytes }: Filled): void {
    const open = this.#openOf(file);
    for (let done = 0; done < bytes;) done += writeSync(open.descriptor, buffer.bytes, done, bytes - done, open.regular ? open.position + done : null);
    open.position += bytes;
    this.written += bytes;
  }

  #openOf(file: RecordFile): OpenFile {
    return this.#open.find((open) => open.file === file)!;
  }

  /** Recording ends; whole records stay in the files. Nobody who does I/O hears of it as an error. */
  #fail(error: unknown): void {
    if (this.failure !== null) return;
    this.failure = wrapHostError(error, `Writing the trace '${this.#name}' failed: recording has stopped`);
    this.#filled.length = 0;
    for (const { file, descriptor, regular, position } of this.#open) {
      file.handOver();
      try {
        if (regular) ftruncateSync(descriptor, position);
      } catch {
        // half a record stays at the end: readers count it as skipped
      }
    }
    this.onFailure?.(this.failure);
  }

  #closeFiles(): void {
    try {
      for (const { descriptor } of this.#open) closeSync(descriptor);
    } catch (error) {
      this.#fail(error);
    }
  }

  #removeOlder(): void {
    for (let index = 1; lstatSync(this.nameOf(index), { throwIfNoEntry: false })?.isFile() === true; index++) unlinkSync(this.nameOf(index));
  }
}
