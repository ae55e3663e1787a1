/** An L1 table in its on-disk form, with the sectors that memory holds newer. */
import { viewOf } from '../../base/bytes.js';
import { SegmentedBitSet } from '../../base/segmented-bitset.js';
import type { BlockChild } from '../../block/child.js';
import { because } from '../../block/request.js';
import { ENTRY_BYTES, HIGH_COPIED, hostOffsetOf, SECTOR, setEntry } from './layout.js';

export class L1Table {
  /** Where it lies in the file; 0 = it is private to memory and never written. */
  readonly offset: number;
  readonly entries: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #dirtySectors = new SegmentedBitSet();
  /** Clusters of the L2 tables; made when it is first asked for. */
  #tables: SegmentedBitSet | null = null;
  #clusterSize = 0;
  /** Counts how often an L2 table came, went or moved. */
  moves = 0;

  constructor(offset: number, bytes: Uint8Array) {
    this.offset = offset;
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
    this.entries = Math.floor(bytes.byteLength / ENTRY_BYTES);
  }

  static async load(file: BlockChild, offset: number, entries: number): Promise<L1Table> {
    const bytes = new Uint8Array(entries * ENTRY_BYTES);
    if (entries > 0) await file.read(offset, bytes, 'metadata');
    return new L1Table(offset, bytes);
  }

  get isDirty(): boolean { return this.#dirtySectors.size > 0; }

  /** Host offset of the L2 table, 0 = none; unchecked. */
  l2Offset(index: number): number {
    return hostOffsetOf(this.#view.getUint32(index * ENTRY_BYTES), this.#view.getUint32(index * ENTRY_BYTES + 4));
  }

  /** True where a cluster is an L2 table of this one. */
  holdsTable(cluster: number, clusterSize: number): boolean {
    if (this.#tables === null) {
      this.#tables = new SegmentedBitSet();
      this.#clusterSize = clusterSize;
      for (let index = 0; index < this.entries; index++) if (this.l2Offset(index) !== 0) this.#tables.add(Math.floor(this.l2Offset(index) / clusterSize));
    }
    return this.#tables.has(cluster);
  }

  #moveTable(from: number, to: number): void {
    if (from !== 0) this.#tables!.delete(Math.floor(from / this.#clusterSize));
    if (to !== 0) this.#tables!.add(Math.floor(to / this.#clusterSize));
  }

  /** True where the L2 table belongs to this L1 table alone. */
  copied(index: number): boolean {
    return (this.#view.getUint32(index * ENTRY_BYTES) & HIGH_COPIED) !== 0;
  }

  set(index: number, l2Offset: number, copied = true): void {
    if (this.#tables !== null) this.#moveTable(this.l2Offset(index), l2Offset);
    this.moves++;
    setEntry(this.#view, index, l2Offset, l2Offset === 0 || !copied ? 0 : HIGH_COPIED, 0);
    if (this.offset !== 0) this.#dirtySectors.add(Math.floor((index * ENTRY_BYTES) / SECTOR));
  }

  /** A copy with another number of entries (new ones empty), for another place in the file. */
  resized(offset: number, entries: number): L1Table {
    const bytes = new Uint8Array(entries * ENTRY_BYTES);
    bytes.set(this.#bytes.subarray(0, Math.min(bytes.byteLength, this.entries * ENTRY_BYTES)));
    return new L1Table(offset, bytes);
  }

  /** Writes the dirty sectors. */
  async writeBack(file: BlockChild): Promise<void> {
    for (const sector of [...this.#dirtySectors]) {
      const part = this.#bytes.subarray(sector * SECTOR, Math.min((sector + 1) * SECTOR, this.#bytes.byteLength));
      file.debugEvent('l1_update');
      await because('l1', () => file.write(this.offset + sector * SECTOR, part, 0, 'metadata'));
      this.#dirtySectors.delete(sector);
    }
  }

  /** Writes the whole table to its place, padded to `bytes`. */
  async writeAll(file: BlockChild, bytes: number): Promise<void> {
    const padded = new Uint8Array(bytes);
    padded.set(this.#bytes);
    await because('l1', () => file.write(this.offset, padded, 0, 'metadata'));
    this.#dirtySectors.clear();
  }
}
