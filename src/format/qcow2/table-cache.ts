/**
 * A bounded cache of equally sized metadata tables (L2 slices, refcount blocks), keyed by their offset in the file.
 * Tables are edited and written back under the image's metadata mutex; readers may load clean ones at any time.
 */
import { viewOf } from '../../base/bytes.js';
import type { BlockChild } from '../../block/child.js';
import { acting, because } from '../../block/request.js';
import { TaskPool } from '../../base/task-pool.js';
import { events, type EventLog } from '../../trace/events.js';

export interface CachedTable {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  dirty: boolean;
  lastUse: number;
  /** The content was the newest when the cache was in this state; -1 = not known to be. */
  newestIn: number;
}

const WRITE_BACK_DEPTH = 8;

export class TableCache {
  tableBytes: number;
  readonly #file: BlockChild;
  readonly #cause: 'l2' | 'refcount';
  readonly #tables = new Map<number, CachedTable>();
  readonly #loading = new Map<number, Promise<CachedTable>>();
  #capacity: number;
  /** Counts whatever may make a table in a reader's hands out of date. */
  #state = 0;
  #tick = 0;
  #usedBefore = 0;
  #dirtyCount = 0;
  /** Writes dirty tables back in the order that crash safety demands; set by the image. */
  makeClean: () => Promise<void> = () => this.writeBack();
  /** Throws where a table must not be written to its place; set by the image. */
  beforeWrite: (offset: number, bytes: number) => void = () => {};

  constructor(file: BlockChild, tableBytes: number, capacity: number, cause: 'l2' | 'refcount') {
    this.#file = file;
    this.tableBytes = tableBytes;
    this.#capacity = Math.max(2, capacity);
    this.#cause = cause;
  }

  /** Another size; tables beyond it go, except dirty ones. */
  setCapacity(tables: number): void {
    this.#capacity = Math.max(2, tables);
    while (this.#tables.size > this.#capacity && this.#evict());
  }

  /** Another unit and size. Only where no table is dirty and nobody reads. */
  setShape(tableBytes: number, tables: number): void {
    if (tableBytes !== this.tableBytes) {
      this.#tables.clear();
      this.#loading.clear();
      this.#state++;
      this.tableBytes = tableBytes;
    }
    this.setCapacity(tables);
  }

  /** Drops the clean tables that nobody used since this was last called. */
  dropUnused(): void {
    for (const table of this.#tables.values()) {
      if (!table.dirty && table.lastUse <= this.#usedBefore) this.#tables.delete(table.offset);
    }
    this.#usedBefore = this.#tick;
  }

  get hasDirty(): boolean { return this.#dirtyCount > 0; }
  get size(): number { return this.#tables.size; }
  /** False where every table is dirty: nothing more fits until they are written back. */
  get hasRoom(): boolean { return this.#tables.size < this.#capacity || this.#dirtyCount < this.#tables.size; }

  /** The table if it is in memory. Valid until the next await. */
  peek(offset: number): CachedTable | undefined {
    const table = this.#tables.get(offset);
    if (table === undefined) return undefined;
    table.lastUse = ++this.#tick;
    table.newestIn = this.#state;
    return table;
  }

  /** True where a loaded table is still the newest, in the cache or not: readers get on however small the cache is. */
  isNewest(table: CachedTable): boolean {
    return table.newestIn === this.#state;
  }

  /** For readers: the table's content now; it may not stay in the cache (see `isNewest`). */
  async load(offset: number): Promise<CachedTable> {
    const cached = this.peek(offset);
    if (events.log !== null) this.#tell(events.log, offset, cached === undefined);
    if (cached !== undefined) return cached;
    const started = this.#loading.get(offset);
    if (started !== undefined) return started;
    // Ends this load only: where the table was invalidated meanwhile, a newer one may be under way
    const end = (): boolean => this.#loading.get(offset) === loading && this.#loading.delete(offset);
    const loading: Promise<CachedTable> = this.#read(offset, end);
    this.#loading.set(offset, loading);
    return loading;
  }

  /** For editors, under the metadata mutex: the newest content, to be edited (`markDirty` first) until the next await. */
  async loadForEdit(offset: number): Promise<CachedTable> {
    for (;;) {
      const cached = this.peek(offset);
      if (cached !== undefined && events.log !== null) this.#tell(events.log, offset, false);
      if (cached !== undefined) return cached;
      if (!this.hasRoom) await this.makeClean();
      const table = await this.load(offset);
      if (!this.#tables.has(offset)) this.#insert(table);
    }
  }

  /** Puts a table in that the caller has just made (and written, unless it marks it dirty). */
  async insert(offset: number, bytes: Uint8Array): Promise<CachedTable> {
    if (!this.hasRoom) await this.makeClean();
    this.#forget(offset);
    const table: CachedTable = { offset, bytes, view: viewOf(bytes), dirty: false, lastUse: ++this.#tick, newestIn: ++this.#state };
    this.#insert(table);
    return table;
  }

  /** Comes before every edit, in the same synchronous stretch. */
  markDirty(table: CachedTable): void {
    this.#state++;
    // While the editor's promise resolved, a reader's load may have evicted the table, or put an equal one in its place
    if (this.#tables.get(table.offset) !== table) {
      this.#loading.delete(table.offset);
      this.#insert(table);
    }
    if (table.dirty) return;
    table.dirty = true;
    this.#dirtyCount++;
  }

  /** Writes all dirty tables, in file order. A failed table stays dirty. */
  async writeBack(): Promise<void> {
    events.log?.emit('qcow2_cache_flush', acting()?.id, this.#cause === 'l2');
    if (this.#dirtyCount === 0) return;
    const dirty = [...this.#tables.values()].filter((table) => table.dirty).sort((a, b) => a.offset - b.offset);
    const pool = new TaskPool(WRITE_BACK_DEPTH);
    try {
      for (const table of dirty) await pool.run(() => this.#writeTable(table));
    } finally {
      await pool.drain();
    }
  }

  /** Forgets the tables in a range whose clusters are no longer (or newly) tables. */
  invalidate(offset: number, bytes: number): void {
    this.#state++;
    for (const tables of [this.#loading, this.#tables]) {
      if (tables.size === 0) continue;
      if (bytes / this.tableBytes > tables.size) {
        for (const at of [...tables.keys()]) if (at >= offset && at < offset + bytes) this.#forget(at);
      } else {
        for (let at = offset; at < offset + bytes; at += this.tableBytes) this.#forget(at);
      }
    }
  }

  async #writeTable(table: CachedTable): Promise<void> {
    this.beforeWrite(table.offset, this.tableBytes);
    events.log?.emit('qcow2_cache_entry_flush', acting()?.id, this.#cause === 'l2', this.#indexOf(table.offset));
    this.#file.debugEvent(this.#cause === 'l2' ? 'l2_update' : 'refblock_update_part');
    await because(this.#cause, () => this.#file.write(table.offset, table.bytes, 0, 'metadata'));
    table.dirty = false;
    this.#dirtyCount--;
  }

  #tell(log: EventLog, offset: number, fromDisk: boolean): void {
    const isL2 = this.#cause === 'l2';
    const co = (acting() ?? this.#file.holder)?.id;
    log.emit('qcow2_cache_get', co, isL2, offset, fromDisk);
    if (fromDisk) log.emit('qcow2_cache_get_read', co, isL2, this.#tables.size);
    log.emit('qcow2_cache_get_done', co, isL2, fromDisk ? this.#tables.size : this.#indexOf(offset));
  }

  /** Which of the tables in memory it is. */
  #indexOf(offset: number): number {
    return [...this.#tables.keys()].indexOf(offset);
  }

  async #read(offset: number, end: () => boolean): Promise<CachedTable> {
    const bytes = new Uint8Array(this.tableBytes);
    if (this.#cause === 'l2') this.#file.debugEvent('l2_load');
    try {
      await because(this.#cause, () => this.#file.read(offset, bytes, 'metadata'));
    } catch (error) {
      end();
      throw error;
    }
    const newer = this.#tables.get(offset);
    if (newer !== undefined) return newer;
    const table: CachedTable = { offset, bytes, view: viewOf(bytes), dirty: false, lastUse: ++this.#tick, newestIn: -1 };
    // Ended before = invalidated meanwhile: the content is the caller's, but no longer the cache's
    if (!end()) return table;
    table.newestIn = this.#state;
    if (this.hasRoom) this.#insert(table);
    return table;
  }

  #insert(table: CachedTable): void {
    while (this.#tables.size >= this.#capacity && this.#evict());
    this.#tables.set(table.offset, table);
  }

  /** Returns false where every table is dirty. */
  #evict(): boolean {
    let victim: CachedTable | null = null;
    for (const table of this.#tables.values()) {
      if (!table.dirty && (victim === null || table.lastUse < victim.lastUse)) victim = table;
    }
    return victim !== null && this.#tables.delete(victim.offset);
  }

  #forget(offset: number): void {
    this.#loading.delete(offset);
    this.#drop(offset);
  }

  #drop(offset: number): void {
    const table = this.#tables.get(offset);
    if (table === undefined) return;
    if (table.dirty) this.#dirtyCount--;
    this.#tables.delete(offset);
  }
}
