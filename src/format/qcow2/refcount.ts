/**
 * Host clusters: the two-level refcount table and the allocator. All methods run under the image's metadata mutex.
 *
 * Nothing here is ordered against the L1/L2 tables: increments may reach the disk at any time (a crash then leaks), and
 * decrements are only ever made after the barrier that unreferenced the cluster (see Qcow2Image). New refcount blocks
 * become reachable in `persist`, after a flush has made their content durable.
 */
import { beforeZeros, divCeil, getU64, MAX_OFFSET, setU64, viewOf } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import { SegmentedBitSet } from '../../base/segmented-bitset.js';
import type { BlockChild } from '../../block/child.js';
import { because } from '../../block/request.js';
import { Corruption, hex, overlapMessage, overlapName } from './corruption.js';
import type { HeaderStore } from './header.js';
import { ENTRY_BYTES, MAX_REFCOUNT_TABLE_BYTES, SECTOR, type Geometry } from './layout.js';
import { refcountCodec, type RefcountCodec } from './refcount-codec.js';
import { TableCache, type CachedTable } from './table-cache.js';
import { events } from '../../trace/events.js';

const MAX_HOST_OFFSET = Math.min(2 ** 56, MAX_OFFSET);

export class Refcounts {
  readonly cache: TableCache;
  /** Runs a step whose failure leaves the disk in an unknown state; set by the image. */
  guard: <T>(work: () => Promise<T>) => Promise<T> = (work) => work();
  readonly #file: BlockChild;
  readonly #store: HeaderStore;
  readonly #geometry: Geometry;
  readonly #codec: RefcountCodec;
  #table: DataView;
  #tableOffset: number;
  readonly #dirtySectors = new SegmentedBitSet();
  /** No cluster below is free, as far as known. */
  #freeHint = 0;
  /** Runs of this many clusters or more are not to be found below `#runFrom`: spares rescanning small holes. */
  #runCount = Infinity;
  #runFrom = 0;
  /** The clusters of the refcount blocks; made when something is first allocated. */
  #blockClusters: SegmentedBitSet | null = null;
  /** Counts how often a refcount block or the table came, went or moved. */
  moves = 0;

  /** `cacheBlocks`: how many refcount blocks stay in memory. */
  constructor(file: BlockChild, store: HeaderStore, table: Uint8Array, cacheBlocks: number) {
    this.#file = file;
    this.#store = store;
    this.#geometry = store.header.geometry;
    this.#codec = refcountCodec(this.#geometry.refcountBits);
    this.#table = viewOf(table);
    this.#tableOffset = store.header.refcountTableOffset;
    const { clusterSize } = this.#geometry;
    this.cache = new TableCache(file, clusterSize, cacheBlocks, 'refcount');
  }

  static async load(file: BlockChild, store: HeaderStore, cacheBlocks: number): Promise<Refcounts> {
    const { header } = store;
    const table = new Uint8Array(header.refcountTableClusters * header.geometry.clusterSize);
    file.debugEvent('reftable_load');
    await file.read(header.refcountTableOffset, table, 'metadata');
    return new Refcounts(file, store, table, cacheBlocks);
  }

  get isDirty(): boolean { return this.cache.hasDirty || this.#dirtySectors.size > 0; }
  get tableEntries(): number { return this.#table.byteLength / ENTRY_BYTES; }

  /** Host offset of a refcount block, 0 = none. Throws CORRUPT where the entry cannot be one. */
  blockOffset(tableIndex: number): number {
    if (tableIndex >= this.tableEntries) return 0;
    const offset = getU64(this.#table, tableIndex * ENTRY_BYTES);
    if (offset === undefined || offset % this.#geometry.clusterSize !== 0) {
      throw new Corruption(this.#file.name, `Refblock offset ${hex(offset ?? 2 ** 63)} unaligned (reftable index: ${hex(tableIndex)})`);
    }
    return offset;
  }

  async get(cluster: number): Promise<number> {
    const { refcountBlockEntries } = this.#geometry;
    const offset = this.blockOffset(Math.floor(cluster / refcountBlockEntries));
    if (offset === 0) return 0;
    this.#file.debugEvent('refblock_load');
    const block = this.cache.peek(offset) ?? await this.cache.load(offset);
    return this.#codec.get(block.view, cluster % refcountBlockEntries);
  }

  /** All table entries from here on, and maybe some before, are 0. */
  get usedTableEntries(): number { return divCeil(beforeZeros(this.#table), ENTRY_BYTES); }

  /** All entries of an existing block from here on, and maybe some before, are 0: the walk over a block can end there. */
  async usedBlockEntries(tableIndex: number): Promise<number> {
    const { bytes } = await this.cache.load(this.blockOffset(tableIndex));
    return divCeil(beforeZeros(bytes) * this.#geometry.refcountBlockEntries, bytes.byteLength);
  }

  /** Reads the entries of an existing block, by their index in it; valid until the next await. */
  async blockReader(tableIndex: number): Promise<(entry: number) => number> {
    this.#file.debugEvent('refblock_load');
    const block = await this.cache.load(this.blockOffset(tableIndex));
    return (entry) => this.#codec.get(block.view, entry);
  }

  /** Allocates `count` contiguous clusters (refcount 1); returns the host offset of the first. */
  async allocate(count: number): Promise<number> {
    events.log?.emit('qcow2_cluster_alloc_phys', this.#file.holder?.id);
    const { clusterSize, refcountBlockEntries } = this.#geometry;
    this.#file.debugEvent('cluster_alloc');
    let blocks = 0; // clusters needed for refcount blocks that do not exist yet, placed just below the run
    for (;;) {
      const start = await this.#findFree(count + blocks);
      const end = start + count + blocks;
      const missing = this.#missingBlocks(start, end);
      const lastIndex = Math.floor((end - 1) / refcountBlockEntries);
      if (!this.#file.growable && end * clusterSize > this.#file.length()) throw this.#full(`its device has ${this.#file.length()} bytes`);
      if (end * clusterSize > MAX_HOST_OFFSET) throw this.#full('its host offsets end at 2^53');
      if (lastIndex >= this.tableEntries) {
        await this.#growTable(lastIndex + 1);
        continue;
      }
      if (missing.length > blocks) {
        blocks = missing.length;
        continue;
      }
      await this.#take(start, count, missing);
      return (start + missing.length) * clusterSize;
    }
  }

  /** Takes a free run of clusters, whose first ones become the refcount blocks that are missing for it. */
  async #take(start: number, count: number, missing: readonly number[]): Promise<void> {
    const { clusterSize } = this.#geometry;
    this.#refuseMetadata(start, missing.length + count);
    try {
      for (const [i, tableIndex] of missing.entries()) await this.#createBlock(tableIndex, (start + i) * clusterSize);
      await this.adjust(start, missing.length + count, 1);
    } catch (error) {
      // A block whose own cluster counts as free would be overwritten
      for (const tableIndex of missing) this.#dropBlock(tableIndex);
      throw error;
    }
    this.#noteAllocated(start, missing.length + count);
  }

  /** Adds `delta` to the refcounts of a run of clusters: all of them or, where one cannot take it, none. */
  async adjust(cluster: number, count: number, delta: number): Promise<void> {
    let done = 0;
    try {
      while (done < count) done += await this.#adjustInBlock(cluster + done, count - done, delta);
    } catch (error) {
      for (let undone = 0; undone < done;) undone += await this.#adjustInBlock(cluster + undone, done - undone, -delta);
      throw error;
    }
    if (delta < 0) this.#noteFreed(cluster);
  }

  /** Sets one refcount outright; for repair. The block must exist, or the count be zero. */
  async set(cluster: number, value: number): Promise<void> {
    const { refcountBlockEntries } = this.#geometry;
    const tableIndex = Math.floor(cluster / refcountBlockEntries);
    const offset = this.blockOffset(tableIndex);
    if (offset === 0) return;
    this.#file.debugEvent('refblock_load');
    const block = await this.cache.loadForEdit(offset);
    this.#codec.set(block.view, cluster % refcountBlockEntries, value);
    this.cache.markDirty(block);
    if (value === 0) this.#noteFreed(cluster);
  }

  /** Makes sure that a cluster's refcount can be stored; for repair. New blocks are placed from `#freeHint` on. */
  async ensureBlock(cluster: number): Promise<void> {
    const tableIndex = Math.floor(cluster / this.#geometry.refcountBlockEntries);
    if (tableIndex < this.tableEntries && this.blockOffset(tableIndex) !== 0) return;
    if (tableIndex >= this.tableEntries) await this.#growTable(tableIndex + 1);
    if (this.blockOffset(tableIndex) !== 0) return;
    const offset = await this.allocate(1);
    if (this.blockOffset(tableIndex) === 0) await this.#createBlock(tableIndex, offset);
    else await this.adjust(offset / this.#geometry.clusterSize, 1, -1);
  }

  /** From here on only clusters at or above are allocated; for repair, while refcounts below cannot be trusted. */
  allocateFrom(cluster: number): void {
    this.#freeHint = Math.max(this.#freeHint, cluster);
  }

  /** Writes all blocks, then makes new ones reachable. The caller flushes afterwards. */
  async persist(): Promise<void> {
    if (this.#dirtySectors.size > 0) this.#file.debugEvent('refblock_alloc_write');
    await this.cache.writeBack();
    if (this.#dirtySectors.size === 0) return;
    await this.guard(() => this.#file.flush());
    await this.#writeTable('refblock_alloc_hookup');
  }

  async #writeTable(event?: string): Promise<void> {
    for (const sector of [...this.#dirtySectors]) {
      const bytes = new Uint8Array(this.#table.buffer, this.#table.byteOffset + sector * SECTOR, SECTOR);
      if (event !== undefined) this.#file.debugEvent(event);
      await because('refcount', () => this.#file.write(this.#tableOffset + sector * SECTOR, bytes, 0, 'metadata'));
      this.#dirtySectors.delete(sector);
    }
  }

  /** Gives back refcount blocks that count nothing, or only themselves. What they counted must be free on the disk too. */
  async dropUnusedBlocks(): Promise<void> {
    const { clusterSize, refcountBlockEntries } = this.#geometry;
    const elsewhere: number[] = [];
    let dropped = false;
    for (let index = 0; index < this.tableEntries; index++) {
      const offset = this.blockOffset(index);
      if (offset === 0) continue;
      const own = offset / clusterSize;
      const self = Math.floor(own / refcountBlockEntries) === index ? own % refcountBlockEntries : -1;
      const entryOf = await this.blockReader(index);
      let unused = self < 0 || entryOf(self) === 1;
      for (let entry = 0; unused && entry < refcountBlockEntries; entry++) unused = entry === self || entryOf(entry) === 0;
      if (!unused) continue;
      this.#dropBlock(index);
      this.#dirtySectors.add(Math.floor((index * ENTRY_BYTES) / SECTOR));
      dropped = true;
      if (self < 0) elsewhere.push(own);
    }
    if (!dropped) return;
    await this.guard(async () => {
      await this.#writeTable();
      await this.#file.flush();
      for (const cluster of elsewhere) await this.adjust(cluster, 1, -1);
      await this.cache.writeBack();
    });
    this.#noteFreed(0);
  }

  /** The first cluster of those below `limit` from which on none is in use. */
  async endOfUse(limit: number): Promise<number> {
    const { refcountBlockEntries } = this.#geometry;
    for (let index = Math.floor((limit - 1) / refcountBlockEntries); index >= 0; index--) {
      if (this.blockOffset(index) === 0) continue;
      const used = await this.usedBlockEntries(index);
      const entryOf = await this.blockReader(index);
      for (let entry = Math.min(used, limit - index * refcountBlockEntries) - 1; entry >= 0; entry--) {
        if (entryOf(entry) !== 0) return index * refcountBlockEntries + entry + 1;
      }
    }
    return 0;
  }

  async #adjustInBlock(cluster: number, count: number, delta: number): Promise<number> {
    const { refcountBlockEntries, refcountMax } = this.#geometry;
    const first = cluster % refcountBlockEntries;
    const span = Math.min(count, refcountBlockEntries - first);
    const offset = this.blockOffset(Math.floor(cluster / refcountBlockEntries));
    if (offset === 0) throw this.#underflow(cluster);
    this.#file.debugEvent('refblock_alloc'); // QEMU's name for looking for the block, whether or not there is one
    this.#file.debugEvent('refblock_load');
    const block = await this.cache.loadForEdit(offset);
    for (let index = first; index < first + span; index++) {
      const value = this.#codec.get(block.view, index) + delta;
      if (value < 0) throw this.#underflow(cluster + index - first);
      if (value > refcountMax) throw this.#full(`a refcount of ${value} does not fit in ${this.#geometry.refcountBits} bits`);
    }
    for (let index = first; index < first + span; index++) {
      this.#codec.set(block.view, index, this.#codec.get(block.view, index) + delta);
    }
    this.cache.markDirty(block);
    return span;
  }

  /** First run of free clusters at or above the hint. A missing block means that all its clusters are free. */
  async #findFree(count: number): Promise<number> {
    const { refcountBlockEntries } = this.#geometry;
    let cluster = count >= this.#runCount ? Math.max(this.#freeHint, this.#runFrom) : this.#freeHint;
    let start = cluster;
    let settled = cluster !== this.#freeHint; // the hint may only move past clusters known to be taken
    for (;;) {
      const tableIndex = Math.floor(cluster / refcountBlockEntries);
      if (tableIndex >= this.tableEntries) return start;
      const offset = this.blockOffset(tableIndex);
      const first = cluster % refcountBlockEntries;
      if (offset === 0) {
        settled = true;
        cluster += refcountBlockEntries - first;
        if (cluster - start >= count) return start;
        continue;
      }
      this.#file.debugEvent('refblock_load');
      const block: CachedTable = this.cache.peek(offset) ?? await this.cache.load(offset);
      for (let index = first; index < refcountBlockEntries; index++) {
        cluster++;
        if (this.#codec.get(block.view, index) !== 0) {
          start = cluster;
          if (!settled) this.#freeHint = cluster;
        } else {
          settled = true;
          if (cluster - start >= count) return start;
        }
      }
    }
  }

  #noteAllocated(start: number, count: number): void {
    if (start <= this.#freeHint) {
      this.#freeHint = start + count;
    } else {
      this.#runCount = count;
      this.#runFrom = start + count;
    }
  }

  #noteFreed(cluster: number): void {
    this.#freeHint = Math.min(this.#freeHint, cluster);
    this.#runCount = Infinity;
  }

  #missingBlocks(start: number, end: number): number[] {
    const { refcountBlockEntries } = this.#geometry;
    const missing: number[] = [];
    for (let index = Math.floor(start / refcountBlockEntries); index * refcountBlockEntries < end; index++) {
      if (this.blockOffset(index) === 0) missing.push(index);
    }
    return missing;
  }

  async #createBlock(tableIndex: number, offset: number): Promise<void> {
    this.#file.debugEvent('refblock_alloc');
    const block = await this.cache.insert(offset, new Uint8Array(this.#geometry.clusterSize));
    this.cache.markDirty(block);
    setU64(this.#table, tableIndex * ENTRY_BYTES, offset);
    this.#dirtySectors.add(Math.floor((tableIndex * ENTRY_BYTES) / SECTOR));
    this.#blockClusters?.add(offset / this.#geometry.clusterSize);
    this.moves++;
  }

  /** Damaged refcounts may call metadata free: handing it out would destroy the image. */
  #refuseMetadata(start: number, count: number): void {
    const { clusterSize } = this.#geometry;
    const { header } = this.#store;
    const from = start * clusterSize;
    const to = (start + count) * clusterSize;
    const hits = (offset: number, bytes: number): boolean => offset < to && from < offset + bytes;
    const found = overlapName(hits, [
      ['qcow2_header', 0, clusterSize], ['active L1 table', header.l1Offset, header.l1Entries * ENTRY_BYTES],
      ['refcount table', this.#tableOffset, this.#table.byteLength], ['snapshot table', header.snapshotsOffset, header.snapshotCount > 0 ? 1 : 0],
    ]) ?? (this.holdsBlock(start, count) ? 'refcount block' : null);
    if (found !== null) throw new Corruption(this.#file.name, overlapMessage(found), { offset: from, bytes: to - from });
  }

  /** True where one of the clusters is a refcount block. */
  holdsBlock(start: number, count: number): boolean {
    if (this.#blockClusters === null) {
      this.#blockClusters = new SegmentedBitSet();
      for (let index = 0; index < this.tableEntries; index++) {
        const offset = this.blockOffset(index);
        if (offset !== 0) this.#blockClusters.add(offset / this.#geometry.clusterSize);
      }
    }
    for (let cluster = start; cluster < start + count; cluster++) if (this.#blockClusters.has(cluster)) return true;
    return false;
  }

  #dropBlock(tableIndex: number): void {
    this.#blockClusters?.delete(this.blockOffset(tableIndex) / this.#geometry.clusterSize);
    this.cache.invalidate(this.blockOffset(tableIndex), this.#geometry.clusterSize);
    setU64(this.#table, tableIndex * ENTRY_BYTES, 0);
  }

  /** Moves the refcount table to a larger place; the header switch makes it the table. */
  async #growTable(minEntries: number): Promise<void> {
    const { clusterSize } = this.#geometry;
    const wanted = Math.max(minEntries, divCeil(this.tableEntries * 3, 2));
    const clusters = divCeil(wanted * ENTRY_BYTES, clusterSize);
    if (clusters * clusterSize > MAX_REFCOUNT_TABLE_BYTES) throw this.#full('its refcount table has reached 8 MiB');
    this.#file.debugEvent('reftable_grow');
    const old = { table: this.#table, offset: this.#tableOffset };
    const grown = new Uint8Array(clusters * clusterSize);
    grown.set(new Uint8Array(old.table.buffer, old.table.byteOffset, old.table.byteLength));
    this.#table = viewOf(grown);
    const offset = await this.allocate(clusters).catch((error: unknown) => {
      this.#table = old.table;
      for (const sector of [...this.#dirtySectors]) if (sector * SECTOR >= old.table.byteLength) this.#dirtySectors.delete(sector);
      throw error;
    });
    await this.guard(async () => {
      this.#file.debugEvent('refblock_alloc_write_blocks');
      await this.cache.writeBack();
      this.#file.debugEvent('refblock_alloc_write_table');
      await because('refcount', () => this.#file.write(offset, grown, 0, 'metadata'));
      await this.#file.flush();
      this.#file.debugEvent('refblock_alloc_switch_table');
      await this.#store.switch({ refcountTable: { offset, clusters } });
    });
    this.#tableOffset = offset;
    this.moves++;
    this.#dirtySectors.clear();
    await this.adjust(old.offset / clusterSize, old.table.byteLength / clusterSize, -1);
  }

  #full(why: string): BlockError {
    return new BlockError('NO_SPACE', `'${this.#file.name}' cannot allocate more clusters: ${why}`, { node: this.#file.name, errno: 'ENOSPC' });
  }

  #underflow(cluster: number): BlockError {
    const offset = cluster * this.#geometry.clusterSize;
    return new BlockError('CORRUPT', `the refcount of cluster ${cluster} in '${this.#file.name}' is lower than its references`,
      { node: this.#file.name, offset, bytes: this.#geometry.clusterSize });
  }
}
