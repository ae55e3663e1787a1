/**
 * Page-aligned buffers. O_DIRECT refuses memory that is not aligned to the device's block, and ordinary Buffers are
 * not; a WebAssembly.Memory is page-aligned by construction. The arena has a fixed size and never grows (growing would
 * detach every view): an empty pool means waiting, and that wait is the back-pressure.
 */
import { alignUp } from './bytes.js';
import { BlockError } from './errors.js';
import { addressOf } from './libc.js';

export const PAGE = 4096;
const WASM_PAGE = 65536;

export interface Lease {
  /** Page-aligned; exactly the asked length. */
  readonly buffer: Uint8Array;
  /** Gives the memory back. A second call does nothing. */
  release(): void;
}

interface Waiter {
  readonly size: number;
  readonly grant: (start: number) => void;
}

/** Every arena, with its address once someone asked for it. */
const arenas = new WeakMap<ArrayBufferLike, { address: bigint | null }>();

/** True where the buffer's address and length fit O_DIRECT at the given alignment (known for arena memory only). */
export function isAlignedBuffer(buffer: Uint8Array, alignment: number): boolean {
  if (alignment === 1) return true;
  return arenas.has(buffer.buffer) && buffer.byteOffset % alignment === 0 && buffer.byteLength % alignment === 0;
}

/** Where the buffer lies in the process's memory, for host calls that take addresses; null for other than arena memory. */
export function arenaAddress(buffer: Uint8Array): bigint | null {
  const arena = arenas.get(buffer.buffer);
  if (arena === undefined) return null;
  arena.address ??= addressOf(new Uint8Array(buffer.buffer, 0, 1));
  return arena.address + BigInt(buffer.byteOffset);
}

export class BufferPool {
  readonly bytes: number;
  readonly #memory: Uint8Array;
  /** Free extents, ascending by start and never adjacent. */
  #free: { start: number; bytes: number }[];
  #bytesFree: number;
  #waiters: Waiter[] = [];

  constructor(bytes: number) {
    this.bytes = alignUp(bytes, WASM_PAGE);
    this.#bytesFree = this.bytes;
    const pages = this.bytes / WASM_PAGE;
    this.#memory = new Uint8Array(new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer);
    arenas.set(this.#memory.buffer, { address: null });
    this.#free = [{ start: 0, bytes: this.bytes }];
  }

  get bytesFree(): number { return this.#bytesFree; }

  /** Leases `bytes` page-aligned bytes (content undefined); waits, first come first served, while the pool is empty. */
  lease(bytes: number): Promise<Lease> | Lease {
    const size = Math.max(alignUp(bytes, PAGE), PAGE);
    if (size > this.bytes) {
      throw new BlockError('INVALID_ARGUMENT', `a buffer of ${bytes} bytes does not fit in a pool of ${this.bytes}`);
    }
    const start = this.#waiters.length === 0 ? this.#take(size) : -1;
    if (start >= 0) return this.#leaseAt(start, size, bytes);
    return new Promise((resolve) => {
      this.#waiters.push({ size, grant: (at) => resolve(this.#leaseAt(at, size, bytes)) });
    });
  }

  #leaseAt(start: number, size: number, bytes: number): Lease {
    let held = true;
    return {
      buffer: this.#memory.subarray(start, start + bytes),
      release: () => {
        if (!held) return;
        held = false;
        this.#give(start, size);
      },
    };
  }

  #take(size: number): number {
    const index = this.#free.findIndex((extent) => extent.bytes >= size);
    if (index < 0) return -1;
    const extent = this.#free[index]!;
    const { start } = extent;
    this.#bytesFree -= size;
    if (extent.bytes === size) this.#free.splice(index, 1);
    else this.#free[index] = { start: start + size, bytes: extent.bytes - size };
    return start;
  }

  #give(start: number, bytes: number): void {
    this.#bytesFree += bytes;
    let index = this.#free.findIndex((extent) => extent.start > start);
    if (index < 0) index = this.#free.length;
    const before = this.#free[index - 1];
    const after = this.#free[index];
    const joinsBefore = before !== undefined && before.start + before.bytes === start;
    const joinsAfter = after !== undefined && start + bytes === after.start;
    const merged = {
      start: joinsBefore ? before.start : start,
      bytes: bytes + (joinsBefore ? before.bytes : 0) + (joinsAfter ? after.bytes : 0),
    };
    this.#free.splice(index - (joinsBefore ? 1 : 0), (joinsBefore ? 1 : 0) + (joinsAfter ? 1 : 0), merged);
    while (this.#waiters.length > 0) {
      const at = this.#take(this.#waiters[0]!.size);
      if (at < 0) return;
      this.#waiters.shift()!.grant(at);
    }
  }
}
