/**
 * Small reads and writes done on the event loop itself, where the host answers from memory: a round through the thread
 * pool costs ten times the copy. `false` always means "take the thread pool", which then also tells the errors.
 */
import fs from 'node:fs';
import { arenaAddress } from '../base/buffer-pool.js';
import { capabilities, readNoWait, writeNoWait } from '../base/libc.js';
import { spendTurn } from '../base/turn-budget.js';

/** A larger copy is better made beside the event loop. */
const MAX_BYTES = 64 * 1024;
const TMPFS_MAGIC = 0x0102_1994;

export interface QuickIo {
  read(into: Uint8Array, offset: number): boolean;
  write(from: Uint8Array, offset: number): boolean;
}

/** True where the file's content is memory of the host (tmpfs). */
export function isInMemory(fd: number): boolean {
  try {
    return fs.statfsSync(`/proc/self/fd/${fd}`).type === TMPFS_MAGIC;
  } catch {
    return false;
  }
}

/** Null where nothing can be had without waiting: past the page cache every request waits for the device. */
export function quickIo(fd: number, options: { readonly inMemory: boolean; readonly direct: boolean }): QuickIo | null {
  if (options.inMemory) return new MemoryFileIo(fd);
  return options.direct || !capabilities().noWait ? null : new CachedIo(fd);
}

/** No call waits: reading and writing is copying. */
class MemoryFileIo implements QuickIo {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  read(into: Uint8Array, offset: number): boolean {
    return isWhole(into, () => fs.readSync(this.#fd, into, 0, into.byteLength, offset));
  }

  write(from: Uint8Array, offset: number): boolean {
    return isWhole(from, () => fs.writeSync(this.#fd, from, 0, from.byteLength, offset));
  }
}

function isWhole({ byteLength }: Uint8Array, copy: () => number): boolean {
  if (byteLength > MAX_BYTES || !spendTurn(byteLength)) return false;
  try {
    return copy() === byteLength;
  } catch {
    return false;
  }
}

/** Takes what the kernel gives without waiting: pages in the cache, and writes on the file systems that know how. */
class CachedIo implements QuickIo {
  readonly #fd: number;
  #reads = true;
  #writes = true;

  constructor(fd: number) {
    this.#fd = fd;
  }

  read(into: Uint8Array, offset: number): boolean {
    const address = this.#reads ? this.#admit(into) : null;
    if (address === null) return false;
    const moved = readNoWait(this.#fd, address, into.byteLength, offset);
    if (moved === 'unsupported') this.#reads = false;
    return moved === into.byteLength;
  }

  write(from: Uint8Array, offset: number): boolean {
    const address = this.#writes ? this.#admit(from) : null;
    if (address === null) return false;
    const moved = writeNoWait(this.#fd, address, from.byteLength, offset);
    if (moved === 'unsupported') this.#writes = false;
    return moved === from.byteLength;
  }

  /** The buffer's address, if it has one that host calls can take and the turn has room for it. */
  #admit(buffer: Uint8Array): bigint | null {
    const bytes = buffer.byteLength;
    if (bytes > MAX_BYTES) return null;
    const address = arenaAddress(buffer);
    return address !== null && spendTurn(bytes) ? address : null;
  }
}
