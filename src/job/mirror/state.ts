/** What the background copies and the synchronous writes of one mirror share: what differs, who works where, and the figures. */
import { BlockError, errnoOf, errnoText } from '../../base/errors.js';
import { alignDown, alignUp } from '../../base/bytes.js';
import { RangeLock } from '../../base/range-lock.js';
import type { BlockChild } from '../../block/child.js';
import { DirtyBitmap } from '../../block/dirty-bitmap.js';
import type { WriteObserver } from '../../block/dirty-bitmaps.js';
import { makeRequest, type BlockRequest } from '../../block/request.js';
import type { BlockJob, OnError } from '../block-job.js';
import type { SourceMap } from './source-map.js';
import { isRefusedForNow, type MirrorTarget } from './target.js';

export type CopyMode = 'background' | 'write-blocking';

export interface MirrorParts {
  /** The filter's edge to the source. */
  readonly source: BlockChild;
  readonly target: MirrorTarget;
  readonly bitmap: DirtyBitmap;
  readonly map: SourceMap;
  readonly blockJob: BlockJob;
  readonly onSourceError: OnError;
  readonly onTargetError: OnError;
  /** Whole granules must be written to the target: it would fill the rest of a cluster with what is not below it yet. */
  readonly wholeGranules: boolean;
  /** RequestFlag bits of zeroes: OWN_ZEROES where something may come to lie below the target. */
  readonly zeroFlags: number;
}

export class MirrorState implements WriteObserver {
  readonly parts: MirrorParts;
  readonly bitmap: DirtyBitmap;
  readonly granularity: number;
  /** Whole granules that are being copied, by one at a time. */
  readonly claims = new RangeLock();
  /** Bytes of the source. */
  length = 0;
  copyMode: CopyMode = 'background';
  /** Background copies give way to users' writes, which wait for the target too. */
  givesWay = false;
  /** When the last of those writes began. */
  guestMs = -Infinity;
  /** The last thing known is that nothing differed, and since then every write went to the target too. */
  activelySynced = false;
  /** Bytes dealt with; only grows. */
  done = 0;
  /** Bytes that background copies and synchronous writes have in hand. */
  backgroundBytes = 0;
  activeBytes = 0;
  /** Synchronous writes on their way to the target whose writers have been let go. */
  unattended = 0;
  /** Bytes that the target took: what that tells of its speed. Zeroes that cost it nothing are left out. */
  written = 0;
  /** Clean bytes that users made dirty, and bytes that they wrote through. */
  dirtied = 0;
  /** The target's state is nobody's concern any more. */
  stopped = false;
  /** What `done` will be, as it looks now. */
  total = 0;
  onProgress: ((done: number, total: number) => void) | null = null;
  /** Users' requests that go to the target as well: they make nothing dirty. */
  readonly writtenThrough = new Set<BlockRequest>();
  #failure: unknown;
  #failed = false;
  #errors = 0;

  constructor(parts: MirrorParts) {
    this.parts = parts;
    this.bitmap = parts.bitmap;
    this.granularity = parts.bitmap.granularity;
  }

  /** So many bytes are equal now; `free`: that cost the target nothing. */
  finished(bytes: number, free = false): void {
    this.done += bytes;
    if (!free) this.written += bytes;
    this.onProgress?.(this.done, Math.max(this.done, this.total));
  }

  get failed(): boolean { return this.#failed; }
  get remaining(): number { return this.bitmap.count + this.backgroundBytes + this.activeBytes; }

  throwIfFailed(): void {
    if (this.#failed) throw this.#failure;
  }

  /** Every change of the source, whoever made it; it has ended. */
  wrote(offset: number, bytes: number, request: BlockRequest): void {
    this.parts.map.changed(offset, bytes);
    if (this.writtenThrough.has(request)) return;
    const before = this.bitmap.count;
    this.bitmap.set(offset, bytes);
    this.dirtied += this.bitmap.count - before;
    this.activelySynced = false;
  }

  /** What the target will have to take because of a request: the granules that it makes dirty, or what is written through. */
  costOf({ offset, bytes }: BlockRequest): number {
    if (this.copyMode === 'write-blocking') return bytes;
    const { bitmap, granularity } = this;
    const stop = alignUp(offset + bytes, granularity);
    let cost = 0;
    for (let at = alignDown(offset, granularity); at < stop;) {
      const clean = bitmap.nextClean(at, stop);
      at = bitmap.nextDirty(clean, stop);
      cost += at - clean;
    }
    return cost;
  }

  /** To be copied again, without anybody being told why. */
  again(offset: number, bytes: number): void {
    this.bitmap.set(offset, bytes);
    this.activelySynced = false;
  }

  /** What the target has lost is copied again. */
  lost(ranges: DirtyBitmap): void {
    this.bitmap.merge(ranges);
    this.activelySynced = false;
  }

  /** What differs, or may until what is under way has ended. */
  differing(): DirtyBitmap {
    const { granularity, size } = this.bitmap;
    const copy = new DirtyBitmap({ name: '', granularity, size });
    copy.merge(this.bitmap);
    for (const { start, end } of this.claims.held) copy.set(start, end - start);
    return copy;
  }

  /** What both disks were told before lasts when it resolves. */
  async flush(): Promise<void> {
    await this.parts.source.submit(makeRequest('flush', 0, 0, null, 0, 'background'));
    await this.parts.target.flush();
  }

  /** A request failed: the range is to be copied again, if the policy says that the job goes on. */
  requestFailed(operation: 'read' | 'write', error: unknown, offset: number, bytes: number): void {
    this.again(offset, bytes);
    if (this.parts.target.abandoned || isRefusedForNow(error)) return;
    this.#jobFailed(operation, error);
  }

  flushFailed(error: unknown): void {
    if (!isRefusedForNow(error)) this.#jobFailed('write', error);
  }

  /** How many errors were met since this was asked for the last time. */
  takeErrors(): number {
    const errors = this.#errors;
    this.#errors = 0;
    return errors;
  }

  #jobFailed(operation: 'read' | 'write', error: unknown): void {
    this.#errors++;
    const { blockJob, onSourceError, onTargetError } = this.parts;
    this.activelySynced = false;
    if (blockJob.onError(operation === 'read' ? onSourceError : onTargetError, operation, error) === 'report') this.fail(error);
  }

  fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    const errno = errnoOf(error);
    this.#failure = new BlockError('IO', errno === undefined && error instanceof Error ? error.message : errnoText(errno ?? 'EIO'), { errno, cause: error });
    this.parts.blockJob.job.kick();
  }
}
