/**
 * The filter that makes a point in time last: before users change what the node below holds, the old content of the
 * clusters is copied to a second node. What it was when the filter came can be read through `SnapshotAccess`.
 */
import { alignDown, alignUp, KiB } from '../base/bytes.js';
import { systemClock, type Clock } from '../base/clock.js';
import { BlockError } from '../base/errors.js';
import { RangeLock, type RangeHold } from '../base/range-lock.js';
import { BlockChild } from '../block/child.js';
import { DirtyBitmap } from '../block/dirty-bitmap.js';
import type { BlockStatus } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { Permission, reaches, type EdgeUse } from '../block/permissions.js';
import { makeRequest, RequestFlag, type BlockRequest } from '../block/request.js';
import { chainStatus } from '../block/status.js';
import { BlockCopy } from './block-copy.js';
import { FilterDriver } from './filter.js';

/** What fails where the copy fails: the write of the user, or the snapshot. */
export type OnCbwError = 'break-guest-write' | 'break-snapshot';

export interface CopyBeforeWriteOptions {
  readonly child: BlockNode;
  /** As long as `child`, or longer. */
  readonly target: BlockNode;
  /** What belongs to the snapshot: the rest is not copied, and cannot be read from it. Default: all. */
  readonly bitmap?: DirtyBitmap | null | undefined;
  readonly onError?: OnCbwError | undefined;
  /** For how long a write waits for its copy at most; 0 = for ever. */
  readonly timeoutMs?: number | undefined;
  readonly clock?: Clock | undefined;
}

/** The content of a node as it was. */
export interface SnapshotAccess {
  readSnapshot(request: BlockRequest): Promise<void>;
  snapshotStatus(offset: number, bytes: number): Promise<BlockStatus>;
  /** Nobody will read the range any more: it need not be copied. */
  discardSnapshot(request: BlockRequest): Promise<void>;
}

export class CopyBeforeWriteFilter extends FilterDriver implements SnapshotAccess {
  readonly formatName = 'copy-before-write';
  override readonly children: readonly BlockChild[];
  readonly target: BlockChild;
  readonly copying: BlockCopy;
  /** What may be read from the snapshot, and what of it lies in the target. */
  readonly accessible: DirtyBitmap;
  readonly done: DirtyBitmap;
  readonly shownBitmaps: readonly DirtyBitmap[];
  readonly #source: BlockNode;
  /** The target shows the snapshot itself, and what is not copied yet from the source. */
  readonly #liesOnSource: boolean;
  readonly #onError: OnCbwError;
  readonly #timeoutMs: number;
  readonly #clock: Clock;
  /** Reads of the snapshot from the node below: who writes there waits for them. */
  readonly #reads = new RangeLock();
  /** Copies that nobody waits for any more. */
  readonly #leftAlone = new Set<Promise<unknown>>();
  #broken: Error | null = null;
  #ended = false;

  constructor({ child, target, bitmap, onError = 'break-guest-write', timeoutMs = 0, clock = systemClock }: CopyBeforeWriteOptions) {
    super(child);
    this.target = new BlockChild('target', 'data', target);
    this.children = [this.file, this.target];
    this.#onError = onError;
    this.#timeoutMs = timeoutMs;
    this.#clock = clock;
    const clusterSize = copyClusterSize(target);
    this.#liesOnSource = reaches(target, child);
    this.copying = new BlockCopy({ source: this.file, target: this.target, clusterSize });
    const granules = { name: '', granularity: clusterSize, size: this.copying.length, enabled: false };
    this.done = new DirtyBitmap(granules);
    this.accessible = new DirtyBitmap(granules);
    if (bitmap) this.copying.bitmap.merge(bitmap);
    else this.copying.bitmap.set(0, this.copying.length);
    this.accessible.merge(this.copying.bitmap);
    this.shownBitmaps = [this.done, this.accessible];
    this.#source = child;
    child.bitmaps.anonymous.add(this.copying.bitmap);
  }

  /** Nobody wants the snapshot any more: nothing is copied from now on, and who waits for a copy goes on. */
  end(): void {
    this.#ended = true;
    this.copying.abandon();
  }

  readonly childUse = (child: BlockChild, { used, shared }: EdgeUse): EdgeUse => {
    if (child === this.target) return { used: Permission.WRITE, shared: Permission.ALL & ~Permission.RESIZE };
    // without users nothing is written, and nobody is kept from writing
    if (child.parent === null || child.parent.parents.size === 0) return { used, shared };
    return {
      used: used | ((used & Permission.WRITE) === 0 ? 0 : Permission.CONSISTENT_READ), shared: shared & ~(Permission.WRITE | Permission.RESIZE),
    };
  };

  override submit(request: BlockRequest): Promise<void> {
    const changes = request.op !== 'read' && request.op !== 'flush' && (request.flags & RequestFlag.IF_UNALLOCATED) === 0;
    if (!changes || this.#broken !== null || this.#ended) return this.forward(request);
    const start = alignDown(request.offset, this.copying.clusterSize);
    const bytes = Math.min(alignUp(request.offset + request.bytes, this.copying.clusterSize), this.copying.length) - start;
    if (this.#reads.heldCount > 0 || !this.copying.isCopied(start, bytes)) return this.#submitAfterCopy(request, start, bytes);
    this.done.set(start, bytes);
    return this.forward(request);
  }

  async #submitAfterCopy(request: BlockRequest, start: number, bytes: number): Promise<void> {
    const error = await this.#copy(start, bytes);
    if (error === null) await this.#copied(start, bytes);
    else if (this.#ended) return this.forward(request);
    else if (this.#onError === 'break-guest-write') throw error;
    else this.#broken ??= error;
    this.#reads.release(await this.#reads.acquire(start, start + bytes));
    await this.forward(request);
  }

  /** Who reads the old content through the target finds it there from now on, and not below it: reads that were under way may still be on their way to there. */
  async #copied(start: number, bytes: number): Promise<void> {
    this.done.set(start, bytes);
    if (this.#liesOnSource) await this.target.node.drained(async () => undefined);
  }

  /** Resolves with what failed. */
  async #copy(offset: number, bytes: number): Promise<Error | null> {
    const call = this.copying.start({ offset, bytes });
    const ended = call.ended.then((failure) => (failure === null ? null : failure.error));
    if (this.#timeoutMs === 0) return ended;
    const timer = new AbortController();
    const timeout = this.#clock.sleep(this.#timeoutMs, timer.signal).then(() => new BlockError(
      'IO', `'${this.target.name}' did not take a copy in ${this.#timeoutMs} ms`, { node: this.target.name, offset, bytes, errno: 'ETIMEDOUT' }));
    const error = await Promise.race([ended, timeout]);
    timer.abort();
    if (!call.finished) {
      call.cancel();
      this.#leftAlone.add(ended);
      void ended.then(() => this.#leftAlone.delete(ended));
    }
    return error;
  }

  async readSnapshot(request: BlockRequest): Promise<void> {
    for (let at = request.offset; at < request.offset + request.bytes;) {
      const { from, end, hold } = await this.#lock(at, request.offset + request.bytes);
      try {
        const buffer = request.buffer!.subarray(at - request.offset, end - request.offset);
        await from.submit(makeRequest('read', at, end - at, buffer, 0, request.ioClass));
      } finally {
        if (hold !== null) this.#reads.release(hold);
      }
      at = end;
    }
  }

  async snapshotStatus(offset: number, bytes: number): Promise<BlockStatus> {
    const { from, end, hold } = await this.#lock(offset, offset + bytes);
    try {
      const { kind, bytes: told } = await chainStatus(await from.settled(), offset, end - offset);
      return { kind: kind === 'unallocated' ? 'zero' : kind, bytes: told };
    } finally {
      if (hold !== null) this.#reads.release(hold);
    }
  }

  async discardSnapshot({ offset, bytes, flags, ioClass }: BlockRequest): Promise<void> {
    const { clusterSize, length } = this.copying;
    const start = alignUp(offset, clusterSize);
    const end = offset + bytes >= length ? length : alignDown(offset + bytes, clusterSize);
    if (end <= start) return;
    this.accessible.clear(start, end - start);
    this.copying.drop(start, end - start);
    await this.target.submit(makeRequest('discard', start, end - start, null, flags, ioClass));
  }

  /** Where the first part of a range of the snapshot lies; nobody changes it there until the hold is released. */
  async #lock(start: number, stop: number): Promise<{ readonly from: BlockChild; readonly end: number; readonly hold: RangeHold | null }> {
    this.#refuseUnreadable(start, stop);
    const inTarget = this.done.get(start);
    const end = inTarget ? this.done.nextClean(start, stop) : this.done.nextDirty(start, stop);
    if (inTarget) return { from: this.target, end, hold: null };
    const hold = this.#reads.tryAcquire(start, end, false);
    if (hold !== null) return { from: this.file, end, hold };
    // a write waits there: its clusters are copied by now
    this.#reads.release(await this.#reads.acquire(start, end, false));
    return this.#lock(start, stop);
  }

  #refuseUnreadable(start: number, stop: number): void {
    const refuse = (why: string): never => {
      throw new BlockError('IO', `the snapshot of '${this.file.name}' ${why}`, { node: this.file.name, offset: start, bytes: stop - start, errno: 'EACCES' });
    };
    if (this.#broken !== null) refuse('is broken: an old cluster could not be copied');
    if (this.accessible.nextClean(start, stop) < stop) refuse('does not hold the range');
  }

  override async close(): Promise<void> {
    this.#source.bitmaps.anonymous.delete(this.copying.bitmap);
    await Promise.all(this.#leftAlone);
  }
}

/** What the target writes as a whole, at least 64 KiB: with smaller pieces it would mix new data with what lies below it. */
function copyClusterSize(target: BlockNode): number {
  for (let node: BlockNode | undefined = target; node !== undefined; node = node.children.find(({ role }) => role === 'file' || role === 'filtered')?.node) {
    const size = node.driver.describe?.().clusterSize;
    if (size !== undefined) return Math.max(MIN_COPY_CLUSTER, size);
    if (node.driver.kind === 'format' && node.driver.formatName !== 'raw') break;
  }
  return MIN_COPY_CLUSTER;
}

const MIN_COPY_CLUSTER = 64 * KiB;
