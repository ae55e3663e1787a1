/**
 * The background half of a mirror: takes what is dirty, granule after granule, and brings it to the target with a
 * bounded number of operations in a bounded memory (systems.md 5.2).
 */
import { BufferPool, type Lease } from '../../base/buffer-pool.js';
import { alignDown, alignUp, GiB, MiB } from '../../base/bytes.js';
import { LEAST_PIPED_PAGES, PipePool, type PipeBuffer } from '../../base/pipe-buffer.js';
import type { RangeHold } from '../../base/range-lock.js';
import { RequestFlag } from '../../block/request.js';
import { Courtesy } from './courtesy.js';
import type { MirrorState } from './state.js';
import { events } from '../../trace/events.js';

export interface CopierOptions {
  /** Memory for what is in flight. A multiple of the granularity. */
  readonly bufferBytes: number;
  readonly operations: number;
  /** The target deallocates zeros, where it can. */
  readonly unmap: boolean;
  /** Zeroes cost the target nothing, and do not count for a rate limit. */
  readonly cheapZeroes: boolean;
  /** Zeroes are written as zeroes in whole units of this many bytes. */
  readonly targetUnit: number;
}

/** How much may be in flight; a controller makes it less for the sake of the guest. */
export interface CopierLimits {
  operations: number;
  operationBytes: number;
}

const LEAST_LARGEST_BYTES = MiB;
/** Where the disks answer at once, most of what an operation costs is to arrange it: fewer of them, each larger. */
const STRIDE = 2;
/** And then half of the memory keeps them busy, and stays in the processor's caches. */
const MEMORY_SHARE = 0.5;
/** That is, in so many milliseconds for an operation of the usual size. */
const AT_ONCE_MS = 10;
const ASK_BYTES = GiB;
/** Zeros need no memory. */
const MOST_ZEROES_BYTES = 128 * MiB;

export class Copier {
  readonly limits: CopierLimits;
  readonly #courtesy: Courtesy;
  readonly #state: MirrorState;
  readonly #options: CopierOptions;
  readonly #pool: BufferPool;
  readonly #pipes = new PipePool();
  /** What an operation on data takes where nothing asks for less. */
  readonly #usualBytes: number;
  #stride = 1;
  #inFlight = 0;
  /** Of data that is in flight. */
  #bufferedBytes = 0;
  #cursor = 0;
  #ended: () => void = () => undefined;

  constructor(state: MirrorState, options: CopierOptions) {
    this.#state = state;
    this.#options = options;
    this.#pool = new BufferPool(options.bufferBytes);
    const largest = Math.max(state.granularity, alignDown(Math.max(options.bufferBytes / 16, LEAST_LARGEST_BYTES), state.granularity));
    this.#usualBytes = Math.min(largest, options.bufferBytes);
    this.limits = { operations: options.operations, operationBytes: this.#usualBytes };
    this.#courtesy = new Courtesy({ full: { ...this.limits }, granularity: state.granularity, knownBytes: options.bufferBytes });
  }

  get #nowMs(): number { return this.#state.parts.blockJob.clock.monotonicMs(); }
  get inFlight(): number { return this.#inFlight; }
  /** Nobody claims what there is no memory for: guests may wait for what is claimed. */
  get full(): boolean { return this.#inFlight >= Math.max(1, this.#now.operations) || this.#bufferedBytes >= this.#mostInFlight; }

  get #mostInFlight(): number {
    const { bufferBytes } = this.#options;
    return this.#stride === 1 ? bufferBytes : Math.max(this.#usualBytes, bufferBytes * MEMORY_SHARE);
  }

  get #now(): Readonly<CopierLimits> {
    const { limits } = this;
    if (!this.#state.givesWay) return limits;
    const { operations, operationBytes } = this.#courtesy.limits(this.#nowMs, this.#state.guestMs);
    return { operations: Math.min(limits.operations, operations), operationBytes: Math.min(limits.operationBytes, operationBytes) };
  }

  /** Resolves when one more operation has ended. */
  oneEnded(): Promise<void> {
    return new Promise((resolve) => { this.#ended = resolve; });
  }

  async idle(): Promise<void> {
    while (this.#inFlight > 0) await this.oneEnded();
  }

  /** When nothing will be copied any more. */
  close(): void {
    this.#pipes.close();
  }

  /** What goes from the one into the other without a copy in this process; 0 where nothing does. */
  get #mostPiped(): number {
    const { source, target } = this.#state.parts;
    return Math.min(source.node.pipeBytes, target.door.node.pipeBytes);
  }

  /** Starts copies of the next dirty granules, as many as may be in flight. `bytes` counts for a rate limit. Only while not full, and something is dirty. */
  async step(spend: (bytes: number) => void): Promise<void> {
    const { bitmap, claims, granularity, length } = this.#state;
    this.#courtesy.look(this.#nowMs, this.#state.written, this.#inFlight > 0);
    let offset = bitmap.nextDirty(this.#cursor);
    if (offset >= length) {
      offset = bitmap.nextDirty(0);
      events.log?.emit('mirror_restart_iter', this.#state, bitmap.count);
    }
    if (offset >= length) return;
    const hold = claims.tryAcquire(offset, offset + granularity) ?? await claims.acquire(offset, offset + granularity);
    if (!bitmap.get(offset)) return claims.release(hold); // whoever had it has copied it
    const known = this.#state.parts.map.find(offset);
    // with a rate limit they go as slowly as data does
    const zeros = known?.zero === true && this.#state.parts.blockJob.speed === 0 ? Math.min(known.end - offset, MOST_ZEROES_BYTES) : 0;
    const most = Math.min(alignUp(length, granularity), alignUp(offset + Math.max(this.#options.bufferBytes, zeros), granularity));
    const dirtyEnd = alignUp(bitmap.nextClean(offset, most), granularity);
    const end = dirtyEnd === offset + granularity ? dirtyEnd : claims.freeUntil(offset + granularity, dirtyEnd);
    this.#cursor = end;
    // before the source is looked at: from here on, a write makes it dirty again
    bitmap.clear(offset, end - offset);
    await this.#copyClaimed(claims.extend(hold, end), spend);
  }

  async #copyClaimed(claim: RangeHold, spend: (bytes: number) => void): Promise<void> {
    const state = this.#state;
    const { map } = state.parts;
    const end = Math.min(claim.end, state.length);
    state.backgroundBytes += end - claim.start;
    let rest: RangeHold | null = claim;
    try {
      while (rest !== null && !this.full && !state.failed) {
        const at: number = rest.start;
        const { bytes, zero } = this.#piece(at, end, map.find(at) ?? await map.ask(at, Math.min(ASK_BYTES, state.length - at)));
        const [hold, behind]: readonly [RangeHold, RangeHold | null] = at + bytes >= end ? [rest, null] : state.claims.split(rest, at + bytes);
        rest = behind;
        void this.#operation(hold, at, bytes, zero);
        spend(zero && this.#options.cheapZeroes ? 0 : bytes);
      }
      // nobody has to wait for what is not even under way
      if (rest !== null) this.#handBack(rest, end);
    } catch (error) {
      if (rest === null) throw error;
      state.requestFailed('read', error, rest.start, end - rest.start);
      this.#handBack(rest, end);
    }
  }

  #handBack(claim: RangeHold, end: number): void {
    const bytes = end - claim.start;
    this.#state.again(claim.start, bytes);
    this.#state.backgroundBytes -= bytes;
    this.#cursor = claim.start;
    this.#state.claims.release(claim);
  }

  /** Whole granules, or the rest of the disk. */
  #piece(at: number, end: number, extent: { readonly end: number; readonly zero: boolean }): { bytes: number; zero: boolean } {
    const { granularity } = this.#state;
    const unit = Math.max(granularity, this.#options.targetUnit);
    const known = Math.min(end, extent.end);
    if (extent.zero && at % unit === 0) {
      const whole = known === this.#state.length ? known - at : alignDown(known - at, unit);
      if (whole > 0) return { bytes: whole, zero: true };
    }
    const most = Math.min(end - at, Math.max(granularity, alignDown(this.#mostBytes, granularity)));
    const data = extent.zero ? granularity : Math.max(granularity, alignDown(known - at, granularity));
    return { bytes: Math.min(most, data), zero: false };
  }

  get #mostBytes(): number {
    const { operationBytes } = this.#now;
    // a speed limit and a controller count in operations of the usual size
    const strides = operationBytes === this.#usualBytes && this.#state.parts.blockJob.speed === 0 ? this.#stride : 1;
    const most = Math.min(strides * operationBytes, this.#mostInFlight - this.#bufferedBytes);
    const piped = this.#mostPiped;
    return piped < LEAST_PIPED_PAGES ? most : Math.min(most, piped);
  }

  async #operation(hold: RangeHold, offset: number, bytes: number, zero: boolean): Promise<void> {
    const state = this.#state;
    const buffered = zero ? 0 : bytes;
    this.#inFlight++;
    this.#bufferedBytes += buffered;
    events.log?.emit('mirror_one_iteration', state, offset, bytes);
    const copied = zero ? await this.#zero(offset, bytes) : await this.#copy(offset, bytes);
    this.#inFlight--;
    this.#bufferedBytes -= buffered;
    events.log?.emit('mirror_iteration_done', state, offset, bytes, copied ? 0 : -1);
    state.backgroundBytes -= bytes;
    if (this.#inFlight === 0) this.#pipes.closeFree();
    if (copied) state.finished(bytes, zero && this.#options.cheapZeroes);
    state.claims.release(hold);
    this.#ended();
  }

  async #zero(offset: number, bytes: number): Promise<boolean> {
    const { target, zeroFlags } = this.#state.parts;
    try {
      await target.send('write-zeroes', offset, bytes, null, zeroFlags + (this.#options.unmap ? RequestFlag.MAY_UNMAP + RequestFlag.UNMAP_AT_DOOR : 0));
      return true;
    } catch (error) {
      this.#state.requestFailed('write', error, offset, bytes);
      return false;
    }
  }

  async #copy(offset: number, bytes: number): Promise<boolean> {
    const { source, target } = this.#state.parts;
    const lease = await this.#lease(bytes);
    if (lease === null) {
      this.#state.again(offset, bytes);
      return false;
    }
    let operation: 'read' | 'write' = 'read';
    const beganMs = this.#nowMs;
    let pipe: PipeBuffer | undefined;
    try {
      if (bytes >= LEAST_PIPED_PAGES && bytes <= this.#mostPiped) pipe = this.#pipes.take(lease.buffer);
      await source.read(offset, lease.buffer, 'background', pipe);
      operation = 'write';
      await target.send('write', offset, bytes, lease.buffer, 0, pipe);
      const tookMs = this.#nowMs - beganMs;
      this.#courtesy.ended(tookMs);
      this.#stride = tookMs * this.#usualBytes <= AT_ONCE_MS * bytes ? STRIDE : 1;
      return true;
    } catch (error) {
      this.#state.requestFailed(operation, error, offset, bytes);
      return false;
    } finally {
      const giveBack = (): void => {
        lease.release();
        if (pipe !== undefined) this.#pipes.give(pipe);
      };
      // an abandoned target may still read it
      if (target.abandoned) void target.settled().then(giveBack);
      else giveBack();
    }
  }

  /** Null where the target was abandoned first: what it may still read is never given back. */
  async #lease(bytes: number): Promise<Lease | null> {
    const leasing = this.#pool.lease(bytes);
    if (!(leasing instanceof Promise)) return leasing;
    const lease = await this.#state.parts.target.unlessAbandoned(leasing);
    if (lease === null) void leasing.then((late) => late.release());
    return lease;
  }
}
