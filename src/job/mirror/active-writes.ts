/**
 * The synchronous half of a mirror: in copy-mode write-blocking, what users write goes to the source, then to the target,
 * and only then is it answered (systems.md 5.2). Whether it does is decided once for each request.
 */
import { alignDown, alignUp } from '../../base/bytes.js';
import type { RangeHold } from '../../base/range-lock.js';
import type { BlockChild } from '../../block/child.js';
import { makePart, RequestFlag, type BlockRequest } from '../../block/request.js';
import { chainStatus } from '../../block/status.js';
import type { MirrorState } from './state.js';

export class ActiveWrites {
  readonly #state: MirrorState;
  /** Of those who wait for the target: they are let go without it. */
  readonly #waiting = new Set<() => void>();
  /** When each write began that has not ended, oldest first. */
  readonly #began = new Set<{ readonly ms: number }>();
  #slowestMs = 0;

  constructor(state: MirrorState) {
    this.#state = state;
  }

  /** The slowest write that has ended since this was asked for the last time. */
  takeSlowestMs(): number {
    const slowest = this.#slowestMs;
    this.#slowestMs = 0;
    return slowest;
  }

  /** For how long the oldest write has been under way; 0 without one. */
  get oldestMs(): number {
    for (const { ms } of this.#began) return this.#state.parts.blockJob.clock.monotonicMs() - ms;
    return 0;
  }

  /** For InterceptFilter.intercept. */
  readonly intercept = (request: BlockRequest, below: BlockChild): Promise<void> => {
    const state = this.#state;
    const through = state.copyMode === 'write-blocking' && !state.stopped && !state.failed && !state.parts.target.abandoned && !state.parts.target.draining;
    const { op, offset, bytes, buffer, flags, ioClass } = request;
    if (!through || bytes === 0) return below.submit(makePart(request, op, offset, bytes, buffer, flags, ioClass));
    return this.#measured(this.#writeThrough(request, below));
  };

  /** All who wait for the target now are answered when the source has what they wrote; it is copied later. */
  letGo(): void {
    for (const letGo of this.#waiting) letGo();
    this.#waiting.clear();
  }

  async #measured(writing: Promise<void>): Promise<void> {
    const { clock } = this.#state.parts.blockJob;
    const began = { ms: clock.monotonicMs() };
    this.#began.add(began);
    this.#state.guestMs = began.ms;
    try {
      await writing;
    } finally {
      this.#began.delete(began);
      this.#slowestMs = Math.max(this.#slowestMs, clock.monotonicMs() - began.ms);
    }
  }

  async #writeThrough(asked: BlockRequest, below: BlockChild): Promise<void> {
    const { op, offset, bytes, buffer, flags, ioClass } = asked;
    const state = this.#state;
    const { granularity } = state;
    // the user may change its buffer meanwhile, and both disks must get the same
    const request = makePart(asked, op, offset, bytes, buffer === null ? null : Uint8Array.from(buffer), flags, ioClass);
    const hold = await this.#claim(alignDown(offset, granularity), alignUp(offset + bytes, granularity));
    if (hold === null) return below.submit(request);
    state.writtenThrough.add(request);
    // before it is under way: what somebody else writes there meanwhile, past this after a change of mode, makes it dirty again
    this.#clearWhole(offset, offset + bytes);
    try {
      await below.submit(request);
    } catch (error) {
      state.again(offset, bytes);
      state.claims.release(hold);
      throw error;
    } finally {
      state.writtenThrough.delete(request);
    }
    state.dirtied += bytes;
    let over = false;
    const copied = this.#copy(request, below).finally(() => {
      over = true;
      state.claims.release(hold);
    });
    // the range stays claimed until the target has answered, for what is copied later must not be overtaken by this
    await this.#unlessLetGo(copied);
    if (over) return;
    state.unattended++;
    const ended = (): void => { state.unattended--; };
    copied.then(ended, ended);
  }

  /** Granules that are written as a whole need no other copy. */
  #clearWhole(start: number, end: number): void {
    const { granularity, bitmap, length } = this.#state;
    const first = alignUp(start, granularity);
    const stop = end >= length ? length : alignDown(end, granularity);
    if (stop > first) bitmap.clear(first, stop - first);
  }

  /** Null where it was let go before all who work on the range had ended. */
  async #claim(start: number, end: number): Promise<RangeHold | null> {
    const { claims } = this.#state;
    const free = claims.tryAcquire(start, end);
    if (free !== null) return free;
    let held: RangeHold | null = null;
    let gone = false;
    await this.#unlessLetGo(claims.acquire(start, end).then((hold) => {
      if (gone) claims.release(hold);
      else held = hold;
    }));
    gone = true;
    return held;
  }

  #unlessLetGo(work: Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        this.#waiting.delete(resolve);
        settle();
      };
      this.#waiting.add(resolve);
      work.then(() => end(resolve), (error: unknown) => end(() => reject(error)));
    });
  }

  async #copy(request: BlockRequest, below: BlockChild): Promise<void> {
    const rest = this.#withoutDirtyEnds(request);
    if (rest === null) return;
    const state = this.#state;
    const whole = state.parts.wholeGranules ? await this.#wholeGranules(rest, below) : rest;
    if (whole === null) return;
    const { offset, bytes } = whole;
    state.activeBytes += bytes;
    state.total += bytes;
    try {
      await (request.op === 'discard' ? this.#copyDiscard(offset, bytes, below) : this.#send(whole));
      state.finished(bytes);
    } catch (error) {
      // the ends were clean, or are no part of it
      state.requestFailed('write', error, offset, bytes);
    } finally {
      state.activeBytes -= bytes;
    }
  }

  /** What lies in a dirty granule that is not written as a whole stays dirty, and is copied with the rest of it. */
  #withoutDirtyEnds(request: BlockRequest): BlockRequest | null {
    const { granularity, bitmap, length } = this.#state;
    const { op, buffer, flags, ioClass } = request;
    let start = request.offset;
    let end = start + request.bytes;
    const head = alignUp(start, granularity);
    if (head !== start && bitmap.get(start)) {
      bitmap.set(start, 1);
      start = head;
    }
    const tail = alignDown(end, granularity);
    if (tail !== end && end !== length && end > start && bitmap.get(end - 1)) {
      bitmap.set(end - 1, 1);
      end = tail;
    }
    if (start >= end) return null;
    if (start === request.offset && end === start + request.bytes) return request;
    return makePart(request.parent, op, start, end - start, buffer === null ? null : buffer.subarray(start - request.offset, end - request.offset), flags, ioClass);
  }

  /** Where the target gets whole granules, what surrounds the write comes from the source; null where that could not be read. */
  async #wholeGranules(request: BlockRequest, below: BlockChild): Promise<BlockRequest | null> {
    const { granularity, length } = this.#state;
    const { offset, bytes, flags, ioClass } = request;
    const start = alignDown(offset, granularity);
    const end = Math.min(alignUp(offset + bytes, granularity), length);
    if (start === offset && end === offset + bytes) return request;
    const buffer = new Uint8Array(end - start);
    try {
      await below.read(start, buffer, ioClass);
      return makePart(request.parent, 'write', start, end - start, buffer, flags & RequestFlag.FUA, ioClass);
    } catch (error) {
      this.#state.requestFailed('read', error, offset, bytes);
      return null;
    }
  }

  /** For whoever wrote, at the filter. */
  #send({ op, offset, bytes, buffer, flags, ioClass, parent }: BlockRequest): Promise<void> {
    const { FUA, MAY_UNMAP } = RequestFlag;
    const { target, zeroFlags } = this.#state.parts;
    const keep = (flags & FUA) + (op === 'write-zeroes' ? (flags & MAY_UNMAP) + zeroFlags : 0);
    return target.submit(makePart(parent, op, offset, bytes, buffer, keep, ioClass));
  }

  /** A discard leaves what the source makes of it: zeros are written as such, and all else is copied. */
  async #copyDiscard(offset: number, bytes: number, below: BlockChild): Promise<void> {
    const source = await below.settled();
    const { target, zeroFlags } = this.#state.parts;
    for (let at = offset; at < offset + bytes;) {
      const status = await chainStatus(source, at, offset + bytes - at);
      if (status.kind === 'data') this.#state.again(at, status.bytes);
      else await target.send('write-zeroes', at, status.bytes, null, zeroFlags + RequestFlag.MAY_UNMAP);
      at += status.bytes;
    }
  }
}
