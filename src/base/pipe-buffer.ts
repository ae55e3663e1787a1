/**
 * A buffer whose content stays in the kernel: what comes out of one socket or file goes into another without being copied
 * through this process (splice). It moves to ordinary memory, where it always has a place, as soon as somebody has to
 * look at it: where it may be zeros, comes out of order, or does not fit in the pipe.
 *
 * What came out of a file is the page cache's own memory: who writes there while it is in the pipe changes what is in the pipe.
 */
import { closeSync, readSync, writeSync } from 'node:fs';
import type { KoffiFunc } from 'koffi';
import { assert } from './assert.js';
import { isZero, KiB, MiB } from './bytes.js';
import { errnoOf } from './errors.js';
import { capabilities, hostLibrary, slowly } from './libc.js';

const PIPE_FLAGS = 0o2004000; // O_CLOEXEC | O_NONBLOCK
const F_SETPIPE_SZ = 1031;
/** What users without privileges may have. */
const PIPE_BYTES = MiB;
/**
 * What is tried at most. Such a pipe has 256 places, and one of them takes what the sender's host has put in one place: mostly
 * 32 KiB, and 4 KiB where its memory is in pieces.
 */
export const MOST_PIPED = 2 * MiB;
/** The page cache's memory takes a place for each page, and a pipe of this size has so many for it. */
export const MOST_PIPED_PAGES = PIPE_BYTES;
/** Below this, two copies through memory cost less than two calls in the thread pool. */
export const LEAST_PIPED_PAGES = 256 * KiB;
const SPLICE_FLAGS = 3; // SPLICE_F_MOVE | SPLICE_F_NONBLOCK
const PEEK_FLAGS = 0x42; // MSG_PEEK | MSG_DONTWAIT
const PAGE_BYTES = 4096;
const SAMPLE = 64;
const TAKEN = 4096;
const NO_BYTES = new Uint8Array(0);

interface Calls {
  readonly pipe2: KoffiFunc<(into: Buffer, flags: number) => number>;
  readonly fcntl: KoffiFunc<(fd: number, command: number, argument: number) => number>;
  readonly splice: KoffiFunc<(from: number, fromOffset: Buffer | null, to: number, toOffset: Buffer | null, bytes: number, flags: number) => number>;
  readonly recv: KoffiFunc<(fd: number, into: Buffer, bytes: number, flags: number) => number>;
}

let calls: Calls | null = null;

function hostCalls(): Calls {
  const { library } = hostLibrary();
  calls ??= {
    pipe2: library.func('int pipe2(void *into, int flags)'),
    fcntl: library.func('int fcntl(int fd, int command, int64_t argument)'),
    splice: library.func('int64_t splice(int from, void *fromOffset, int to, void *toOffset, size_t bytes, uint32_t flags)'),
    recv: library.func('int64_t recv(int fd, void *into, size_t bytes, int flags)'),
  };
  return calls;
}

function position(offset: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(BigInt(offset));
  return bytes;
}

function openPipe(): readonly [reader: number, writer: number] | null {
  const { pipe2, fcntl } = hostCalls();
  const ends = Buffer.alloc(8);
  if (pipe2(ends, PIPE_FLAGS) < 0) return null;
  const [reader, writer] = [ends.readInt32LE(0), ends.readInt32LE(4)];
  if (fcntl(writer, F_SETPIPE_SZ, PIPE_BYTES) >= PIPE_BYTES) return [reader, writer];
  closeSync(reader);
  closeSync(writer);
  return null;
}

/** Pipes for those who need one after the other. */
export class PipePool {
  readonly #free: PipeBuffer[] = [];
  #none = false;
  #closed = false;

  /** Begun with `memory`, and without a look at zeros; undefined where the host has none. To be given back when nobody uses it any more. */
  take(memory: Uint8Array): PipeBuffer | undefined {
    const kept = this.#free.pop();
    try {
      kept?.begin(memory, 0);
      if (kept !== undefined) return kept;
    } catch {
      kept?.close(); // what is in it cannot be taken out
    }
    const made = this.#none || this.#closed ? null : PipeBuffer.open();
    this.#none = made === null;
    made?.begin(memory, 0);
    return made ?? undefined;
  }

  /** Those that nobody has: a user has only so much memory for pipes. */
  closeFree(): void {
    for (const pipe of this.#free.splice(0)) pipe.close();
  }

  give(pipe: PipeBuffer): void {
    if (this.#closed) pipe.close();
    else this.#free.push(pipe);
  }

  close(): void {
    this.#closed = true;
    this.closeFree();
  }
}

export class PipeBuffer {
  readonly #calls: Calls;
  readonly #sample = Buffer.alloc(SAMPLE);
  #reader: number;
  #writer: number;
  #memory: Uint8Array = NO_BYTES;
  #unit = 0;
  #filled = 0;
  /** Bytes in the pipe. */
  #inside = 0;
  /** Up to here no unit is zero. */
  #dataTo = 0;
  #spilled = true;

  private constructor(host: Calls, [reader, writer]: readonly [number, number]) {
    this.#calls = host;
    this.#reader = reader;
    this.#writer = writer;
  }

  /** Null where the host has no such thing. To be closed. */
  static open(): PipeBuffer | null {
    if (capabilities().whyNot !== null || process.env['QUIESCE_NO_SPLICE'] === '1') return null;
    const ends = openPipe();
    return ends === null ? null : new PipeBuffer(hostCalls(), ends);
  }

  /** Empties it for the next `memory.byteLength` bytes. Those that hold a unit of zeros (of `unit` bytes from the start on; 0: none) end up in `memory`. */
  begin(memory: Uint8Array, unit: number): void {
    this.#memory = memory;
    this.#unit = unit === 0 ? Infinity : unit;
    this.restart();
  }

  /** Forgets what has come so far. */
  restart(): void {
    this.#discard();
    this.#filled = 0;
    this.#dataTo = this.#unit === Infinity ? Infinity : 0;
    this.#spilled = this.#memory.byteLength > MOST_PIPED;
  }

  /** True where nothing of the content is in memory. */
  get inKernel(): boolean { return !this.#spilled; }
  /** A file's pages take a place each, also those of which only a part is wanted. */
  hasPlaceFor(offset: number, bytes: number): boolean {
    return bytes === this.#memory.byteLength && Math.ceil((offset + bytes) / PAGE_BYTES) - Math.floor(offset / PAGE_BYTES) <= MOST_PIPED_PAGES / PAGE_BYTES;
  }

  /** Zeros are to be found: a file's pages, which nobody looks at on their way, do not come into it. */
  get seeksZeros(): boolean { return this.#unit !== Infinity; }
  /** Bytes that have come, in order. */
  get filled(): number { return this.#filled; }
  /** Bytes that have not gone out again. Only where `inKernel`. */
  get left(): number { return this.#inside; }

  /** What comes next, and came into memory already. */
  append(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.byteLength;) {
      const part = bytes.subarray(at, this.#spilled ? undefined : at + this.#unitEnd() - this.#filled);
      at += part.byteLength;
      if (this.#spilled) {
        this.#keep(part);
        continue;
      }
      if (this.#dataTo <= this.#filled && !isZero(part)) this.#dataTo = this.#unitEnd();
      this.#put(part);
      if (this.#dataTo < this.#filled && (this.#filled % this.#unit === 0 || this.#filled === this.#memory.byteLength)) this.spill();
    }
  }

  /** Takes at most `most` bytes that wait in the socket; how many it took. None where it was or is `spill`ed, or where there are none. */
  pull(socket: number, most: number): number {
    const { splice } = this.#calls;
    const start = this.#filled;
    let emptyBefore = false;
    while (this.#filled < start + most && !this.#spilled) {
      const end = this.#unitEnd();
      if (this.#dataTo < end && !this.#sampleIsData(socket, end)) break;
      const moved = splice(socket, null, this.#writer, null, Math.min(end, start + most) - this.#filled, SPLICE_FLAGS);
      if (moved > 0) {
        this.#filled += moved;
        this.#inside += moved;
        emptyBefore = false;
        continue;
      }
      if (!this.#waits(socket)) break;
      // there is something, so the pipe is full; unless it has only come just now
      if (emptyBefore) this.spill();
      emptyBefore = true;
    }
    return this.#filled - start;
  }

  /** Puts it into the socket. False where the socket takes no more for now (or never, which it will tell itself). */
  push(socket: number): boolean {
    const { splice } = this.#calls;
    while (this.#inside > 0) {
      const moved = splice(this.#reader, null, socket, null, this.#inside, SPLICE_FLAGS);
      if (moved <= 0) return false;
      this.#inside -= moved;
    }
    return true;
  }

  /** As `pullFile`, at once: what is not in the page cache is waited for. */
  pullFileNow(fd: number, offset: number): boolean {
    while (this.#filled < this.#memory.byteLength) {
      const moved = this.#calls.splice(fd, position(offset + this.#filled), this.#writer, null, this.#memory.byteLength - this.#filled, SPLICE_FLAGS);
      if (moved <= 0) break;
      this.#filled += moved;
      this.#inside += moved;
    }
    return this.#pulled();
  }

  /** Takes all from a file, whose pages stay where they are. Rejects with the host's error; false where the file or the pipe ends too early: it is empty then. */
  async pullFile(fd: number, offset: number): Promise<boolean> {
    while (this.#filled < this.#memory.byteLength) {
      const moved = await this.#spliceLater(fd, offset + this.#filled, null, this.#memory.byteLength - this.#filled);
      if (moved === 0) break;
      this.#filled += moved;
      this.#inside += moved;
    }
    return this.#pulled();
  }

  #pulled(): boolean {
    if (this.#filled === this.#memory.byteLength) return true;
    this.restart();
    this.#spilled = true;
    return false;
  }

  /** As `pushFile`, at once, as far as it goes; the rest stays in the pipe. */
  pushFileNow(fd: number, offset: number): void {
    while (this.#inside > 0) {
      const moved = this.#calls.splice(this.#reader, null, fd, position(offset + this.#filled - this.#inside), this.#inside, SPLICE_FLAGS);
      if (moved <= 0) return;
      this.#inside -= moved;
    }
  }

  /** Puts it into a file from `offset` on. What the file did not take goes to its place in memory, and is returned; null where it took all. */
  async pushFile(fd: number, offset: number, refused: (error: unknown) => void = () => {}): Promise<Uint8Array | null> {
    while (this.#inside > 0) {
      const at = this.#filled - this.#inside;
      const moved = await this.#spliceLater(fd, null, offset + at, this.#inside).catch((error: unknown) => {
        refused(error); // the write from memory tells what else it is
        return 0;
      });
      if (moved === 0) return this.#rest();
      this.#inside -= moved;
    }
    return null;
  }

  #rest(): Uint8Array {
    const at = this.#filled - this.#inside;
    this.#spilled = true;
    for (let read = at; read < this.#filled;) read += readSync(this.#reader, this.#memory, read, this.#filled - read, null);
    this.#inside = 0;
    return this.#memory.subarray(at, this.#filled);
  }

  /** In the thread pool: from a place in the file into the pipe, or the other way. 0 at the end of the file, or of the pipe's room. */
  async #spliceLater(fd: number, from: number | null, to: number | null, bytes: number): Promise<number> {
    const offset = position(from ?? to ?? 0);
    const { splice } = this.#calls;
    try {
      return await slowly('splice', (done) => to === null
        ? splice.async(fd, offset, this.#writer, null, bytes, SPLICE_FLAGS, done)
        : splice.async(this.#reader, null, fd, offset, bytes, SPLICE_FLAGS, done));
    } catch (error) {
      if (errnoOf(error) === 'EAGAIN') return 0;
      throw error;
    }
  }

  /** Takes a little of it out, to be sent in another way. */
  take(): Uint8Array {
    const some = Buffer.allocUnsafe(Math.min(TAKEN, this.#inside));
    const taken = some.byteLength === 0 ? 0 : readSync(this.#reader, some);
    assert(taken === some.byteLength, 'a pipe that lost its content');
    this.#inside -= taken;
    return some;
  }

  /** Moves all that has come to memory; the rest is for the caller to put there. */
  spill(): void {
    if (this.#spilled) return;
    this.#spilled = true;
    assert(this.#inside === this.#filled, 'a spill of what is on its way out');
    for (let at = 0; at < this.#filled;) at += readSync(this.#reader, this.#memory, at, this.#filled - at, null);
    this.#inside = 0;
  }

  close(): void {
    if (this.#reader < 0) return;
    closeSync(this.#reader);
    closeSync(this.#writer);
    this.#reader = -1;
    this.#inside = 0;
    this.#spilled = true;
  }

  #unitEnd(): number {
    return Math.min((Math.floor(this.#filled / this.#unit) + 1) * this.#unit, this.#memory.byteLength);
  }

  #put(part: Uint8Array): void {
    let written = 0;
    try {
      written = writeSync(this.#writer, part);
    } catch (error) {
      if (errnoOf(error) !== 'EAGAIN') throw error;
    }
    this.#filled += written;
    this.#inside += written;
    if (written === part.byteLength) return;
    this.spill();
    this.#keep(part.subarray(written));
  }

  #keep(part: Uint8Array): void {
    this.#memory.set(part, this.#filled);
    this.#filled += part.byteLength;
  }

  /** Whether what comes next shows that its unit is data. Where it does not, it may be zeros, and has to be looked at. */
  #sampleIsData(socket: number, end: number): boolean {
    const got = this.#calls.recv(socket, this.#sample, Math.min(SAMPLE, end - this.#filled), PEEK_FLAGS);
    if (got <= 0) return false;
    if (isZero(this.#sample.subarray(0, got))) {
      this.spill();
      return false;
    }
    this.#dataTo = end;
    return true;
  }

  #waits(socket: number): boolean {
    return this.#calls.recv(socket, this.#sample, 1, PEEK_FLAGS) > 0;
  }

  #discard(): void {
    if (this.#inside === 0) return;
    const scratch = Buffer.allocUnsafe(64 * KiB);
    while (this.#inside > 0) this.#inside -= readSync(this.#reader, scratch, 0, Math.min(scratch.byteLength, this.#inside), null);
  }
}
