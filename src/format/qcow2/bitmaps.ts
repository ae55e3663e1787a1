/**
 * The persistent bitmaps of an open image. They are in memory; on disk all of them are marked as in use before the
 * first write after an open, so that after a crash none claims to know what was written. The close stores them: new
 * data, tables and directory aside, durable, then one switch of the header, then the old ones are given back.
 */
import { BlockError, messageOf } from '../../base/errors.js';
import { DirtyBitmap } from '../../block/dirty-bitmap.js';
import { DirtyBitmaps, type BitmapStore } from '../../block/dirty-bitmaps.js';
import {
  encodeDirectory, entryBytes, FLAG_AUTO, FLAG_IN_USE, isUnderstood, MAX_BITMAP_BYTES, MAX_BITMAP_DIRECTORY_BYTES, MAX_BITMAP_NAME_BYTES, MAX_BITMAPS,
  newEntry, ReadBudget, readDirectory, readTable, trustedExtension, type DirectoryEntry,
} from './bitmap-directory.js';
import { loadBitmapData, referencedClusters, writeBitmapData } from './bitmap-data.js';
import { dropBitmaps, hasRoomForBitmaps, switchBitmaps } from './header-bitmaps.js';
import { AUTOCLEAR_BITMAPS } from './header.js';
import type { ClusterRun, Qcow2Image, WritingHooks } from './image.js';
import { Reservation } from './tree.js';

interface Stored {
  readonly entry: DirectoryEntry;
  /** Null for what this engine does not understand: it stays as it is. */
  readonly bitmap: DirtyBitmap | null;
  /** `bitmap.changes` when it was as it is on disk. */
  readonly changes: number;
}

/** As on disk, for `image info`: QEMU's Qcow2BitmapInfo. */
type StoredBitmapInfo = {
  readonly flags: readonly string[];
  readonly name: string;
  readonly granularity: number;
};

export class Qcow2Bitmaps implements BitmapStore, WritingHooks {
  readonly bitmaps = new DirtyBitmaps();
  readonly autoclear = AUTOCLEAR_BITMAPS;
  readonly #image: Qcow2Image;
  #stored: readonly Stored[] = [];
  #directory: { readonly offset: number; readonly bytes: number } | null = null;

  constructor(image: Qcow2Image) {
    this.#image = image;
  }

  /** Loads all bitmaps; those that were in use when they were last written are kept as inconsistent. */
  async load(): Promise<void> {
    const image = this.#image;
    const { file, geometry, header } = image;
    const extension = trustedExtension(header, image.name);
    if (extension === null) return;
    const entries = await readDirectory(file, extension, geometry);
    const budget = new ReadBudget(file);
    const stored: Stored[] = [];
    for (const entry of entries) {
      if (!isUnderstood(entry)) {
        stored.push({ entry, bitmap: null, changes: 0 });
        continue;
      }
      const bitmap = new DirtyBitmap({
        name: entry.name, granularity: 2 ** entry.granularityBits, size: header.size, persistent: true, enabled: (entry.flags & FLAG_AUTO) !== 0,
      });
      if ((entry.flags & FLAG_IN_USE) !== 0) {
        bitmap.inconsistent = true;
        bitmap.enabled = false;
      } else {
        await loadBitmapData(image, entry, bitmap, budget);
      }
      bitmap.readOnly = image.readOnly;
      stored.push({ entry, bitmap, changes: bitmap.changes });
    }
    for (const { bitmap } of stored) if (bitmap !== null) this.bitmaps.add(bitmap);
    this.#stored = stored;
    this.#setDirectory({ offset: extension.directoryOffset, bytes: extension.directoryBytes });
  }

  /** True while bitmaps, of any kind, belong to the disk as it is now. */
  get inUse(): boolean { return this.bitmaps.size > 0 || this.#stored.length > 0; }

  /** A request that changed nothing, such as a small discard, makes granules dirty all the same. */
  get unsaved(): boolean {
    return this.#next().some(({ bitmap, changes }) => bitmap !== null && !bitmap.inconsistent && (bitmap.changes !== changes || bitmap.successor !== null));
  }

  describe(): StoredBitmapInfo[] {
    return this.#stored.map(({ entry: { name, flags, granularityBits } }) => ({
      flags: [...((flags & FLAG_IN_USE) === 0 ? [] : ['in-use']), ...((flags & FLAG_AUTO) === 0 ? [] : ['auto'])],
      name,
      granularity: 2 ** granularityBits,
    }));
  }

  /** After the image became writable, or is no longer. */
  setReadOnly(readOnly: boolean): void {
    for (const bitmap of this.bitmaps) if (bitmap.persistent) bitmap.readOnly = readOnly;
  }

  async beginChanges(): Promise<void> {
    await this.#image.exclusive(async () => {});
  }

  checkNew(name: string, granularity: number): void {
    const { header, store } = this.#image;
    const refuse = (code: 'NOT_SUPPORTED' | 'INVALID_ARGUMENT' | 'NO_SPACE', why: string): never => {
      throw new BlockError(code, why, { node: this.#image.name });
    };
    if (header.version < 3) refuse('NOT_SUPPORTED', 'Cannot store dirty bitmaps in qcow2 v2 files');
    if (header.size === 0) refuse('INVALID_ARGUMENT', 'The disk is empty');
    if (bitmapBytes(header.size, granularity) > MAX_BITMAP_BYTES) refuse('INVALID_ARGUMENT', 'Too much space will be occupied by the bitmap. Use larger granularity');
    if (Buffer.byteLength(name) > MAX_BITMAP_NAME_BYTES) refuse('INVALID_ARGUMENT', `Name length exceeds maximum (${MAX_BITMAP_NAME_BYTES} characters)`);
    const others = this.#next();
    if (others.some(({ entry }) => entry.name === name)) refuse('INVALID_ARGUMENT', 'The image has a bitmap of this name that cannot be used');
    if (others.length >= MAX_BITMAPS) refuse('NO_SPACE', 'Maximum number of persistent bitmaps is already reached');
    const bytes = others.reduce((sum, { entry }) => sum + entryBytes(entry.rawName.byteLength, entry.extra.byteLength), entryBytes(Buffer.byteLength(name)));
    if (bytes > MAX_BITMAP_DIRECTORY_BYTES) refuse('NO_SPACE', 'Not enough space in the bitmap directory');
    if (!hasRoomForBitmaps(store)) refuse('NO_SPACE', 'The header of the image has no room for bitmaps');
  }

  /** Throws where a disk of another size could not keep its bitmaps. */
  checkResize(): void {
    this.bitmaps.checkResize();
    if (this.#stored.some(({ bitmap }) => bitmap === null)) {
      throw new BlockError('NOT_SUPPORTED', 'Cannot resize qcow2 with persistent bitmaps that were not loaded into memory', { node: this.#image.name });
    }
  }

  async remove(name: string): Promise<void> {
    if (!this.#stored.some(({ entry }) => entry.name === name)) return;
    await this.#image.exclusive(async () => {
      const removed = this.#stored.find(({ entry }) => entry.name === name);
      if (removed === undefined) return;
      const reservation = new Reservation(this.#image);
      try {
        await this.#replace(this.#stored.filter((stored) => stored !== removed), reservation, [removed.entry]);
      } catch (error) {
        await reservation.rollback();
        throw error;
      }
    });
  }

  async keep(bitmap: DirtyBitmap): Promise<void> {
    await this.#image.exclusive(async () => {
      const old = this.#stored.find(({ entry }) => entry.name === bitmap.name);
      const reservation = new Reservation(this.#image);
      try {
        const table = await writeBitmapData(this.#image, bitmap, reservation);
        const entry = { ...newEntry(bitmap.name, bitmap.granularity), ...table, flags: FLAG_IN_USE };
        await this.#replace([...this.#stored.filter((stored) => stored !== old), { entry, bitmap: null, changes: 0 }], reservation, old === undefined ? [] : [old.entry]);
      } catch (error) {
        await reservation.rollback();
        throw error;
      }
    });
  }

  async readKept(name: string): Promise<DirtyBitmap | null> {
    const stored = this.#stored.find(({ entry }) => entry.name === name);
    if (stored === undefined || !isUnderstood(stored.entry) || (stored.entry.flags & FLAG_IN_USE) === 0) return null;
    const bitmap = new DirtyBitmap({ name, granularity: 2 ** stored.entry.granularityBits, size: this.#image.header.size, enabled: false });
    await loadBitmapData(this.#image, stored.entry, bitmap, new ReadBudget(this.#image.file));
    this.bitmaps.delete(name);
    this.#stored = this.#stored.map((one) => (one === stored ? { ...stored, bitmap: null } : one));
    return bitmap;
  }

  /** Nothing on disk claims to be right from here on. In place: an entry's flags lie in one sector, so each is old or new. */
  async begin(): Promise<void> {
    const changing = this.#stored.filter(({ entry, bitmap }) => (bitmap !== null || (entry.flags & FLAG_AUTO) !== 0) && (entry.flags & FLAG_IN_USE) === 0);
    if (changing.length === 0) return;
    const marked = this.#stored.map((stored) => (changing.includes(stored) ? { ...stored, entry: withFlags(stored.entry, stored.entry.flags + FLAG_IN_USE) } : stored));
    const { file } = this.#image;
    await file.write(this.#directory!.offset, encodeDirectory(marked.map(({ entry }) => entry)), 0, 'metadata');
    await file.flush();
    this.#stored = marked;
  }

  /** Stores what is to be kept. Where that fails, the bitmaps on disk are as a crash would leave them: in use. */
  async end(): Promise<BlockError | null> {
    const next = this.#next();
    if (next.every(({ bitmap }) => bitmap === null || bitmap.inconsistent)) return null;
    const reservation = new Reservation(this.#image);
    const dropped: DirectoryEntry[] = [];
    const written: Stored[] = [];
    try {
      for (const stored of next) written.push(await this.#write(stored, reservation, dropped));
      await this.#replace(written, reservation, dropped);
      return null;
    } catch (error) {
      await reservation.rollback();
      return new BlockError('IO', `Lost persistent bitmaps of '${this.#image.name}': ${messageOf(error)}`, { node: this.#image.name, cause: error });
    }
  }

  /** What the directory will hold: those it has, then the new ones, newest first as in QEMU. */
  #next(): Stored[] {
    const known = new Set(this.#stored.map(({ bitmap }) => bitmap));
    const added = [...this.bitmaps].filter((bitmap) => bitmap.persistent && !known.has(bitmap)).reverse();
    return [...this.#stored, ...added.map((bitmap) => ({ entry: newEntry(bitmap.name, bitmap.granularity), bitmap, changes: -1 }))];
  }

  async #write(stored: Stored, reservation: Reservation, dropped: DirectoryEntry[]): Promise<Stored> {
    const { entry, bitmap, changes } = stored;
    if (bitmap === null || bitmap.inconsistent) return stored;
    const flags = (entry.flags & ~(FLAG_AUTO + FLAG_IN_USE)) + (bitmap.recording ? FLAG_AUTO : 0);
    const frozen = bitmap.successor !== null; // whatever becomes of its job, both parts are dirty
    if (!frozen && bitmap.changes === changes) return { ...stored, entry: withFlags(entry, flags) };
    if (bitmapBytes(bitmap.size, bitmap.granularity) > MAX_BITMAP_BYTES) throw new BlockError('NO_SPACE', `Bitmap '${bitmap.name}' is too big`);
    if (entry.tableOffset !== 0) dropped.push(entry);
    const table = await writeBitmapData(this.#image, bitmap.withSuccessor(), reservation);
    return { entry: { ...withFlags(entry, flags), ...table }, bitmap, changes: frozen ? -1 : bitmap.changes };
  }

  /** Switches to a new directory; gives back the old one and what only `dropped` referenced. */
  async #replace(next: readonly Stored[], reservation: Reservation, dropped: readonly DirectoryEntry[]): Promise<void> {
    const image = this.#image;
    const old = this.#directory;
    let directory: { offset: number; bytes: number } | null = null;
    if (next.length > 0) {
      const encoded = encodeDirectory(next.map(({ entry }) => entry));
      if (encoded.byteLength > MAX_BITMAP_DIRECTORY_BYTES || next.length > MAX_BITMAPS) throw new BlockError('NO_SPACE', 'Bitmap directory is too large');
      directory = { offset: await reservation.writeTable(encoded), bytes: encoded.byteLength };
    }
    await image.refcounts.persist();
    await image.file.flush();
    const { store } = image;
    await image.guard(() => (directory === null ? dropBitmaps(store)
      : switchBitmaps(store, { count: next.length, directoryBytes: directory.bytes, directoryOffset: directory.offset })));
    this.#stored = next;
    this.#setDirectory(directory);
    await image.guard(() => this.#release(old, dropped)).catch(() => {}); // done and durable: what fails now leaks
  }

  #setDirectory(directory: { readonly offset: number; readonly bytes: number } | null): void {
    this.#directory = directory;
    this.#image.overlap.bitmapDirectory = directory;
  }

  async #release(directory: { readonly offset: number; readonly bytes: number } | null, dropped: readonly DirectoryEntry[]): Promise<void> {
    const image = this.#image;
    const { clusterSize } = image.geometry;
    const runs: ClusterRun[] = [];
    if (directory !== null) runs.push({ cluster: directory.offset / clusterSize, count: Math.ceil(directory.bytes / clusterSize) });
    for (const entry of dropped) {
      // A table that cannot be read stays where it is
      const table = await readTable(image.file, entry, image.geometry, new ReadBudget(image.file)).catch(() => null);
      if (table !== null) runs.push(...referencedClusters(entry, table, clusterSize));
    }
    await image.releaseNow(runs, 'other');
    await image.barrier();
  }
}

function withFlags(entry: DirectoryEntry, flags: number): DirectoryEntry {
  return { ...entry, flags };
}

function bitmapBytes(size: number, granularity: number): number {
  return Math.ceil(Math.ceil(size / granularity) / 8);
}
