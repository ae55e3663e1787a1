import { assert } from '../base/assert.js';
import { BlockError } from '../base/errors.js';
import type { BlockDriver, BlockLimits, BlockStatus } from '../block/driver.js';
import type { BlockRequest } from '../block/request.js';

const PAGE_BYTES = 65536;

interface MemoryOptions {
  readonly bytes?: number;
  /** True (default) lets writes past the end extend it. */
  readonly growable?: boolean;
  /** Pretend to need aligned requests, as O_DIRECT does; the driver then insists on them. */
  readonly limits?: Partial<BlockLimits>;
}

/** A sparse image in memory: only pages that were written take space. */
export class MemoryDriver implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName = 'memory';
  readonly limits: BlockLimits;
  readonly growable: boolean;
  readonly #pages = new Map<number, Uint8Array>();
  #length: number;
  #closed = false;

  constructor(options: MemoryOptions = {}) {
    this.limits = { requestAlignment: 1, memoryAlignment: 1, maxTransfer: Infinity, ...options.limits };
    this.growable = options.growable ?? true;
    this.#length = options.bytes ?? 0;
    assert(this.growable || this.#length % this.limits.requestAlignment === 0, 'a fixed memory image of unaligned length');
  }

  length(): number { return this.#length; }

  async submit(request: BlockRequest): Promise<void> {
    this.#refuseClosed();
    const { op, offset, bytes, buffer } = request;
    if (op === 'read' || op === 'write') this.#insistOnAlignment(request);
    switch (op) {
      case 'read':
        return this.#read(offset, buffer!);
      case 'write':
        this.#extendTo(offset + bytes);
        return this.#write(offset, buffer!);
      case 'write-zeroes':
        this.#extendTo(offset + bytes);
        return this.#clear(offset, offset + bytes);
      case 'discard':
        return this.#clear(offset, offset + bytes);
      case 'flush':
    }
  }

  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    this.#refuseClosed();
    const first = Math.floor(offset / PAGE_BYTES);
    const last = Math.floor((offset + bytes - 1) / PAGE_BYTES);
    const present = this.#pages.has(first);
    const next = present ? this.#endOfRun(first, last) : this.#nextPresent(first, last);
    return { kind: present ? 'data' : 'zero', bytes: Math.min(bytes, next * PAGE_BYTES - offset), hostOffset: offset };
  }

  /** Call it on a drained node. */
  async resize(bytes: number): Promise<void> {
    this.#refuseClosed();
    if (bytes < this.#length) this.#clear(bytes, this.#length);
    this.#length = bytes;
  }

  async allocatedBytes(): Promise<number> {
    return this.#pages.size * PAGE_BYTES;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#pages.clear();
  }

  #refuseClosed(): void {
    if (this.#closed) throw new BlockError('CLOSED', 'the memory image is closed');
  }

  /** Aligned memory is the caller's promise too, but an address cannot be seen from here. */
  #insistOnAlignment({ op, offset, bytes }: BlockRequest): void {
    const { requestAlignment, maxTransfer } = this.limits;
    assert(offset % requestAlignment === 0 && bytes % requestAlignment === 0, `an unaligned ${op} at ${offset} of ${bytes} bytes`);
    assert(bytes <= maxTransfer, `a ${op} of ${bytes} bytes, more than ${maxTransfer}`);
  }

  #extendTo(end: number): void {
    assert(this.growable || end <= this.#length, `a write to ${end} in a fixed memory image of ${this.#length} bytes`);
    if (end > this.#length) this.#length = end;
  }

  #read(offset: number, into: Uint8Array): void {
    for (const { page, within, at, bytes } of pieces(offset, into.byteLength)) {
      const data = this.#pages.get(page);
      if (data === undefined) into.fill(0, at, at + bytes);
      else into.set(data.subarray(within, within + bytes), at);
    }
  }

  #write(offset: number, from: Uint8Array): void {
    for (const { page, within, at, bytes } of pieces(offset, from.byteLength)) {
      let data = this.#pages.get(page);
      if (data === undefined) {
        data = new Uint8Array(PAGE_BYTES);
        this.#pages.set(page, data);
      }
      data.set(from.subarray(at, at + bytes), within);
    }
  }

  /** Drops whole pages and zeroes the ends; walks whichever is shorter, the range or the pages there are. */
  #clear(start: number, end: number): void {
    const firstWhole = Math.ceil(start / PAGE_BYTES);
    const endWhole = Math.floor(end / PAGE_BYTES);
    if (endWhole - firstWhole < this.#pages.size) {
      for (let page = firstWhole; page < endWhole; page++) this.#pages.delete(page);
    } else {
      for (const page of [...this.#pages.keys()]) if (page >= firstWhole && page < endWhole) this.#pages.delete(page);
    }
    for (const page of new Set([firstWhole - 1, endWhole])) {
      const from = Math.max(start - page * PAGE_BYTES, 0);
      const to = Math.min(end - page * PAGE_BYTES, PAGE_BYTES);
      if (from < to) this.#pages.get(page)?.fill(0, from, to);
    }
  }

  #endOfRun(first: number, last: number): number {
    let page = first + 1;
    while (page <= last && this.#pages.has(page)) page++;
    return page;
  }

  #nextPresent(first: number, last: number): number {
    let next = last + 1;
    if (last - first < this.#pages.size) {
      for (next = first + 1; next <= last && !this.#pages.has(next);) next++;
    } else {
      for (const page of this.#pages.keys()) if (page > first && page < next) next = page;
    }
    return next;
  }
}

interface Piece {
  readonly page: number;
  readonly within: number;
  /** Position in the request's buffer. */
  readonly at: number;
  readonly bytes: number;
}

function* pieces(offset: number, total: number): Generator<Piece> {
  for (let at = 0; at < total;) {
    const within = (offset + at) % PAGE_BYTES;
    const bytes = Math.min(PAGE_BYTES - within, total - at);
    yield { page: (offset + at - within) / PAGE_BYTES, within, at, bytes };
    at += bytes;
  }
}
