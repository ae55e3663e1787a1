/**
 * Guest offsets to host offsets over one L1 table: `lookup` answers where a range is, `editable` gives a slice of an L2
 * table that may be changed. No data moves here.
 */
import { RangeLock } from '../../base/range-lock.js';
import { because } from '../../block/request.js';
import { hex } from './corruption.js';
import type { Qcow2Image } from './image.js';
import type { L1Table } from './l1-table.js';
import {
  ClusterKind, clusterKind, compressedExtent, ENTRY_BYTES, hostOffsetOf, isCopied, type CompressedExtent, type Geometry,
} from './layout.js';
import type { CachedTable } from './table-cache.js';
import { events } from '../../trace/events.js';

/** A run of guest bytes that one answer covers. */
export interface Extent {
  readonly kind: ClusterKind;
  readonly bytes: number;
  /** NORMAL, ZERO_ALLOCATED: where the first of those bytes lies in the file. */
  readonly hostOffset: number;
  /** NORMAL, ZERO_ALLOCATED: the clusters belong to this mapping alone, so writing in place is right. */
  readonly copied: boolean;
  readonly compressed: CompressedExtent | null;
}

/** One slice of an L2 table, at the entry of a guest offset. */
interface SliceAt {
  readonly slice: CachedTable;
  readonly index: number;
}

export class Mapping {
  readonly image: Qcow2Image;
  readonly geometry: Geometry;
  /** Guest cluster ranges whose mapping is being changed; data and copy-on-write run under it, outside the mutex. */
  readonly changing = new RangeLock();
  /** The mapping may be edited (false for a snapshot's). */
  readonly writable: boolean;
  #l1: () => L1Table;
  readonly #firstL1Index: number;

  /** `l1` is asked each time, since snapshots and growing replace the active table. */
  constructor(image: Qcow2Image, l1: () => L1Table, firstL1Index = 0, writable = true) {
    this.image = image;
    this.geometry = image.geometry;
    this.#l1 = l1;
    this.#firstL1Index = firstL1Index;
    this.writable = writable;
  }

  /**
   * The extent at `offset`, at most `bytes` long, or null where its L2 slice is not in memory: then `fetch` it, and hand
   * what it gave to the next lookup.
   */
  lookup(offset: number, bytes: number, fetched: CachedTable | null = null): Extent | null {
    const { clusterSize, bytesPerSlice } = this.geometry;
    const inSlice = bytesPerSlice - (offset % bytesPerSlice);
    const limit = Math.min(bytes, inSlice);
    const sliceOffset = this.#sliceOffset(offset);
    if (sliceOffset === 0) return this.#extent(ClusterKind.UNALLOCATED, limit);
    const slice = this.image.l2.peek(sliceOffset) ?? fetched;
    if (slice === null || slice.offset !== sliceOffset || !this.image.l2.isNewest(slice)) return null;
    const inCluster = offset % clusterSize;
    const index = this.#indexInSlice(offset);
    const high = slice.view.getUint32(index * ENTRY_BYTES);
    const low = slice.view.getUint32(index * ENTRY_BYTES + 4);
    const kind = this.#checkedKind(high, low, offset);
    if (kind === ClusterKind.COMPRESSED) {
      return { kind, bytes: Math.min(limit, clusterSize - inCluster), hostOffset: 0, copied: false, compressed: compressedExtent(this.geometry, high, low) };
    }
    const count = this.#runLength(slice, index, Math.ceil((inCluster + limit) / clusterSize));
    const span = Math.min(limit, count * clusterSize - inCluster);
    if (kind !== ClusterKind.NORMAL && kind !== ClusterKind.ZERO_ALLOCATED) return this.#extent(kind, span);
    return { kind, bytes: span, hostOffset: hostOffsetOf(high, low) + inCluster, copied: isCopied(high), compressed: null };
  }

  /** Brings the L2 slice of an offset into memory for `lookup`, and into the cache as far as it has room. */
  async fetch(offset: number): Promise<CachedTable | null> {
    const { image } = this;
    const sliceOffset = this.#sliceOffset(offset);
    if (sliceOffset === 0) return null;
    if (!image.l2.hasRoom && !image.readOnly && image.failure === null) {
      // Every table in the cache is dirty: only the mutex may write them back. Where that fails, a reader can do without
      return image.exclusive(() => image.l2.loadForEdit(sliceOffset)).catch(() => image.l2.load(sliceOffset));
    }
    return image.l2.load(sliceOffset);
  }

  /** Lookup for callers that can wait. */
  async find(offset: number, bytes: number): Promise<Extent> {
    let fetched: CachedTable | null = null;
    for (;;) {
      const extent = this.lookup(offset, bytes, fetched);
      if (extent !== null) return extent;
      fetched = await this.fetch(offset);
    }
  }

  /**
   * The slice that maps `offset`, ready to be edited until the next await: its L2 table exists and belongs to this
   * mapping alone. Under the mutex.
   */
  async editable(offset: number): Promise<SliceAt> {
    const l1 = this.#l1();
    const l1Index = this.#l1Index(offset);
    if (l1.l2Offset(l1Index) === 0) await this.#newTable(l1, offset, null);
    else if (!l1.copied(l1Index)) await this.#newTable(l1, offset, l1.l2Offset(l1Index));
    const slice = await this.image.l2.loadForEdit(this.#sliceOffset(offset));
    return { slice, index: this.#indexInSlice(offset) };
  }

  /** True where no L2 table maps the offset. */
  tableMissing(offset: number): boolean {
    return this.#sliceOffset(offset) === 0;
  }

  /** Entries from `index` on, at most `count`, that continue one run: same kind, same ownership, adjacent in the file. */
  #runLength(slice: CachedTable, index: number, count: number): number {
    const { view } = slice;
    const { clusterSize } = this.geometry;
    const high = view.getUint32(index * ENTRY_BYTES);
    const low = view.getUint32(index * ENTRY_BYTES + 4);
    const kind = clusterKind(high, low);
    const located = kind === ClusterKind.NORMAL || kind === ClusterKind.ZERO_ALLOCATED;
    const host = hostOffsetOf(high, low);
    let run = 1;
    for (; run < count; run++) {
      const at = (index + run) * ENTRY_BYTES;
      const nextHigh = view.getUint32(at);
      const nextLow = view.getUint32(at + 4);
      if (clusterKind(nextHigh, nextLow) !== kind) break;
      if (located && (isCopied(nextHigh) !== isCopied(high) || hostOffsetOf(nextHigh, nextLow) !== host + run * clusterSize)) break;
    }
    return run;
  }

  #checkedKind(high: number, low: number, offset: number): ClusterKind {
    const kind = clusterKind(high, low);
    if (this.image.header.version < 3 && (kind === ClusterKind.ZERO_PLAIN || kind === ClusterKind.ZERO_ALLOCATED)) {
      throw this.image.corrupt(`Zero cluster entry found in pre-v3 image ${this.#entryName(offset)}`);
    }
    if (kind === ClusterKind.NORMAL || kind === ClusterKind.ZERO_ALLOCATED) {
      const host = hostOffsetOf(high, low);
      this.image.checkedCluster(host, () => `Cluster allocation offset ${hex(host)} unaligned ${this.#entryName(offset)}`);
    }
    return kind;
  }

  #entryName(offset: number): string {
    const { bytesPerL1, clusterSize } = this.geometry;
    return `(L2 offset: ${hex(this.#l1().l2Offset(this.#l1Index(offset)))}, L2 index: ${hex(Math.floor((offset % bytesPerL1) / clusterSize))})`;
  }

  #checkedTable(table: number, l1Index: number): void {
    this.image.checkedCluster(table, () => `L2 table offset ${hex(table)} unaligned (L1 index: ${hex(l1Index)})`);
  }

  /** Makes the L2 table for a guest offset, and keeps the slice that maps it in memory. */
  async #newTable(l1: L1Table, guestOffset: number, copyFrom: number | null): Promise<void> {
    const { image, geometry } = this;
    const { clusterSize, sliceBytes } = geometry;
    const l1Index = this.#l1Index(guestOffset);
    const bytes = new Uint8Array(clusterSize);
    events.log?.emit('qcow2_l2_allocate', image, l1Index);
    if (copyFrom !== null) {
      this.#checkedTable(copyFrom, l1Index);
      image.file.debugEvent('l2_alloc_cow_read');
      await because('l2-alloc', () => image.file.read(copyFrom, bytes, 'metadata'));
    }
    const offset = await image.refcounts.allocate(1);
    events.log?.emit('qcow2_l2_allocate_get_empty', image, l1Index);
    image.file.debugEvent('l2_alloc_write');
    events.log?.emit('qcow2_l2_allocate_write_l2', image, l1Index);
    try {
      await because('l2-alloc', () => image.file.write(offset, bytes, 0, 'metadata'));
      for (let at = 0; at < clusterSize; at += sliceBytes) image.l2.invalidate(offset + at, sliceBytes);
      const needed = this.#sliceInTable(guestOffset);
      await image.l2.insert(offset + needed, bytes.slice(needed, needed + sliceBytes));
    } catch (error) {
      await image.refcounts.adjust(offset / clusterSize, 1, -1);
      throw error;
    }
    events.log?.emit('qcow2_l2_allocate_write_l1', image, l1Index);
    l1.set(l1Index, offset);
    events.log?.emit('qcow2_l2_allocate_done', image, l1Index, 0);
    if (copyFrom !== null) image.deferFree(copyFrom / clusterSize, 1);
  }

  #l1Index(offset: number): number {
    return Math.floor(offset / this.geometry.bytesPerL1) + this.#firstL1Index;
  }

  #indexInSlice(offset: number): number {
    return Math.floor((offset % this.geometry.bytesPerSlice) / this.geometry.clusterSize);
  }

  /** Host offset of the L2 slice that maps a guest offset; 0 = no L2 table. */
  #sliceOffset(offset: number): number {
    const l1 = this.#l1();
    const l1Index = this.#l1Index(offset);
    if (l1Index >= l1.entries) return 0;
    const table = l1.l2Offset(l1Index);
    if (table === 0) return 0;
    this.#checkedTable(table, l1Index);
    return table + this.#sliceInTable(offset);
  }

  /** Where in its L2 table the slice of a guest offset begins. */
  #sliceInTable(offset: number): number {
    const { bytesPerL1, bytesPerSlice, sliceBytes } = this.geometry;
    return Math.floor((offset % bytesPerL1) / bytesPerSlice) * sliceBytes;
  }

  #extent(kind: ClusterKind, bytes: number): Extent {
    return { kind, bytes, hostOffset: 0, copied: false, compressed: null };
  }
}
