/**
 * Fits requests to a driver that wants aligned offsets, lengths and memory (O_DIRECT): bounces through page-aligned
 * buffers, pads reads, and turns unaligned writes into read-modify-write under a range lock.
 */
import { alignDown, alignUp, MiB } from '../base/bytes.js';
import { BufferPool, isAlignedBuffer } from '../base/buffer-pool.js';
import { DONE } from '../base/done.js';
import { RangeLock, type RangeHold } from '../base/range-lock.js';
import type { BlockDriver, BlockLimits } from './driver.js';
import { makePart, type BlockRequest } from './request.js';

const BOUNCE_BYTES = MiB;
/** Shared by all nodes: a lease is held only across one host I/O, which never needs another, so waiting cannot deadlock. */
let bouncePool: BufferPool | null = null;

function bounce(bytes: number): ReturnType<BufferPool['lease']> {
  bouncePool ??= new BufferPool(16 * MiB);
  return bouncePool.lease(bytes);
}

export function needsPadding(limits: BlockLimits): boolean {
  return limits.requestAlignment > 1 || limits.memoryAlignment > 1 || limits.maxTransfer !== Infinity;
}

export class AlignedIo {
  readonly #driver: BlockDriver;
  readonly #issue: (request: BlockRequest) => Promise<void>;
  readonly #onWait: (request: BlockRequest) => void;
  readonly #onSplit: (request: BlockRequest, at: number) => void;
  /** Aligned writes hold their range shared, padded ones exclusive: a read-modify-write never undoes a neighbour. */
  readonly #ranges = new RangeLock();

  constructor(
    driver: BlockDriver, issue: (request: BlockRequest) => Promise<void>,
    onWait: (request: BlockRequest) => void, onSplit: (request: BlockRequest, at: number) => void,
  ) {
    this.#driver = driver;
    this.#issue = issue;
    this.#onWait = onWait;
    this.#onSplit = onSplit;
  }

  /** Whether the request goes to the driver as it is. */
  passes(request: BlockRequest): boolean {
    return (request.op !== 'read' && request.op !== 'write') || this.#goesAsItIs(request);
  }

  read(request: BlockRequest): Promise<void> {
    return this.#goesAsItIs(request) ? this.#issue(request) : this.#readParts(request);
  }

  async #readParts(request: BlockRequest): Promise<void> {
    for (const part of this.#split(request)) {
      if (this.#fits(part)) {
        await this.#issue(part);
        continue;
      }
      const align = this.#driver.limits.requestAlignment;
      const start = alignDown(part.offset, align);
      const end = alignUp(part.offset + part.bytes, align);
      const lease = await bounce(end - start);
      try {
        await this.#readPadded(start, lease.buffer, part, '');
        part.buffer!.set(lease.buffer.subarray(part.offset - start, part.offset - start + part.bytes));
      } finally {
        lease.release();
      }
    }
  }

  write(request: BlockRequest): Promise<void> {
    const { offset, bytes } = request;
    const hold = this.#goesAsItIs(request) ? this.#ranges.tryAcquire(offset, offset + bytes, false) : null;
    if (hold === null) return this.#writeParts(request);
    this.#driver.debugEvent?.('pwritev');
    const writing = this.#issue(request);
    if (writing !== DONE) return this.#releaseAfter(writing, hold);
    this.#ranges.release(hold);
    return DONE;
  }

  async #releaseAfter(writing: Promise<void>, hold: RangeHold): Promise<void> {
    try {
      await writing;
    } finally {
      this.#ranges.release(hold);
    }
  }

  async #writeParts(request: BlockRequest): Promise<void> {
    const align = this.#driver.limits.requestAlignment;
    for (const part of this.#split(request)) {
      const start = alignDown(part.offset, align);
      const end = alignUp(part.offset + part.bytes, align);
      const unaligned = start !== part.offset || end !== part.offset + part.bytes;
      const hold = this.#ranges.tryAcquire(start, end, unaligned) ?? await this.#turn(request, start, end, unaligned);
      try {
        if (this.#fits(part)) {
          if (part.offset === request.offset) this.#driver.debugEvent?.('pwritev');
          await this.#issue(part);
        } else {
          await this.#writeBounced(part, start, end, part.offset === request.offset);
        }
      } finally {
        this.#ranges.release(hold);
      }
    }
  }

  #turn(request: BlockRequest, start: number, end: number, alone: boolean): Promise<RangeHold> {
    this.#onWait(request);
    return this.#ranges.acquire(start, end, alone);
  }

  /** Write-zeroes and discard go down as they are, but never into the middle of a read-modify-write, which would undo them. */
  async deallocate(request: BlockRequest): Promise<void> {
    const align = this.#driver.limits.requestAlignment;
    const start = alignDown(request.offset, align);
    const end = alignUp(request.offset + request.bytes, align);
    const unaligned = start !== request.offset || end !== request.offset + request.bytes;
    const hold = this.#ranges.tryAcquire(start, end, unaligned) ?? await this.#turn(request, start, end, unaligned);
    try {
      await this.#issue(request);
    } finally {
      this.#ranges.release(hold);
    }
  }

  async #writeBounced(part: BlockRequest, start: number, end: number, first: boolean): Promise<void> {
    const lease = await bounce(end - start);
    try {
      const { buffer } = lease;
      const head = part.offset - start;
      const tail = end - (part.offset + part.bytes);
      if (head > 0 || tail > 0) await this.#readAround(part, buffer, start, head, tail);
      if (first) this.#driver.debugEvent?.('pwritev');
      buffer.set(part.buffer!, head);
      const write = makePart(wholeOf(part), 'write', start, end - start, buffer, part.flags, part.ioClass);
      if (head > 0 || tail > 0) write.cause = 'rmw';
      await this.#issue(write);
    } finally {
      lease.release();
    }
  }

  /** What a padded write keeps of its first and last unit. */
  async #readAround(part: BlockRequest, buffer: Uint8Array, start: number, head: number, tail: number): Promise<void> {
    const driver = this.#driver;
    const align = driver.limits.requestAlignment;
    const single = buffer.byteLength === align; // both ends lie in it, one read gives them
    if (head > 0) driver.debugEvent?.('pwritev_rmw_head');
    if (tail > 0 && single) driver.debugEvent?.('pwritev_rmw_tail');
    if (head > 0 || single) await this.#readPadded(start, buffer.subarray(0, align), part, 'rmw');
    if (head > 0) driver.debugEvent?.('pwritev_rmw_after_head');
    if (tail > 0 && !single) {
      driver.debugEvent?.('pwritev_rmw_tail');
      await this.#readPadded(start + buffer.byteLength - align, buffer.subarray(buffer.byteLength - align), part, 'rmw');
    }
    if (tail > 0) driver.debugEvent?.('pwritev_rmw_after_tail');
  }

  /** Reads an aligned range whose end may lie past the end of the node: what is not there is zeros. */
  async #readPadded(start: number, into: Uint8Array, part: BlockRequest, cause: string): Promise<void> {
    if (start >= this.#driver.length()) {
      into.fill(0);
      return;
    }
    const read = makePart(wholeOf(part), 'read', start, into.byteLength, into, 0, part.ioClass);
    read.cause = cause;
    await this.#issue(read);
  }

  #goesAsItIs(request: BlockRequest): boolean {
    return request.bytes <= this.#driver.limits.maxTransfer && this.#fits(request);
  }

  #fits(request: BlockRequest): boolean {
    const { requestAlignment: align, memoryAlignment } = this.#driver.limits;
    return request.offset % align === 0 && request.bytes % align === 0 && isAlignedBuffer(request.buffer!, memoryAlignment);
  }

  /** Cuts by the driver's largest transfer, and by the bounce size where a bounce is needed. */
  *#split(request: BlockRequest): Generator<BlockRequest> {
    const { maxTransfer, requestAlignment: align } = this.#driver.limits;
    const limit = this.#fits(request) ? maxTransfer : Math.min(maxTransfer, BOUNCE_BYTES);
    let done = 0;
    while (done < request.bytes) {
      const offset = request.offset + done;
      const bytes = Math.min(request.bytes - done, limit === Infinity ? Infinity : alignDown(offset + limit, align) - offset);
      if (done > 0) this.#onSplit(request, offset);
      yield done === 0 && bytes === request.bytes
        ? request
        : makePart(request, request.op, offset, bytes, request.buffer!.subarray(done, done + bytes), request.flags, request.ioClass);
      done += bytes;
    }
  }
}

/** What the node was asked for: the part itself, or what it is a part of. (Only a trace asks.) */
function wholeOf(part: BlockRequest): BlockRequest | null {
  return part.lane === null ? part.parent : part;
}
