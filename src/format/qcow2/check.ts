/**
 * Consistency: every reference in the image is counted and compared with the refcounts it records; COPIED flags of the
 * active tables must say exactly "refcount 1". Leaks (recorded > found) waste space; everything else is corruption.
 */
import { viewOf } from '../../base/bytes.js';
import { BlockError, messageOf } from '../../base/errors.js';
import type { CheckOptions, CheckResult } from '../../block/driver.js';
import { ReadBudget, readDirectory, readTable, trustedExtension, type DirectoryEntry } from './bitmap-directory.js';
import { INCOMPATIBLE_CORRUPT, INCOMPATIBLE_DIRTY } from './header.js';
import type { Qcow2Image } from './image.js';
import { L1Table } from './l1-table.js';
import {
  clusterKind, ClusterKind, compressedExtent, ENTRY_BYTES, HIGH_COPIED, hostOffsetOf, isCopied, MAX_SNAPSHOT_TABLE_BYTES, ownsCluster, SECTOR,
} from './layout.js';
import { ReferenceCounts } from './reference-counts.js';
import { snapshotTableBytes, type SnapshotEntry } from './snapshot-table.js';

const MAX_MESSAGES = 1000;

type Repair = NonNullable<CheckOptions['repair']>;
type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export class Checker {
  readonly #image: Qcow2Image;
  readonly #snapshots: readonly SnapshotEntry[];
  readonly #counts = new ReferenceCounts();
  readonly #messages: string[] = [];
  readonly #fileClusters: number;
  readonly #result: Mutable<Omit<CheckResult, 'messages'>> = {
    corruptions: 0, leaks: 0, checkErrors: 0, corruptionsFixed: 0, leaksFixed: 0,
    totalClusters: 0, allocatedClusters: 0, fragmentedClusters: 0, compressedClusters: 0, imageEndOffset: 0,
  };
  /** Indices of the usable refcount blocks. */
  readonly #blocks: number[] = [];
  #nextExpected = 0;
  /** Until leaked clusters are given back, the image ends behind them. */
  #lastLeaked = 0;

  constructor(image: Qcow2Image, snapshots: readonly SnapshotEntry[]) {
    this.#image = image;
    this.#snapshots = snapshots;
    this.#fileClusters = Math.ceil(image.file.length() / image.geometry.clusterSize);
  }

  /** With `wholly`, an image that a repair cannot put in order as a whole is left as it is. */
  async run(options: CheckOptions, wholly = false): Promise<CheckResult> {
    const repair = options.repair ?? 'none';
    const { header } = this.#image;
    this.#result.totalClusters = Math.ceil(header.size / this.#image.geometry.clusterSize);
    await this.#countEverything(options);
    if (wholly && !this.#isRepairable()) return { ...this.#result, corruptions: Math.max(1, this.#result.corruptions), messages: this.#messages };
    await this.#compare(repair);
    await this.#checkCopied(repair);
    // Also of an image with lazy refcounts: with its dirty bit goes what would have them computed anew
    if (repair !== 'none') await this.#image.mutex.runExclusive(() => this.#image.barrier(true));
    const clean = this.#result.corruptions === 0 && this.#result.checkErrors === 0;
    if (repair === 'all' && clean && (header.incompatible & (INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT)) !== 0n) {
      await this.#image.store.setFeatures({ incompatible: header.incompatible & ~(INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT) });
    }
    this.#result.imageEndOffset = (Math.max(this.#counts.highest, repair === 'none' ? this.#lastLeaked : 0) + 1) * this.#image.geometry.clusterSize;
    return { ...this.#result, messages: this.#messages };
  }

  /** What the walk itself found wrong has no repair; refcounts and flags always have, unless a count does not fit. */
  #isRepairable(): boolean {
    const { refcountMax } = this.#image.geometry;
    for (const [, found] of this.#counts) if (found > refcountMax) return false;
    return this.#result.corruptions === 0 && this.#result.checkErrors === 0;
  }

  /** The message is only made where it is kept: damage can be everywhere. */
  #report(kind: 'corruptions' | 'leaks' | 'checkErrors', message: () => string): void {
    this.#result[kind]++;
    if (this.#messages.length < MAX_MESSAGES) this.#messages.push(message());
  }

  /** Counts one reference to each cluster of a range, if the range can be real. */
  #count(offset: number, bytes: number, what: () => string, aligned = true): boolean {
    const { clusterSize } = this.#image.geometry;
    if (!Number.isSafeInteger(offset) || (aligned && offset % clusterSize !== 0)) {
      this.#report('corruptions', () => `${what()} at 0x${offset.toString(16)} is not at a cluster of the file`);
      return false;
    }
    const first = Math.floor(offset / clusterSize);
    const last = Math.floor((offset + bytes - 1) / clusterSize);
    if (last >= this.#fileClusters) {
      this.#report('corruptions', () => `${what()} at 0x${offset.toString(16)} lies beyond the end of the file`);
      if (first >= this.#fileClusters) return false;
    }
    this.#counts.add(first, Math.min(last, this.#fileClusters - 1) - first + 1);
    return true;
  }

  async #countEverything(options: CheckOptions): Promise<void> {
    const { header, geometry, activeL1 } = this.#image;
    const { clusterSize } = geometry;
    this.#count(0, clusterSize, () => 'the header');
    this.#count(header.refcountTableOffset, header.refcountTableClusters * clusterSize, () => 'the refcount table');
    this.#countBlocks();
    if (header.l1Entries > 0) this.#count(header.l1Offset, header.l1Entries * ENTRY_BYTES, () => 'the active L1 table');
    const total = header.l1Entries + this.#snapshots.reduce((sum, snapshot) => sum + snapshot.l1Entries, 0);
    let done = 0;
    const progress = (): void => options.onProgress?.(++done, total);
    await this.#countTree(activeL1, 'the active disk', true, progress);
    for (const snapshot of this.#snapshots) {
      if (snapshot.l1Entries === 0) continue;
      const what = `snapshot '${snapshot.name}'`;
      if (!this.#count(snapshot.l1Offset, snapshot.l1Entries * ENTRY_BYTES, () => `the L1 table of ${what}`)) continue;
      await this.#countTree(await L1Table.load(this.#image.file, snapshot.l1Offset, snapshot.l1Entries), what, false, progress);
    }
    if (header.snapshotsOffset > 0 && this.#snapshots.length > 0) {
      this.#count(header.snapshotsOffset, Math.min(snapshotTableBytes(this.#snapshots), MAX_SNAPSHOT_TABLE_BYTES), () => 'the snapshot table');
    }
    await this.#countBitmaps();
  }

  /** Blocks that lie in the file and are used once; any other cannot hold refcounts of its own. */
  #countBlocks(): void {
    const seen = new Set<number>();
    const { usedTableEntries } = this.#image.refcounts;
    for (let index = 0; index < usedTableEntries; index++) {
      const offset = this.#blockOffset(index);
      if (offset === 0 || !this.#count(offset, this.#image.geometry.clusterSize, () => `refcount block ${index}`)) continue;
      if (seen.has(offset)) {
        this.#report('corruptions', () => `refcount block ${index} is that of another entry of the refcount table`);
        continue;
      }
      seen.add(offset);
      this.#blocks.push(index);
    }
  }

  #blockOffset(index: number): number {
    try {
      return this.#image.refcounts.blockOffset(index);
    } catch (error) {
      this.#report('corruptions', () => messageOf(error));
      return 0;
    }
  }

  async #countTree(l1: L1Table, what: string, active: boolean, progress: () => void): Promise<void> {
    const { clusterSize } = this.#image.geometry;
    for (let index = 0; index < l1.entries; index++) {
      progress();
      const offset = l1.l2Offset(index);
      if (offset === 0) continue;
      if (!this.#count(offset, clusterSize, () => `L2 table ${index} of ${what}`)) continue;
      const table = new Uint8Array(clusterSize);
      await this.#image.file.read(offset, table, 'metadata');
      this.#countL2(viewOf(table), index, what, active);
    }
  }

  #countL2(view: DataView, l1Index: number, what: string, active: boolean): void {
    const { clusterSize, l2Entries } = this.#image.geometry;
    for (let index = 0; index < l2Entries; index++) {
      const high = view.getUint32(index * ENTRY_BYTES);
      const low = view.getUint32(index * ENTRY_BYTES + 4);
      const kind = clusterKind(high, low);
      const where = (): string => `guest cluster ${l1Index * l2Entries + index} of ${what}`;
      if (kind === ClusterKind.COMPRESSED) {
        const { offset, bytes } = compressedExtent(this.#image.geometry, high, low);
        if (isCopied(high)) this.#report('corruptions', () => `${where()} is compressed and has the COPIED flag`);
        // The count of sectors is an upper bound: the last ones may lie past the end of the file
        this.#count(offset, Math.max(1, Math.min(bytes, Math.ceil(this.#image.file.length() / SECTOR) * SECTOR - offset)), where, false);
        if (active) this.#result.compressedClusters++;
      } else if (ownsCluster(kind)) {
        const host = hostOffsetOf(high, low);
        this.#count(host, clusterSize, where);
        if (active && kind === ClusterKind.NORMAL) this.#noteFragment(host);
      } else if (isCopied(high)) {
        this.#report('corruptions', () => `${where()} has no host cluster, but the COPIED flag`);
      }
      if (this.#image.header.version < 3 && (kind === ClusterKind.ZERO_PLAIN || kind === ClusterKind.ZERO_ALLOCATED)) {
        this.#report('corruptions', () => `${where()} is a zero cluster in a version 2 image`);
      }
      if (active && (kind === ClusterKind.NORMAL || kind === ClusterKind.COMPRESSED)) this.#result.allocatedClusters++;
    }
  }

  #noteFragment(host: number): void {
    if (this.#nextExpected !== 0 && host !== this.#nextExpected) this.#result.fragmentedClusters++;
    this.#nextExpected = host + this.#image.geometry.clusterSize;
  }

  /** Persistent bitmaps are only trusted (and counted) while the autoclear bit says that they are consistent. */
  async #countBitmaps(): Promise<void> {
    const { header, file, geometry, name } = this.#image;
    try {
      const extension = trustedExtension(header, name);
      if (extension === null) return;
      if (!this.#count(extension.directoryOffset, extension.directoryBytes, () => 'the bitmap directory')) return;
      const entries = await readDirectory(file, extension, geometry);
      const budget = new ReadBudget(file);
      for (const entry of entries) await this.#countBitmap(entry, budget);
    } catch (error) {
      if (!(error instanceof BlockError) || error.code !== 'INVALID_IMAGE') throw error;
      this.#report('corruptions', () => error.message);
    }
  }

  async #countBitmap(entry: DirectoryEntry, budget: ReadBudget): Promise<void> {
    const { file, geometry } = this.#image;
    if (!this.#count(entry.tableOffset, entry.tableEntries * ENTRY_BYTES, () => `the table of bitmap '${entry.name}'`)) return;
    for (const at of await readTable(file, entry, geometry, budget)) {
      if (typeof at === 'number') this.#count(at, geometry.clusterSize, () => `data of bitmap '${entry.name}'`);
    }
  }

  /** Recorded against found. Too high is a leak; too low would let the allocator hand a used cluster out. */
  async #compare(repair: Repair): Promise<void> {
    const { refcountBlockEntries } = this.#image.geometry;
    const usable = new Set(this.#blocks);
    for (const index of this.#blocks) {
      await this.#eachDifference(index, (cluster, recorded, found) => {
        if (recorded > found) this.#lastLeaked = Math.max(this.#lastLeaked, cluster);
        if (recorded > found) this.#report('leaks', () => `leaked cluster ${cluster}: refcount ${recorded}, references ${found}`);
        else this.#report('corruptions', () => `cluster ${cluster}: refcount ${recorded}, but ${found} references`);
      });
    }
    for (const [cluster, found] of this.#counts) {
      if (usable.has(Math.floor(cluster / refcountBlockEntries))) continue;
      this.#report('corruptions', () => `cluster ${cluster}: refcount 0, but ${found} references`);
    }
    // Lowered first: the blocks that raising makes are in no count, and would look like leaks
    if (repair !== 'none') await this.#image.mutex.runExclusive(() => this.#lower());
    if (repair === 'all') await this.#image.mutex.runExclusive(() => this.#raise(usable));
  }

  /** Calls back for each cluster of a refcount block whose recorded refcount is not what was found. */
  async #eachDifference(index: number, visit: (cluster: number, recorded: number, found: number) => void): Promise<void> {
    const { refcounts, geometry } = this.#image;
    const first = index * geometry.refcountBlockEntries;
    const used = await refcounts.usedBlockEntries(index);
    const end = Math.min(geometry.refcountBlockEntries, Math.max(used, this.#counts.highest + 1 - first));
    const recordedAt = await refcounts.blockReader(index);
    for (let entry = 0; entry < end; entry++) {
      const recorded = recordedAt(entry);
      const found = this.#counts.get(first + entry);
      if (recorded !== found) visit(first + entry, recorded, found);
    }
  }

  async #raise(usable: ReadonlySet<number>): Promise<void> {
    const { refcounts, geometry } = this.#image;
    // Clusters below may be in use though their recorded refcount is 0: new refcount blocks go beyond all of them
    refcounts.allocateFrom(Math.max(this.#counts.highest + 1, this.#fileClusters));
    for (const index of this.#blocks) {
      const low: [cluster: number, found: number][] = [];
      await this.#eachDifference(index, (cluster, recorded, found) => { if (recorded < found) low.push([cluster, found]); });
      for (const [cluster, found] of low) await this.#setRefcount(cluster, found, 'corruptions');
    }
    for (const [cluster, found] of this.#counts) {
      if (usable.has(Math.floor(cluster / geometry.refcountBlockEntries))) continue;
      await refcounts.ensureBlock(cluster);
      await this.#setRefcount(cluster, found, 'corruptions');
    }
    await this.#image.barrier(true);
  }

  async #lower(): Promise<void> {
    for (const index of this.#blocks) {
      const high: [cluster: number, found: number][] = [];
      await this.#eachDifference(index, (cluster, recorded, found) => { if (recorded > found) high.push([cluster, found]); });
      for (const [cluster, found] of high) await this.#setRefcount(cluster, found, 'leaks');
    }
  }

  async #setRefcount(cluster: number, value: number, kind: 'corruptions' | 'leaks'): Promise<void> {
    if (value > this.#image.geometry.refcountMax) throw new BlockError('CORRUPT', `cluster ${cluster} has ${value} references, more than its refcount can hold`);
    await this.#image.refcounts.set(cluster, value);
    this.#fixed(kind);
  }

  #fixed(kind: 'corruptions' | 'leaks'): void {
    this.#result[kind]--;
    this.#result[kind === 'leaks' ? 'leaksFixed' : 'corruptionsFixed']++;
  }

  /**
   * COPIED must be set exactly where the refcount is 1; judged by what the refcounts are after a repair. Repairing leaks
   * sets missing flags too: the cluster only looked shared.
   */
  async #checkCopied(repair: Repair): Promise<void> {
    const { activeL1, geometry } = this.#image;
    for (let index = 0; index < activeL1.entries; index++) {
      const offset = activeL1.l2Offset(index);
      if (offset === 0 || !Number.isSafeInteger(offset) || offset % geometry.clusterSize !== 0) continue;
      const copied = await this.#image.refcounts.get(offset / geometry.clusterSize) === 1;
      if (copied !== activeL1.copied(index)) {
        this.#report('corruptions', () => `the COPIED flag of L1 entry ${index} is wrong`);
        if (this.#mayFixCopied(offset, copied, repair)) {
          activeL1.set(index, offset, copied);
          this.#fixed('corruptions');
        }
      }
      for (let at = 0; at < geometry.clusterSize; at += geometry.sliceBytes) {
        await this.#checkCopiedInSlice(offset + at, index * geometry.l2Entries + at / ENTRY_BYTES, repair);
      }
    }
  }

  async #checkCopiedInSlice(sliceOffset: number, firstCluster: number, repair: Repair): Promise<void> {
    const { geometry, refcounts, l2 } = this.#image;
    const { view } = await l2.load(sliceOffset);
    const fixes: [index: number, copied: boolean][] = [];
    for (let index = 0; index < geometry.sliceEntries; index++) {
      const high = view.getUint32(index * ENTRY_BYTES);
      const low = view.getUint32(index * ENTRY_BYTES + 4);
      if (!ownsCluster(clusterKind(high, low))) continue;
      const host = hostOffsetOf(high, low);
      if (!Number.isSafeInteger(host) || host % geometry.clusterSize !== 0) continue;
      const copied = await refcounts.get(host / geometry.clusterSize) === 1;
      if (copied === isCopied(high)) continue;
      this.#report('corruptions', () => `the COPIED flag of guest cluster ${firstCluster + index} is wrong`);
      if (this.#mayFixCopied(host, copied, repair)) fixes.push([index, copied]);
    }
    if (fixes.length > 0) await this.#image.mutex.runExclusive(() => this.#fixCopied(sliceOffset, fixes));
  }

  async #fixCopied(sliceOffset: number, fixes: readonly [index: number, copied: boolean][]): Promise<void> {
    const slice = await this.#image.l2.loadForEdit(sliceOffset);
    this.#image.l2.markDirty(slice);
    for (const [index, copied] of fixes) {
      const high = slice.view.getUint32(index * ENTRY_BYTES);
      slice.view.setUint32(index * ENTRY_BYTES, copied ? (high | HIGH_COPIED) >>> 0 : (high & ~HIGH_COPIED) >>> 0);
      this.#fixed('corruptions');
    }
  }

  #mayFixCopied(host: number, copied: boolean, repair: Repair): boolean {
    return repair === 'all' || (repair === 'leaks' && copied && this.#counts.get(host / this.#image.geometry.clusterSize) === 1);
  }
}
