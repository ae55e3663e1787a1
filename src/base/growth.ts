/**
 * Allocates a growing file ahead of its writes. Inside a file the file system lets O_DIRECT writes run side by side; one
 * that extends it, or fills a hole, excludes all others until it is on the disk.
 */
import { ftruncateSync } from 'node:fs';
import { alignUp, MiB } from './bytes.js';
import { capabilities, preallocate } from './libc.js';

/** Small growth is not worth a call. */
const WORTHWHILE = 4 * MiB;
/** Each call waits for the writes in flight, so there should be few; what it takes too much is given back at the end. */
const MAX_AHEAD = 512 * MiB;
const AHEAD_PER_GROWTH = 8;
/** Parallel writers are this much out of order at most; a write further off leaves a hole on purpose. */
const MAX_GAP = 16 * MiB;

export class Growth {
  readonly #fd: number;
  /** Where the growth without holes began. */
  #start: number;
  /** From #start to here the file is allocated. */
  #end: number;
  #extending: Promise<void> | null = null;
  #works = capabilities().whyNot === null;
  #used = false;

  /** `length` is the file's length now. */
  constructor(fd: number, length: number) {
    this.#fd = fd;
    this.#start = length;
    this.#end = length;
  }

  /**
   * For a write from `offset` to `end`, past the file's `length`: null where it may go ahead, else a promise that
   * resolves (it never rejects) when it may.
   */
  before(length: number, offset: number, end: number): Promise<void> | null {
    if (!this.#works || end <= this.#end) return null;
    if (offset - Math.max(length, this.#end) > MAX_GAP) this.#start = this.#end = offset;
    return end - this.#start < WORTHWHILE ? null : this.#extendPast(end);
  }

  /** Takes back what no write used; `length` covers every write so far. Synchronous: nothing may be written meanwhile. */
  trim(length: number): void {
    if (this.#used) ftruncateSync(this.#fd, length);
    this.#used = false;
    this.#start = this.#end = length;
  }

  async #extendPast(end: number): Promise<void> {
    while (this.#works && end > this.#end) await (this.#extending ??= this.#extend(end));
  }

  async #extend(end: number): Promise<void> {
    const ahead = Math.min(MAX_AHEAD, AHEAD_PER_GROWTH * (end - this.#start));
    const [from, target] = [this.#end, alignUp(end + ahead, MiB)];
    try {
      await preallocate(this.#fd, from, target - from, { extend: true });
      if (this.#end === from) this.#end = target;
    } catch {
      this.#works = false; // no such call here, or no room for that much: the writes grow the file themselves
    }
    this.#used = true; // also where it failed: a part may have been allocated
    this.#extending = null;
  }
}
