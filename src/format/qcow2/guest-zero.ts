/** Write-zeroes and discard: whole clusters change in the mapping only; what is left over is written as zeros. */
import { acting, actFor } from '../../block/request.js';
import { alignDown, alignUp } from '../../base/bytes.js';
import { ClusterKind, clusterKind, ENTRY_BYTES, HIGH_COPIED, hostOffsetOf, LOW_ZERO, ownsCluster, setEntry } from './layout.js';
import type { GuestIo } from './guest-io.js';
import type { Mapping } from './mapping.js';

export interface ZeroOptions {
  /** Give host clusters back (write-zeroes with MAY_UNMAP). */
  readonly unmap: boolean;
  /** Unallocated clusters show a backing file, so they do not read as zeros. */
  readonly hasBacking: boolean;
  /** End of the guest disk: a last, partial cluster counts as whole. */
  readonly diskSize: number;
  /** See RequestFlag.IF_UNALLOCATED. */
  readonly onlyUnallocated?: boolean;
}

/** Version 2 has no zero clusters: where unallocated does not read as zeros, they must be written. */
function canMarkZero(mapping: Mapping, hasBacking: boolean): boolean {
  return mapping.image.header.version >= 3 || !hasBacking;
}

export async function writeZeroes(mapping: Mapping, io: GuestIo, offset: number, bytes: number, options: ZeroOptions): Promise<void> {
  const { clusterSize } = mapping.geometry;
  const end = offset + bytes;
  const wholeStart = alignUp(offset, clusterSize);
  const wholeEnd = end === options.diskSize ? alignUp(end, clusterSize) : alignDown(end, clusterSize);
  if (wholeEnd <= wholeStart || !canMarkZero(mapping, options.hasBacking)) {
    await writeExplicitZeroes(mapping, io, offset, end, options);
    return;
  }
  const parent = acting();
  if (offset < wholeStart) await writeExplicitZeroes(mapping, io, offset, wholeStart, options);
  await actFor(parent, () => editClusters(mapping, wholeStart, wholeEnd, options.hasBacking, (view, index) => zeroEntry(mapping, view, index, options)));
  if (wholeEnd < end) await actFor(parent, () => writeExplicitZeroes(mapping, io, wholeEnd, end, options));
}

/** Whole clusters only; the rest is advice not taken. Discarded data reads as zeros, never as old backing data. */
export async function discard(mapping: Mapping, offset: number, bytes: number, options: ZeroOptions): Promise<void> {
  const { clusterSize } = mapping.geometry;
  const end = offset + bytes;
  const start = alignUp(offset, clusterSize);
  const stop = end === options.diskSize ? alignUp(end, clusterSize) : alignDown(end, clusterSize);
  if (stop <= start || !canMarkZero(mapping, options.hasBacking)) return;
  await editClusters(mapping, start, stop, options.hasBacking, (view, index) => discardEntry(mapping, view, index, options.hasBacking));
}

/**
 * Runs an edit over every entry of a cluster-aligned range. An L2 table that does not exist is only made where
 * unallocated clusters change too, that is, over a backing file.
 */
async function editClusters(
  mapping: Mapping, start: number, end: number, hasBacking: boolean, edit: (view: DataView, index: number) => void,
): Promise<void> {
  const { clusterSize, bytesPerSlice } = mapping.geometry;
  const parent = acting();
  const hold = mapping.changing.tryAcquire(start, end) ?? await mapping.changing.acquire(start, end);
  try {
    for (let at = start; at < end;) {
      const stop = Math.min(end, alignDown(at, bytesPerSlice) + bytesPerSlice);
      await actFor(parent, () => mapping.image.exclusive(async () => {
        if (mapping.tableMissing(at) && !hasBacking) return;
        const { slice, index } = await mapping.editable(at);
        mapping.image.l2.markDirty(slice);
        const count = Math.ceil((stop - at) / clusterSize);
        for (let i = 0; i < count; i++) edit(slice.view, index + i);
      }));
      at = stop;
    }
  } finally {
    mapping.changing.release(hold);
  }
}

function zeroEntry(mapping: Mapping, view: DataView, index: number, options: ZeroOptions): void {
  const high = view.getUint32(index * ENTRY_BYTES);
  const low = view.getUint32(index * ENTRY_BYTES + 4);
  const kind = clusterKind(high, low);
  const v3 = mapping.image.header.version >= 3;
  if (options.onlyUnallocated === true && kind !== ClusterKind.UNALLOCATED) return;
  if (kind === ClusterKind.ZERO_PLAIN || (kind === ClusterKind.UNALLOCATED && !options.hasBacking)) return;
  if (kind === ClusterKind.ZERO_ALLOCATED && !options.unmap) return;
  const keep = v3 && ownsCluster(kind) && !options.unmap;
  if (keep) {
    setEntry(view, index, hostOffsetOf(high, low), high & HIGH_COPIED, LOW_ZERO);
    return;
  }
  mapping.image.deferFreeEntry(high, low, 'request');
  setEntry(view, index, 0, 0, v3 ? LOW_ZERO : 0);
}

function discardEntry(mapping: Mapping, view: DataView, index: number, hasBacking: boolean): void {
  const high = view.getUint32(index * ENTRY_BYTES);
  const low = view.getUint32(index * ENTRY_BYTES + 4);
  const kind = clusterKind(high, low);
  if (kind === ClusterKind.ZERO_PLAIN || (kind === ClusterKind.UNALLOCATED && !hasBacking)) return;
  mapping.image.deferFreeEntry(high, low, 'request');
  setEntry(view, index, 0, 0, mapping.image.header.version >= 3 ? LOW_ZERO : 0);
}

/** Zeros as data, except where the clusters read as zeros already. */
async function writeExplicitZeroes(mapping: Mapping, io: GuestIo, start: number, end: number, options: ZeroOptions): Promise<void> {
  const parent = acting();
  for (let at = start; at < end;) {
    const extent = await actFor(parent, () => mapping.find(at, Math.min(end - at, 1024 * 1024)));
    const zero = extent.kind === ClusterKind.ZERO_PLAIN || extent.kind === ClusterKind.ZERO_ALLOCATED ||
      (extent.kind === ClusterKind.UNALLOCATED && !options.hasBacking);
    if (!zero) await actFor(parent, () => options.onlyUnallocated === true ? io.fill(at, new Uint8Array(extent.bytes)) : io.write(at, new Uint8Array(extent.bytes)));
    at += extent.bytes;
  }
}
