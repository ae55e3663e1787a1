/**
 * The arithmetic of qcow2 (QEMU docs/interop/qcow2.txt): geometry, L1/L2 entries, limits. Pure functions over numbers.
 * A table entry is a big-endian u64, handled as two u32 words `high` and `low`: flags live in the top two bits and
 * bit 0, which a double could not hold next to an offset.
 */
import { divCeil, isPowerOfTwo, KiB, MiB, TWO_32 } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';

export const MAGIC = 0x5146_49fb; // "QFI\xfb"
export const MIN_CLUSTER_BITS = 9;
export const MAX_CLUSTER_BITS = 21;
export const MAX_REFCOUNT_TABLE_BYTES = 8 * MiB;
export const MAX_L1_BYTES = 32 * MiB;
export const MAX_SNAPSHOTS = 65536;
export const MAX_SNAPSHOT_TABLE_BYTES = 64 * MiB;
export const MAX_SNAPSHOT_EXTRA_BYTES = 1024;
export const MAX_BACKING_NAME_BYTES = 1023;
export const ENTRY_BYTES = 8;
export const SECTOR = 512;
export const DEFAULT_SLICE_BYTES = 64 * KiB;

/** Flags in the high word of L1 and L2 entries. */
export const HIGH_COPIED = 0x8000_0000;
const HIGH_COMPRESSED = 0x4000_0000;
/** Flag in the low word of an L2 entry: reads as zeros. */
export const LOW_ZERO = 1;

export interface Geometry {
  readonly clusterBits: number;
  readonly clusterSize: number;
  /** Entries of one L2 table. */
  readonly l2Entries: number;
  /** Guest bytes that one L1 entry (one L2 table) maps. */
  readonly bytesPerL1: number;
  /** Tables are cached in slices: a 2 MiB table would be a large unit to read for one entry. See `setSliceBytes`. */
  sliceBytes: number;
  sliceEntries: number;
  /** Guest bytes that one slice maps. */
  bytesPerSlice: number;
  readonly refcountBits: number;
  /** Entries of one refcount block. */
  readonly refcountBlockEntries: number;
  /** Largest refcount that fits (and that a double can hold). */
  readonly refcountMax: number;
}

export function makeGeometry(clusterBits: number, refcountOrder: number): Geometry {
  const clusterSize = 2 ** clusterBits;
  const refcountBits = 2 ** refcountOrder;
  const geometry = {
    clusterBits, clusterSize, refcountBits,
    l2Entries: clusterSize / ENTRY_BYTES,
    bytesPerL1: clusterSize * (clusterSize / ENTRY_BYTES),
    sliceBytes: 0, sliceEntries: 0, bytesPerSlice: 0,
    refcountBlockEntries: (clusterSize * 8) / refcountBits,
    refcountMax: refcountBits >= 53 ? Number.MAX_SAFE_INTEGER : 2 ** refcountBits - 1,
  };
  setSliceBytes(geometry, Math.min(clusterSize, DEFAULT_SLICE_BYTES));
  return geometry;
}

/** Another unit of the L2 cache. Only while nothing is cached. */
export function setSliceBytes(geometry: Geometry, sliceBytes: number): void {
  geometry.sliceBytes = sliceBytes;
  geometry.sliceEntries = sliceBytes / ENTRY_BYTES;
  geometry.bytesPerSlice = geometry.clusterSize * geometry.sliceEntries;
}

/** What an L2 entry says of its guest cluster. */
export const ClusterKind = {
  /** Defers to the backing file; zeros without one. */
  UNALLOCATED: 0,
  /** Reads as zeros, no host cluster. */
  ZERO_PLAIN: 1,
  /** Reads as zeros, but a host cluster is kept for it. */
  ZERO_ALLOCATED: 2,
  NORMAL: 3,
  COMPRESSED: 4,
} as const;
export type ClusterKind = (typeof ClusterKind)[keyof typeof ClusterKind];

/** Bits 9-55 of a standard entry. May exceed 2^53: callers compare with `isHostOffset` before use. */
export function hostOffsetOf(high: number, low: number): number {
  return (high & 0x00ff_ffff) * TWO_32 + ((low & 0xffff_fe00) >>> 0);
}

export function clusterKind(high: number, low: number): ClusterKind {
  if ((high & HIGH_COMPRESSED) !== 0) return ClusterKind.COMPRESSED;
  const allocated = (high & 0x00ff_ffff) !== 0 || (low & 0xffff_fe00) !== 0;
  if ((low & LOW_ZERO) !== 0) return allocated ? ClusterKind.ZERO_ALLOCATED : ClusterKind.ZERO_PLAIN;
  return allocated ? ClusterKind.NORMAL : ClusterKind.UNALLOCATED;
}

/** True where a standard entry owns a host cluster. */
export function ownsCluster(kind: ClusterKind): boolean {
  return kind === ClusterKind.NORMAL || kind === ClusterKind.ZERO_ALLOCATED;
}

export function isCopied(high: number): boolean {
  return (high & HIGH_COPIED) !== 0;
}

export interface CompressedExtent {
  readonly offset: number;
  /** An upper bound: the field counts whole sectors, the stream ends earlier. */
  readonly bytes: number;
}

/** Compressed Clusters Descriptor: x = 62 - (cluster_bits - 8) offset bits, then the number of additional sectors. */
export function compressedExtent(geometry: Geometry, high: number, low: number): CompressedExtent {
  const offsetBitsInHigh = 62 - (geometry.clusterBits - 8) - 32;
  const offset = (high & (2 ** offsetBitsInHigh - 1)) * TWO_32 + low;
  const sectors = ((high & 0x3fff_ffff) >>> offsetBitsInHigh) + 1;
  return { offset, bytes: sectors * SECTOR - (offset % SECTOR) };
}

export function setEntry(view: DataView, index: number, hostOffset: number, highFlags: number, lowFlags: number): void {
  view.setUint32(index * ENTRY_BYTES, (Math.floor(hostOffset / TWO_32) | highFlags) >>> 0);
  view.setUint32(index * ENTRY_BYTES + 4, (hostOffset % TWO_32) + lowFlags);
}

export function l1EntriesFor(geometry: Geometry, bytes: number): number {
  return divCeil(bytes, geometry.bytesPerL1);
}

export function checkClusterSize(clusterSize: number): number {
  const bits = Math.log2(clusterSize);
  if (!isPowerOfTwo(clusterSize) || bits < MIN_CLUSTER_BITS || bits > MAX_CLUSTER_BITS) {
    throw new BlockError('INVALID_ARGUMENT', `Cluster size must be a power of two between 512 and 2M, got ${clusterSize}`);
  }
  return bits;
}
