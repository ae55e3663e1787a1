/**
 * Guest data: reads, in-place writes, and writes that allocate. The mapping says where; the data moves here, outside
 * the metadata mutex. The fast path (slice in memory, cluster mapped and owned) takes no lock and copies nothing.
 */
import { alignDown, alignUp } from '../../base/bytes.js';
import { DONE, rejected } from '../../base/done.js';
import type { PipeBuffer } from '../../base/pipe-buffer.js';
import type { BlockChild } from '../../block/child.js';
import { acting, actingReason, actFor } from '../../block/request.js';
import type { Preallocation } from '../../block/driver.js';
import { TaskPool } from '../../base/task-pool.js';
import { readCompressedCluster } from './compress.js';
import { Corruption } from './corruption.js';
import type { Qcow2Image } from './image.js';
import { ClusterKind, clusterKind, ENTRY_BYTES, hostOffsetOf, HIGH_COPIED, isCopied, setEntry, type CompressedExtent } from './layout.js';
import type { Extent, Mapping } from './mapping.js';
import { prepareSpace } from './preallocate.js';
import type { CachedTable } from './table-cache.js';
import { events } from '../../trace/events.js';
import { tellInPlace, tellPart } from './event-points.js';

const PARALLEL_EXTENTS = 8;

/** Where the new data of a run of guest clusters goes. */
interface Placement {
  readonly hostOffset: number;
  readonly clusters: number;
  /** False where a zero cluster's own host cluster is taken into use. */
  readonly fresh: boolean;
  /** The clusters lay beyond the end of the file when they were allocated: what nobody writes there reads as zeros. */
  readonly virgin: boolean;
}

export class GuestIo {
  readonly #image: Qcow2Image;
  readonly #mapping: Mapping;
  #backing: BlockChild | null;

  constructor(mapping: Mapping, backing: BlockChild | null) {
    this.#image = mapping.image;
    this.#mapping = mapping;
    this.#backing = backing;
  }

  setBacking(backing: BlockChild | null): void {
    this.#backing = backing;
  }

  /** Never throws: all errors are rejections. */
  read(offset: number, into: Uint8Array, pipe?: PipeBuffer): Promise<void> {
    try {
      const first = this.#mapping.lookup(offset, into.byteLength);
      if (first !== null && first.bytes === into.byteLength) return this.#readExtent(first, offset, into, pipe);
      return this.#readParts(offset, into, pipe);
    } catch (error) {
      return rejected(error);
    }
  }

  async #readParts(offset: number, into: Uint8Array, pipe?: PipeBuffer): Promise<void> {
    await this.#eachExtent(offset, into.byteLength, async (extent, done, pool) => {
      if (extent.bytes < into.byteLength) pipe?.spill();
      await pool.add(this.#readExtent(extent, offset + done, into.subarray(done, done + extent.bytes), pipe));
      return extent.bytes;
    });
  }

  /**
   * Takes the range extent by extent; `take` says how many bytes it took. It starts its I/O before it awaits anything: the
   * lookup and the epoch that protects it are one synchronous stretch.
   */
  async #eachExtent(offset: number, bytes: number, take: (extent: Extent, done: number, pool: TaskPool) => Promise<number>): Promise<void> {
    const pool = new TaskPool(PARALLEL_EXTENTS);
    const parent = acting();
    const reason = actingReason();
    try {
      let fetched: CachedTable | null = null;
      for (let done = 0; done < bytes;) {
        const extent = this.#mapping.lookup(offset + done, bytes - done, fetched);
        if (extent === null) fetched = await actFor(parent, () => this.#mapping.fetch(offset + done));
        else done += await actFor(parent, () => take(extent, done, pool), reason);
      }
    } finally {
      await pool.drain();
    }
  }

  /** Never throws: all errors are rejections. */
  write(offset: number, data: Uint8Array, pipe?: PipeBuffer): Promise<void> {
    try {
      this.#image.assertWritable();
      return this.writeInPlace(offset, data, 0, pipe) ?? this.#writeParts(offset, data, pipe);
    } catch (error) {
      return rejected(error);
    }
  }

  /** Null where it takes more than one write to one place that is the range's own already. Throws where that place is a wrong one. */
  writeInPlace(offset: number, data: Uint8Array, flags: number, pipe?: PipeBuffer): Promise<void> | null {
    const first = this.#image.writing ? this.#mapping.lookup(offset, data.byteLength) : null;
    return first !== null && first.bytes === data.byteLength && this.#inPlace(first) ? this.#writeInPlace(offset, first, data, flags, pipe) : null;
  }

  /** The pipe goes to the one that writes all of it; it is memory for parts. */
  async #writeParts(offset: number, data: Uint8Array, pipe?: PipeBuffer): Promise<void> {
    const parent = acting();
    const reason = actingReason();
    if (!this.#image.writing) await this.#image.exclusive(async () => {});
    await actFor(parent, () => this.#eachExtent(offset, data.byteLength, async (extent, done, pool) => {
      if (!this.#inPlace(extent)) return this.#writeAllocating(offset + done, data.subarray(done), pipe);
      if (extent.bytes < data.byteLength) pipe?.spill();
      await pool.add(this.#writeInPlace(offset + done, extent, data.subarray(done, done + extent.bytes), 0, pipe));
      return extent.bytes;
    }), reason);
  }

  /** Writes only what no cluster maps (RequestFlag.IF_UNALLOCATED); decided while nobody else can map it. */
  async fill(offset: number, data: Uint8Array): Promise<void> {
    const { clusterSize } = this.#mapping.geometry;
    const start = alignDown(offset, clusterSize);
    const end = alignUp(offset + data.byteLength, clusterSize);
    const { changing } = this.#mapping;
    const hold = changing.tryAcquire(start, end) ?? await changing.acquire(start, end);
    try {
      for (let done = 0; done < data.byteLength;) {
        const { kind, bytes } = await this.#mapping.find(offset + done, data.byteLength - done);
        const lacking = kind === ClusterKind.UNALLOCATED;
        done += lacking ? await this.#allocateAndWrite(offset + done, data.subarray(done, done + bytes)) : bytes;
      }
    } finally {
      changing.release(hold);
    }
  }

  /** Maps every whole cluster of a range to a new one that reads as zeros. Returns where the last one ends in the file. */
  async preallocate(offset: number, bytes: number, mode: Preallocation): Promise<number> {
    let fileEnd = 0;
    const { clusterSize, bytesPerSlice } = this.#mapping.geometry;
    for (let at = alignUp(offset, clusterSize); at < offset + bytes;) {
      const end = Math.min(offset + bytes, alignDown(at, bytesPerSlice) + bytesPerSlice);
      const clusters = Math.ceil((end - at) / clusterSize);
      await this.#image.exclusive(async () => {
        await this.#mapping.editable(at);
        const hostOffset = await this.#image.refcounts.allocate(clusters);
        try {
          await prepareSpace(this.#image.file, hostOffset, clusters * clusterSize, mode);
        } catch (error) {
          await this.#image.refcounts.adjust(hostOffset / clusterSize, clusters, -1);
          throw error;
        }
        await this.#link(at, { hostOffset, clusters, fresh: true, virgin: true });
        fileEnd = Math.max(fileEnd, hostOffset + clusters * clusterSize);
      });
      at = end;
    }
    return fileEnd;
  }

  #inPlace(extent: Extent): boolean {
    return extent.kind === ClusterKind.NORMAL && extent.copied;
  }

  #readExtent(extent: Extent, offset: number, into: Uint8Array, pipe?: PipeBuffer): Promise<void> {
    switch (extent.kind) {
      case ClusterKind.UNALLOCATED: return this.#readBacking(offset, into, pipe);
      case ClusterKind.ZERO_PLAIN:
      case ClusterKind.ZERO_ALLOCATED:
        pipe?.spill();
        into.fill(0);
        return DONE;
      case ClusterKind.COMPRESSED:
        pipe?.spill();
        return this.#readCompressed(extent.compressed!, offset, into);
      default: {
        this.#image.file.debugEvent('read_aio');
        const epoch = this.#image.epochs.enter();
        return this.#leaveAfter(this.#image.file.read(extent.hostOffset, into, undefined, pipe), epoch);
      }
    }
  }

  async #readCompressed(compressed: CompressedExtent, offset: number, into: Uint8Array): Promise<void> {
    const epoch = this.#image.epochs.enter();
    try {
      this.#image.file.debugEvent('read_compressed');
      const cluster = await readCompressedCluster(this.#image, compressed);
      const start = offset % this.#mapping.geometry.clusterSize;
      into.set(cluster.subarray(start, start + into.byteLength));
    } finally {
      this.#image.epochs.leave(epoch);
    }
  }

  /** A backing file may be shorter: what it does not cover reads as zeros. */
  #readBacking(offset: number, into: Uint8Array, pipe?: PipeBuffer): Promise<void> {
    const backing = this.#backing;
    const covered = backing === null ? 0 : Math.max(0, Math.min(into.byteLength, backing.length() - offset));
    if (covered < into.byteLength) {
      pipe?.spill();
      into.fill(0, covered);
    }
    if (backing === null || covered === 0) return DONE;
    this.#image.file.debugEvent('read_backing_aio');
    return backing.read(offset, into.subarray(0, covered), undefined, pipe);
  }

  #writeInPlace(offset: number, extent: Extent, data: Uint8Array, flags = 0, pipe?: PipeBuffer): Promise<void> {
    if (events.log !== null) tellInPlace(offset, extent.hostOffset, data.byteLength);
    this.#image.overlap.assertFree(extent.hostOffset, data.byteLength);
    this.#image.file.debugEvent('write_aio');
    const epoch = this.#image.epochs.enter();
    const writing = this.#leaveAfter(this.#image.file.write(extent.hostOffset, data, flags, undefined, pipe), epoch);
    return events.log === null ? writing : tellPart(writing, data.byteLength);
  }

  /** Leaves the epoch when the host I/O has ended: at once where it ended at once. */
  #leaveAfter(io: Promise<void>, epoch: 0 | 1): Promise<void> {
    if (io !== DONE) return this.#leaveLater(io, epoch);
    this.#image.epochs.leave(epoch);
    return DONE;
  }

  async #leaveLater(io: Promise<void>, epoch: 0 | 1): Promise<void> {
    try {
      await io;
    } finally {
      this.#image.epochs.leave(epoch);
    }
  }

  /** Writes a first part of `data` that needs new clusters; returns how many bytes it took (0: the mapping changed meanwhile). */
  async #writeAllocating(offset: number, data: Uint8Array, pipe?: PipeBuffer): Promise<number> {
    const { clusterSize } = this.#mapping.geometry;
    const start = alignDown(offset, clusterSize);
    const end = alignUp(offset + data.byteLength, clusterSize);
    const { changing } = this.#mapping;
    const parent = acting();
    const reason = actingReason();
    const hold = changing.tryAcquire(start, end) ?? await changing.acquire(start, end);
    try {
      return await actFor(parent, () => this.#allocateAndWrite(offset, data, pipe), reason);
    } finally {
      changing.release(hold);
    }
  }

  /** The same, under the hold. */
  async #allocateAndWrite(offset: number, data: Uint8Array, pipe?: PipeBuffer): Promise<number> {
    const { clusterSize } = this.#mapping.geometry;
    const start = alignDown(offset, clusterSize);
    const end = alignUp(offset + data.byteLength, clusterSize);
    const parent = acting();
    const reason = actingReason();
    events.log?.emit('qcow2_writev_start_part', parent?.id);
    events.log?.emit('qcow2_alloc_clusters_offset', parent?.id, offset, data.byteLength);
    const placement = await this.#image.exclusive(() => this.#place(start, (end - start) / clusterSize, offset - start, data.byteLength));
    if (placement === null) return 0;
    const taken = Math.min(data.byteLength, start + placement.clusters * clusterSize - offset);
    events.log?.emit('qcow2_do_alloc_clusters_offset', parent?.id, start, placement.hostOffset, placement.clusters);
    if (taken < data.byteLength) pipe?.spill();
    try {
      await actFor(parent, () => this.#writeWithCopy(start, placement, offset, data.subarray(0, taken), pipe), reason);
    } catch (error) {
      if (placement.fresh) await this.#giveBack(placement);
      throw error;
    }
    events.log?.emit('qcow2_cluster_link_l2', parent?.id, placement.clusters);
    await actFor(parent, () => this.#image.exclusive(() => this.#link(start, placement)));
    events.log?.emit('qcow2_writev_done_part', parent?.id, taken);
    return taken;
  }

  /** Host clusters for the data that begins `head` bytes into the run at `start`, which is not writable in place; null where there is none. Under the mutex. */
  async #place(start: number, count: number, head: number, bytes: number): Promise<Placement | null> {
    const { clusterSize, sliceEntries } = this.#mapping.geometry;
    events.log?.emit('qcow2_handle_alloc', this.#image.file.holder?.id, start + head, 0, bytes);
    let fresh = 0;
    while (fresh < count) {
      const { slice, index } = await this.#mapping.editable(start + fresh * clusterSize);
      const span = Math.min(count - fresh, sliceEntries - index);
      let run = 0;
      while (run < span && needsCluster(slice.view, index + run)) run++;
      if (fresh === 0 && run === 0) return reusableRun(slice.view, index, span, clusterSize);
      fresh += run;
      if (run < span) break;
    }
    const hostOffset = await this.#image.refcounts.allocate(fresh).catch((error: unknown) => { throw aboutData(error, head, bytes); });
    return { hostOffset, clusters: fresh, fresh: true, virgin: this.#image.file.growable && hostOffset >= this.#image.file.length() };
  }

  async #giveBack(placement: Placement): Promise<void> {
    const { clusterSize } = this.#mapping.geometry;
    await this.#image.exclusive(() => this.#image.refcounts.adjust(placement.hostOffset / clusterSize, placement.clusters, -1))
      .catch(() => {}); // the clusters leak; the error of the write itself is the one to report
  }

  /** Writes the data with what surrounds it in its first and last cluster, as one host write. */
  async #writeWithCopy(start: number, placement: Placement, offset: number, data: Uint8Array, pipe?: PipeBuffer): Promise<void> {
    const { clusterSize } = this.#mapping.geometry;
    const total = placement.clusters * clusterSize;
    const head = offset - start;
    const tail = start + total - (offset + data.byteLength);
    this.#image.overlap.assertFree(placement.hostOffset + head, data.byteLength);
    events.log?.emit('qcow2_writev_data', acting()?.id, placement.hostOffset + head);
    if (placement.virgin && this.#readsZeros(start, head) && this.#readsZeros(offset + data.byteLength, tail)) {
      events.log?.emit('qcow2_skip_cow', acting()?.id, start, placement.clusters);
      if (head + tail > 0) this.#image.file.debugEvent('cluster_alloc_space');
      this.#image.file.debugEvent('write_aio');
      await this.#image.file.write(placement.hostOffset + head, data, 0, undefined, pipe);
      return;
    }
    if (head === 0 && tail === 0) {
      this.#image.file.debugEvent('write_aio');
      await this.#image.file.write(placement.hostOffset, data, 0, undefined, pipe);
      return;
    }
    pipe?.spill();
    const parent = acting();
    const copy = <T>(work: () => T): T => actFor(parent, work, 'cow');
    const whole = new Uint8Array(total);
    const zeros = this.#readsAsZeros(start, head) && this.#readsAsZeros(offset + data.byteLength, tail);
    this.#image.file.debugEvent(zeros ? 'cluster_alloc_space' : 'cow_read');
    if (head > 0) await copy(() => this.read(start, whole.subarray(0, head)));
    if (tail > 0) await copy(() => this.read(offset + data.byteLength, whole.subarray(total - tail)));
    whole.set(data, head);
    this.#image.file.debugEvent('write_aio');
    if (!zeros) this.#image.file.debugEvent('cow_write');
    await copy(() => this.#image.file.write(placement.hostOffset, whole));
  }

  /** True where the mapping alone says so. */
  #readsAsZeros(offset: number, bytes: number): boolean {
    if (bytes === 0) return true;
    const extent = this.#mapping.lookup(offset, bytes);
    if (extent === null || extent.bytes < bytes) return false;
    return extent.kind === ClusterKind.ZERO_PLAIN || extent.kind === ClusterKind.ZERO_ALLOCATED ||
      (extent.kind === ClusterKind.UNALLOCATED && this.#backing === null);
  }

  /** True where a range is known, without I/O, to read as zeros. */
  #readsZeros(offset: number, bytes: number): boolean {
    for (let done = 0; done < bytes;) {
      const extent = this.#mapping.lookup(offset + done, bytes - done);
      if (extent === null) return false;
      const deferred = extent.kind === ClusterKind.UNALLOCATED && (this.#backing === null || offset + done >= this.#backing.length());
      if (!deferred && extent.kind !== ClusterKind.ZERO_PLAIN && extent.kind !== ClusterKind.ZERO_ALLOCATED) return false;
      done += extent.bytes;
    }
    return true;
  }

  /** Points the L2 entries at the placement; what they referenced before is freed after the next barrier. Under the mutex. */
  async #link(start: number, placement: Placement): Promise<void> {
    const { clusterSize, sliceEntries } = this.#mapping.geometry;
    for (let done = 0; done < placement.clusters;) {
      const { slice, index } = await this.#mapping.editable(start + done * clusterSize).catch(async (error: unknown) => {
        if (placement.fresh) await this.#image.refcounts.adjust(placement.hostOffset / clusterSize + done, placement.clusters - done, -1).catch(() => {});
        throw error;
      });
      const span = Math.min(placement.clusters - done, sliceEntries - index);
      this.#image.l2.markDirty(slice);
      for (let i = 0; i < span; i++) {
        if (placement.fresh) this.#image.deferFreeEntry(slice.view.getUint32((index + i) * ENTRY_BYTES), slice.view.getUint32((index + i) * ENTRY_BYTES + 4), 'never');
        setEntry(slice.view, index + i, placement.hostOffset + (done + i) * clusterSize, HIGH_COPIED, 0);
      }
      done += span;
    }
  }
}

/** What is told of metadata that the allocator came across is where the data would have gone. */
function aboutData(error: unknown, head: number, bytes: number): unknown {
  const { message = '', range = null } = error instanceof Corruption ? error.signal : {};
  if (range === null) return error;
  return new Corruption((error as Corruption).node ?? '', message, { offset: range.offset + head, bytes: Math.min(bytes, range.bytes - head) });
}

/** True where the entry's cluster cannot be written in place or taken into use. */
function needsCluster(view: DataView, index: number): boolean {
  const high = view.getUint32(index * ENTRY_BYTES);
  const kind = clusterKind(high, view.getUint32(index * ENTRY_BYTES + 4));
  return !(isCopied(high) && (kind === ClusterKind.NORMAL || kind === ClusterKind.ZERO_ALLOCATED));
}

/** Zero clusters that own adjacent host clusters; null where the run starts with one that is written in place. */
function reusableRun(view: DataView, index: number, count: number, clusterSize: number): Placement | null {
  const hostAt = (i: number): number => hostOffsetOf(view.getUint32(i * ENTRY_BYTES), view.getUint32(i * ENTRY_BYTES + 4));
  const reusable = (i: number): boolean =>
    clusterKind(view.getUint32(i * ENTRY_BYTES), view.getUint32(i * ENTRY_BYTES + 4)) === ClusterKind.ZERO_ALLOCATED &&
    isCopied(view.getUint32(i * ENTRY_BYTES));
  if (!reusable(index)) return null;
  const hostOffset = hostAt(index);
  let clusters = 1;
  while (clusters < count && reusable(index + clusters) && hostAt(index + clusters) === hostOffset + clusters * clusterSize) clusters++;
  return { hostOffset, clusters, fresh: false, virgin: false };
}
