/** Traces that are being written: what their files have now, and what comes. */
import { open, type FileHandle } from 'node:fs/promises';
import { systemClock, type Clock } from '../../base/clock.js';
import { BlockError, wrapHostError } from '../../base/errors.js';
import { HEADER_BYTES, MAGIC } from '../record.js';
import { traceFiles } from './open.js';

const LOOK_MS = 100;
const READ_BYTES = 64 * 1024;
/** A header and the largest payload that it may tell of. */
const LARGEST_RECORD = HEADER_BYTES[8] + 0xffff;

export interface FollowOptions {
  readonly signal: AbortSignal;
  /** The first file may come later. */
  readonly mayCome?: boolean;
  readonly clock?: Clock;
}

/**
 * The bytes of a trace, for `openTrace`, until the signal ends it. Several files of one trace (`NAME.blktrace.0`, `.1`, …), also those
 * that come later, are merged by time as far as they are written. BlockError: no such file.
 */
export async function* followTrace(name: string, { signal, mayCome = false, clock = systemClock }: FollowOptions): AsyncGenerator<Uint8Array> {
  const files: GrowingFile[] = [];
  const isOne = !mayCome && await traceFiles(name) === null;
  try {
    if (isOne) files.push(await GrowingFile.open(name));
    while (!signal.aborted) {
      let grown = false;
      for (const file of files) grown = await file.fill() || grown;
      const chunk = isOne ? files[0]!.takeAll() : merged(files);
      if (chunk.length > 0) yield chunk;
      if (grown) continue;
      if (isOne || !await openMore(name, files)) await clock.sleep(LOOK_MS, signal);
    }
  } finally {
    await Promise.all(files.map((file) => file.close()));
  }
}

/** Whether there were more files than are open. */
async function openMore(name: string, files: GrowingFile[]): Promise<boolean> {
  const paths = await traceFiles(name) ?? [];
  const open = files.length;
  for (const path of paths.slice(open)) files.push(await GrowingFile.open(path));
  return files.length > open;
}

/** Whole records in the order of their times, as long as every file that has more to read has some here. */
function merged(files: readonly GrowingFile[]): Uint8Array {
  const records: Uint8Array[] = [];
  for (;;) {
    let first: GrowingFile | null = null;
    let earliest = Infinity;
    for (const file of files) {
      const time = file.nextTime();
      // its next record may be earlier than all others
      if (time === null && file.hasMore) return Buffer.concat(records);
      if (time === null || time >= earliest) continue;
      first = file;
      earliest = time;
    }
    if (first === null) return Buffer.concat(records);
    records.push(first.takeRecord());
  }
}

class GrowingFile {
  /** The last read found bytes, so there may be more. */
  hasMore = true;
  readonly #path: string;
  readonly #file: FileHandle;
  #bytes: Buffer = Buffer.alloc(0);

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  static async open(path: string): Promise<GrowingFile> {
    try {
      return new GrowingFile(path, await open(path, 'r'));
    } catch (error) {
      throw wrapHostError(error, `cannot open the trace '${path}'`);
    }
  }

  /** Reads on unless a whole record is here already; false at what is the end for now. */
  async fill(): Promise<boolean> {
    if (this.#bytes.length >= LARGEST_RECORD) return true;
    const space = Buffer.allocUnsafe(READ_BYTES);
    try {
      const { bytesRead } = await this.#file.read(space, 0, READ_BYTES, null);
      this.hasMore = bytesRead > 0;
      this.#bytes = Buffer.concat([this.#bytes, space.subarray(0, bytesRead)]);
    } catch (error) {
      throw wrapHostError(error, `cannot read the trace '${this.#path}'`);
    }
    return this.hasMore;
  }

  takeAll(): Uint8Array {
    return this.#take(this.#bytes.length);
  }

  takeRecord(): Uint8Array {
    return this.#take(this.#recordBytes()!);
  }

  /** Of the first whole record; null where none is here. */
  nextTime(): number | null {
    if (this.#recordBytes() === null) return null;
    const [low, high] = this.#isSwapped() ? [this.#bytes.readUInt32BE(12), this.#bytes.readUInt32BE(8)] : [this.#bytes.readUInt32LE(8), this.#bytes.readUInt32LE(12)];
    return high * 2 ** 32 + low;
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  #take(length: number): Uint8Array {
    const taken = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return taken;
  }

  #isSwapped(): boolean {
    return Math.floor(this.#bytes.readUInt32LE(0) / 256) * 256 !== MAGIC;
  }

  #recordBytes(): number | null {
    if (this.#bytes.length < HEADER_BYTES[7]) return null;
    const isSwapped = this.#isSwapped();
    const magic = isSwapped ? this.#bytes.readUInt32BE(0) : this.#bytes.readUInt32LE(0);
    if (Math.floor(magic / 256) * 256 !== MAGIC) throw new BlockError('CORRUPT', `'${this.#path}' holds something else than records of blktrace, so it cannot be followed with other files`);
    const [header, at] = magic % 256 === 8 ? [HEADER_BYTES[8], 50] : [HEADER_BYTES[7], 46];
    if (this.#bytes.length < header) return null;
    const length = header + (isSwapped ? this.#bytes.readUInt16BE(at) : this.#bytes.readUInt16LE(at));
    return this.#bytes.length < length ? null : length;
  }
}
