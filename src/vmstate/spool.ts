/**
 * An unnamed temporary file that holds RAM state for a while: nothing is left behind however the process ends. A
 * VmStateWriter writes it and a VmStateReader reads it.
 */
import { constants } from 'node:fs';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { alignDown } from '../base/bytes.js';
import { BufferPool, isAlignedBuffer, PAGE } from '../base/buffer-pool.js';
import { wrapHostError, errnoOf } from '../base/errors.js';
import type { VmStateArea, VmStateSource } from '../block/driver.js';

export interface SpoolOptions {
  /** O_DIRECT: the state does not push everything else out of the page cache. Ignored where the file system has none. */
  readonly direct?: boolean | undefined;
}

export class Spool implements VmStateArea {
  /** Writes are padded to this, so that all of them suit O_DIRECT. */
  readonly clusterSize = PAGE;
  readonly #file: FileHandle;
  readonly #directory: string;
  /** One page for the unaligned end of a read; made when first needed. */
  #bounce: BufferPool | null = null;

  private constructor(file: FileHandle, directory: string) {
    this.#file = file;
    this.#directory = directory;
  }

  /** Makes the spool in the directory of `path`: the disk that must have room for the state anyway. */
  static async beside(path: string, options: SpoolOptions = {}): Promise<Spool> {
    const directory = dirname(path);
    const name = join(directory, `.${basename(path)}.spool-${randomBytes(6).toString('hex')}`);
    const direct = options.direct ?? false;
    try {
      return new Spool(await openUnnamed(directory, direct) ?? await openThenUnlink(name, direct), directory);
    } catch (error) {
      throw wrapHostError(error, `could not create a spool file in '${directory}'`);
    }
  }

  async save(position: number, data: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < data.byteLength;) {
        const { bytesWritten } = await this.#file.write(data, done, data.byteLength - done, position + done);
        done += bytesWritten;
      }
    } catch (error) {
      throw wrapHostError(error, `could not write the spool file in '${this.#directory}'`, { offset: position, bytes: data.byteLength });
    }
  }

  async load(position: number, into: Uint8Array): Promise<number> {
    try {
      if (position % PAGE !== 0 || !isAlignedBuffer(into.subarray(0, 0), PAGE)) return await this.#loadBounced(position, into);
      const whole = alignDown(into.byteLength, PAGE);
      if (whole === 0) return await this.#loadBounced(position, into);
      return (await this.#file.read(into, 0, whole, position)).bytesRead;
    } catch (error) {
      throw wrapHostError(error, `could not read the spool file in '${this.#directory}'`, { offset: position, bytes: into.byteLength });
    }
  }

  /** The spooled state as it was produced: without the padding of its last chunk. */
  source(bytes: number): VmStateSource {
    return { size: bytes, load: (position, into) => this.load(position, into.subarray(0, Math.max(0, bytes - position))) };
  }

  async discard(): Promise<void> {
    await this.#file.truncate(0);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Up to the end of the page that `position` lies in, through aligned memory. */
  async #loadBounced(position: number, into: Uint8Array): Promise<number> {
    this.#bounce ??= new BufferPool(PAGE);
    const page = await this.#bounce.lease(PAGE);
    try {
      const start = alignDown(position, PAGE);
      const { bytesRead } = await this.#file.read(page.buffer, 0, PAGE, start);
      const part = page.buffer.subarray(position - start, Math.min(bytesRead, position - start + into.byteLength));
      into.set(part);
      return part.byteLength;
    } finally {
      page.release();
    }
  }
}

/** Linux's O_TMPFILE, which Node does not name. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;
/** What kernels and file systems without O_TMPFILE or without O_DIRECT answer. */
const NOT_THERE = new Set(['EOPNOTSUPP', 'ENOTSUP', 'EISDIR', 'EINVAL']);

/** A file that never had a name, so that not even a kill leaves one; null where the file system has no such files. */
async function openUnnamed(directory: string, direct: boolean): Promise<FileHandle | null> {
  for (const flag of direct ? [constants.O_DIRECT, 0] : [0]) {
    try {
      return await open(directory, constants.O_RDWR | O_TMPFILE | flag, 0o600);
    } catch (error) {
      if (!NOT_THERE.has(errnoOf(error) ?? '')) throw error;
    }
  }
  return null;
}

async function openThenUnlink(name: string, direct: boolean): Promise<FileHandle> {
  const file = await openExclusive(name, direct);
  try {
    await unlink(name);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openExclusive(name: string, direct: boolean): Promise<FileHandle> {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
  if (!direct) return open(name, flags, 0o600);
  try {
    return await open(name, flags | constants.O_DIRECT, 0o600);
  } catch (error) {
    if (errnoOf(error) !== 'EINVAL') throw error;
    // tmpfs and some others refuse O_DIRECT, and leave the file they have just created
    await unlink(name).catch(() => undefined);
    return open(name, flags, 0o600);
  }
}
