/**
 * What all parts of an open qcow2 image share, and the barrier that orders its metadata.
 *
 * After a crash the image may leak clusters, nothing worse. `barrier` writes in two phases: refcounts (and, by the same
 * flush, data) reach the disk before any L1/L2 entry that uses them; and clusters that an L1/L2 edit unreferenced are
 * only given back after the second flush made that edit durable, so what is reused or punched is referenced by nothing,
 * neither on disk nor by an I/O in flight.
 *
 * A table that could not be written stays dirty, and the next barrier writes it again: on the disk it is old, new, or some
 * sectors of each, and every mix of them is as safe as a crash in the middle of the barrier.
 */
import { BlockError, wrapHostError } from '../../base/errors.js';
import { Mutex } from '../../base/mutex.js';
import type { BlockChild } from '../../block/child.js';
import { acting, type BlockRequest } from '../../block/request.js';
import { Corruption, type CorruptionSignal } from './corruption.js';
import { INCOMPATIBLE_CORRUPT, INCOMPATIBLE_DIRTY, type Header, type HeaderStore } from './header.js';
import { IoEpochs } from './io-epochs.js';
import { compressedExtent, ClusterKind, clusterKind, hostOffsetOf, type Geometry } from './layout.js';
import type { L1Table } from './l1-table.js';
import { OverlapCheck, type OverlapPart } from './overlap.js';
import type { Refcounts } from './refcount.js';
import type { TableCache } from './table-cache.js';

const MAX_DEFERRED_RUNS = 16384;

/** What lives in the image and must hear of its being written and closed: the persistent bitmaps. */
export interface WritingHooks {
  /** Autoclear features that are kept true. */
  readonly autoclear: bigint;
  /** There is something that only `end` would bring to the disk. */
  readonly unsaved: boolean;
  /** Before the first write, under the mutex. */
  begin(): Promise<void>;
  /** At the close, under the mutex, when all else is durable. Returns what could not be kept. */
  end(): Promise<BlockError | null>;
}

export interface ClusterRun {
  cluster: number;
  count: number;
}

/** Why clusters are given back: whether they are punched out of the file depends on it. */
export type FreeCause = 'request' | 'snapshot' | 'other' | 'always' | 'never';

/** Which of them are (QEMU's pass-discard options). */
export type PassDiscard = Readonly<Record<'request' | 'snapshot' | 'other', boolean>>;

interface DeferredRun extends ClusterRun {
  readonly cause: FreeCause;
}

interface Qcow2ImageParts {
  readonly file: BlockChild;
  readonly store: HeaderStore;
  readonly refcounts: Refcounts;
  readonly l2: TableCache;
  readonly activeL1: L1Table;
  readonly readOnly: boolean;
  readonly lazyRefcounts: boolean;
  readonly passDiscard: PassDiscard;
  readonly overlapParts: ReadonlySet<OverlapPart>;
}

export class Qcow2Image {
  readonly name: string;
  readonly file: BlockChild;
  readonly store: HeaderStore;
  readonly geometry: Geometry;
  readonly refcounts: Refcounts;
  readonly l2: TableCache;
  readonly mutex = new Mutex();
  readonly epochs = new IoEpochs();
  readonly overlap: OverlapCheck;
  lazyRefcounts: boolean;
  readOnly: boolean;
  activeL1: L1Table;
  /** False until the first write has cleared or set the header's feature bits. */
  writing = false;
  hooks: WritingHooks | null = null;
  onCorruption: ((signal: CorruptionSignal) => void) | null = null;
  /** Found corrupt while it was written: of no use until it was repaired. */
  ejected = false;
  passDiscard: PassDiscard;
  #deferred: DeferredRun[] = [];
  #failure: BlockError | null = null;
  #corruption: BlockError | null = null;

  constructor(parts: Qcow2ImageParts) {
    this.file = parts.file;
    this.name = parts.file.name;
    this.store = parts.store;
    this.geometry = parts.store.header.geometry;
    this.refcounts = parts.refcounts;
    this.l2 = parts.l2;
    this.activeL1 = parts.activeL1;
    this.readOnly = parts.readOnly;
    this.lazyRefcounts = parts.lazyRefcounts;
    this.passDiscard = parts.passDiscard;
    this.overlap = new OverlapCheck(this, parts.overlapParts);
    this.l2.beforeWrite = (offset, bytes) => this.overlap.assertFree(offset, bytes, 'active-l2');
    this.refcounts.cache.beforeWrite = (offset, bytes) => this.overlap.assertFree(offset, bytes, 'refcount-block');
    this.l2.makeClean = () => this.barrier();
    this.refcounts.guard = (work) => this.guard(work);
  }

  get header(): Header { return this.store.header; }
  get failure(): BlockError | null { return this.#failure; }

  /** Throws the sticky error of a failed metadata write: the image goes on read-only, never as if nothing had happened. */
  assertWritable(): void {
    if (this.#failure !== null) throw this.#failure;
    if (this.readOnly) throw new BlockError('READ_ONLY', `'${this.name}' is open read-only`, { node: this.name });
  }

  /** Runs metadata work under the mutex. */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    return this.locked(async () => {
      this.assertWritable();
      if (!this.writing) await this.#beginWriting();
      if (this.#deferred.length > MAX_DEFERRED_RUNS) await this.barrier();
      return work();
    });
  }

  /** Runs under the mutex; what it asks of the file is asked for whoever called. */
  locked<T>(work: () => Promise<T>): Promise<T> {
    const caller = acting();
    return this.mutex.runExclusive(caller === null ? work : () => this.#workFor(caller, work));
  }

  async #workFor<T>(caller: BlockRequest, work: () => Promise<T>): Promise<T> {
    this.file.holder = caller;
    try {
      return await work();
    } finally {
      this.file.holder = null;
    }
  }

  /**
   * Everything written so far is durable and consistent when it resolves. Under the mutex. Lazy refcounts are left to
   * the close, or to the repair that the dirty bit demands, unless the caller wants them now.
   */
  async barrier(withRefcounts = !this.lazyRefcounts): Promise<void> {
    this.assertWritable();
    await this.guard(async () => {
      if (withRefcounts) await this.refcounts.persist();
      if (this.l2.hasDirty || this.activeL1.isDirty) {
        await this.flushFile();
        await this.l2.writeBack();
        await this.activeL1.writeBack(this.file);
      }
      this.file.debugEvent('flush_to_disk');
      await this.flushFile();
      await this.#releaseDeferred();
    }, isCorruption);
  }

  /** A barrier now would do no more than flush the file: all tables are on the disk, and nobody is changing any. */
  get isSettled(): boolean {
    const metadata = this.l2.hasDirty || this.activeL1.isDirty || (this.refcounts.isDirty && !this.lazyRefcounts);
    return this.writing && this.#failure === null && !metadata && this.#deferred.length === 0 && !this.mutex.isLocked();
  }

  /** Once nothing on the disk references them. Under the mutex, so none are added meanwhile. */
  async #releaseDeferred(): Promise<void> {
    if (this.#deferred.length === 0) return;
    await this.epochs.settle();
    const frees = this.#deferred;
    this.#deferred = [];
    let begun = 0;
    try {
      while (begun < frees.length) {
        const run = frees[begun++]!;
        await this.releaseNow([run], run.cause);
      }
    } catch (error) {
      // the run that failed is not tried again: what is left of it leaks
      this.#deferred = [...frees.slice(begun), ...this.#deferred];
      throw error;
    }
  }

  /** A flush that failed leaves unknown what of all that was written before is on the disk: nothing can be built on it. */
  flushFile(): Promise<void> {
    return this.guard(() => this.file.flush());
  }

  /** Runs writes whose failure leaves the disk in an unknown state; `unknown` says after which errors it is. */
  async guard<T>(work: () => Promise<T>, unknown: (error: unknown) => boolean = () => true): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!unknown(error)) throw error;
      const cause = wrapHostError(error, `writing metadata of '${this.name}' failed`, { node: this.name });
      this.#fail(new BlockError(cause.code, `'${this.name}' is read-only since a metadata write failed: ${cause.message}`,
        { node: this.name, errno: cause.errno, offset: cause.offset, bytes: cause.bytes, cause }));
      throw error;
    }
  }

  #fail(error: BlockError): void {
    this.#failure ??= error;
  }

  /** Gives back what an L1/L2 entry referenced, once the barrier has made its removal durable. */
  deferFreeEntry(high: number, low: number, cause: FreeCause): void {
    for (const run of this.clustersOf(high, low)) this.deferFree(run.cluster, run.count, cause);
  }

  deferFree(cluster: number, count: number, cause: FreeCause = 'other'): void {
    const last = this.#deferred.at(-1);
    if (last !== undefined && last.cause === cause && last.cluster + last.count === cluster) last.count += count;
    else this.#deferred.push({ cluster, count, cause });
  }

  /** Drops references that nothing on disk makes any more. */
  async releaseNow(runs: readonly ClusterRun[], cause: FreeCause): Promise<void> {
    const punch = cause === 'always' || (cause !== 'never' && this.passDiscard[cause]);
    for (const { cluster, count } of runs) {
      this.l2.invalidate(cluster * this.geometry.clusterSize, count * this.geometry.clusterSize);
      this.file.debugEvent('cluster_free');
      if (punch) await this.#punchUnshared(cluster, count);
      await this.refcounts.adjust(cluster, count, -1);
    }
  }

  /** The host clusters that an L2 entry references. */
  clustersOf(high: number, low: number): readonly ClusterRun[] {
    const { clusterSize } = this.geometry;
    switch (clusterKind(high, low)) {
      case ClusterKind.NORMAL:
      case ClusterKind.ZERO_ALLOCATED:
        return [{ cluster: this.checkedCluster(hostOffsetOf(high, low), 'a data cluster'), count: 1 }];
      case ClusterKind.COMPRESSED: {
        const { offset, bytes } = compressedExtent(this.geometry, high, low);
        const first = Math.floor(offset / clusterSize);
        return [{ cluster: first, count: Math.floor((offset + bytes - 1) / clusterSize) - first + 1 }];
      }
      default:
        return [];
    }
  }

  /** A host offset from disk, checked before use. */
  checkedCluster(hostOffset: number, what: string | (() => string)): number {
    if (!Number.isSafeInteger(hostOffset) || hostOffset % this.geometry.clusterSize !== 0 || hostOffset === 0) {
      throw this.corrupt(typeof what === 'function' ? what() : `${what} at host offset 0x${hostOffset.toString(16)} is not at a cluster of the file`);
    }
    return hostOffset / this.geometry.clusterSize;
  }

  corrupt(why: string, range?: CorruptionSignal['range']): BlockError {
    return new Corruption(this.name, why, range);
  }

  /** Clean shutdown: everything down, then the dirty bit, last. */
  async finish(): Promise<void> {
    if (this.ejected) return; // every request since then was told
    if (this.#failure !== null) throw this.#failure;
    if (this.readOnly) return;
    if (!this.writing && this.hooks?.unsaved === true) await this.exclusive(async () => {});
    if (!this.writing) return;
    await this.mutex.runExclusive(async () => {
      await this.barrier();
      const lost = await this.hooks?.end() ?? null;
      if (this.#failure !== null) throw this.#failure;
      await this.guard(async () => {
        if (this.refcounts.isDirty) {
          await this.refcounts.persist();
          await this.file.flush();
        }
        if ((this.header.incompatible & INCOMPATIBLE_DIRTY) !== 0n) {
          await this.store.setFeatures({ incompatible: this.header.incompatible & ~INCOMPATIBLE_DIRTY });
        }
      });
      if (lost !== null) throw lost;
    });
  }

  /** Leaves the image as a close would; the next write begins anew. On a drained node. */
  async pause(): Promise<void> {
    await this.finish();
    this.writing = false;
  }

  /**
   * Metadata that contradicts itself. In a writable image nothing is read or written any more, and the mark on disk (version 3) keeps
   * others off until a repair. Told once, and once more if it becomes fatal.
   */
  async signalCorruption(error: BlockError): Promise<void> {
    const fatal = !this.readOnly;
    if (this.#corruption !== null && (!fatal || this.ejected)) return;
    this.#corruption = error;
    if (error instanceof Corruption) this.onCorruption?.({ ...error.signal, fatal });
    if (!fatal) return;
    this.ejected = true;
    this.#fail(error);
    const { version, incompatible } = this.header;
    if (version >= 3) await this.store.setFeatures({ incompatible: incompatible | INCOMPATIBLE_CORRUPT });
  }

  /** Before the first write: features this engine does not keep up to date are no longer true; lazy images are dirty. */
  async #beginWriting(): Promise<void> {
    const { incompatible, autoclear, version } = this.header;
    const wanted = this.lazyRefcounts ? incompatible | INCOMPATIBLE_DIRTY : incompatible;
    const kept = autoclear & (this.hooks?.autoclear ?? 0n);
    if (version >= 3 && (autoclear !== kept || wanted !== incompatible)) {
      await this.guard(() => this.store.setFeatures({ incompatible: wanted, autoclear: kept }));
    }
    await this.overlap.loadInactive(this.file);
    await this.guard(async () => this.hooks?.begin());
    this.writing = true;
  }

  async #punchUnshared(cluster: number, count: number): Promise<void> {
    const { clusterSize } = this.geometry;
    let start = cluster;
    for (let at = cluster; at <= cluster + count; at++) {
      if (at < cluster + count && await this.refcounts.get(at) === 1) continue;
      // Space given back is a courtesy: where the host cannot, nothing is lost
      if (at > start) await this.file.discard(start * clusterSize, (at - start) * clusterSize).catch(() => {});
      start = at + 1;
    }
  }
}

/** Metadata that contradicts itself, whatever else is known. */
export function isCorruption(error: unknown): boolean {
  return error instanceof BlockError && error.code === 'CORRUPT';
}
