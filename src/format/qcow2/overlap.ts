/**
 * Writes that would hit metadata can only come from damaged metadata: they are refused before they reach the disk (QEMU's
 * overlap-check). Whole clusters are looked up, in memory; those that were found free of metadata are remembered until metadata moves.
 */
import type { BlockChild } from '../../block/child.js';
import { SegmentedBitSet } from '../../base/segmented-bitset.js';
import { overlapMessage } from './corruption.js';
import type { Qcow2Image } from './image.js';
import { L1Table } from './l1-table.js';
import { ENTRY_BYTES } from './layout.js';

/** QEMU's names of what may be checked. */
export const OVERLAP_PARTS = [
  'main-header', 'active-l1', 'active-l2', 'refcount-table', 'refcount-block', 'snapshot-table', 'inactive-l1', 'inactive-l2', 'bitmap-directory',
] as const;
export type OverlapPart = (typeof OVERLAP_PARTS)[number];
export const OVERLAP_LEVELS = ['none', 'constant', 'cached', 'all'] as const;
type OverlapLevel = (typeof OVERLAP_LEVELS)[number];

const CONSTANT: readonly OverlapPart[] = ['main-header', 'active-l1', 'refcount-table', 'snapshot-table', 'bitmap-directory'];
const LEVELS: Readonly<Record<OverlapLevel, readonly OverlapPart[]>> = {
  none: [], constant: CONSTANT, cached: [...CONSTANT, 'active-l2', 'refcount-block', 'inactive-l1'], all: OVERLAP_PARTS,
};

export function overlapParts(level: OverlapLevel = 'cached'): ReadonlySet<OverlapPart> {
  return new Set(LEVELS[level]);
}

interface Place {
  readonly offset: number;
  readonly bytes: number;
}

interface SnapshotTables {
  readonly l1Offset: number;
  readonly l1Entries: number;
}

export class OverlapCheck {
  readonly #image: Qcow2Image;
  #parts: ReadonlySet<OverlapPart>;
  #bitmapDirectory: Place | null = null;
  #snapshots: readonly SnapshotTables[] = [];
  #snapshotTableBytes = 0;
  /** Clusters of the L2 tables of snapshots; only where they are checked. */
  #inactive = new SegmentedBitSet();
  /** Clusters without metadata, as things stood at `#seen`. */
  readonly #free = new SegmentedBitSet();
  #seen = { l1: null as L1Table | null, tables: 0, blocks: 0 };

  constructor(image: Qcow2Image, parts: ReadonlySet<OverlapPart>) {
    this.#image = image;
    this.#parts = parts;
  }

  set parts(parts: ReadonlySet<OverlapPart>) {
    this.#parts = parts;
    this.#free.clear();
  }

  set bitmapDirectory(place: Place | null) {
    this.#bitmapDirectory = place;
    this.#free.clear();
  }

  setSnapshots(snapshots: readonly SnapshotTables[], tableBytes: number): void {
    this.#free.clear();
    this.#snapshots = snapshots;
    this.#snapshotTableBytes = tableBytes;
  }

  /** Reads which L2 tables belong to snapshots, where that is asked for. After `setSnapshots`, before the next write. */
  async loadInactive(file: BlockChild): Promise<void> {
    this.#inactive = new SegmentedBitSet();
    this.#free.clear();
    if (!this.#parts.has('inactive-l2')) return;
    for (const { l1Offset, l1Entries } of this.#snapshots) {
      const l1 = await L1Table.load(file, l1Offset, l1Entries);
      for (let index = 0; index < l1.entries; index++) if (l1.l2Offset(index) !== 0) this.#inactive.add(Math.floor(l1.l2Offset(index) / this.#image.geometry.clusterSize));
    }
  }

  /** Throws CORRUPT where a write would hit metadata other than `own`, which is what it writes. */
  assertFree(offset: number, bytes: number, own: OverlapPart | null = null): void {
    if (this.#parts.size === 0) return;
    const { clusterSize } = this.#image.geometry;
    const first = Math.floor(offset / clusterSize);
    const end = Math.ceil((offset + bytes) / clusterSize);
    if (own === null && this.#knownFree(first, end)) return;
    const found = this.#find(first, end, own);
    if (found !== null) throw this.#image.corrupt(overlapMessage(found), { offset, bytes });
    if (own === null) for (let at = first; at < end; at++) this.#free.add(at);
  }

  #knownFree(first: number, end: number): boolean {
    const { activeL1, refcounts } = this.#image;
    const seen = this.#seen;
    if (seen.l1 !== activeL1 || seen.tables !== activeL1.moves || seen.blocks !== refcounts.moves) {
      this.#free.clear();
      this.#seen = { l1: activeL1, tables: activeL1.moves, blocks: refcounts.moves };
      return false;
    }
    for (let at = first; at < end; at++) if (!this.#free.has(at)) return false;
    return true;
  }

  #holdsInactive(first: number, end: number): boolean {
    if (this.#inactive.size === 0) return false;
    for (let at = first; at < end; at++) if (this.#inactive.has(at)) return true;
    return false;
  }

  /** In QEMU's order, under QEMU's names. A write counts as one of all its clusters. */
  #find(first: number, end: number, own: OverlapPart | null): string | null {
    const parts = this.#parts;
    const { header, geometry: { clusterSize }, activeL1, refcounts } = this.#image;
    const hits = (part: OverlapPart, start: number, length: number): boolean =>
      length > 0 && first * clusterSize < start + length && start < end * clusterSize && part !== own && parts.has(part);
    if (hits('main-header', 0, clusterSize)) return 'qcow2_header';
    if (hits('active-l1', header.l1Offset, header.l1Entries * ENTRY_BYTES)) return 'active L1 table';
    if (own !== 'active-l2' && parts.has('active-l2')) for (let at = first; at < end; at++) if (activeL1.holdsTable(at, clusterSize)) return 'active L2 table';
    if (own !== 'refcount-block' && parts.has('refcount-block') && refcounts.holdsBlock(first, end - first)) return 'refcount block';
    if (hits('refcount-table', header.refcountTableOffset, header.refcountTableClusters * clusterSize)) return 'refcount table';
    if (hits('snapshot-table', header.snapshotsOffset, this.#snapshotTableBytes)) return 'snapshot table';
    if (this.#snapshots.some(({ l1Offset, l1Entries }) => hits('inactive-l1', l1Offset, l1Entries * ENTRY_BYTES))) return 'inactive L1 table';
    if (own !== 'active-l2' && this.#holdsInactive(first, end)) return 'inactive L2 table';
    return this.#bitmapDirectory !== null && hits('bitmap-directory', this.#bitmapDirectory.offset, this.#bitmapDirectory.bytes) ? 'bitmap directory' : null;
  }
}
