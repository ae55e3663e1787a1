/** The qcow2 driver: opens, validates, wires the parts together, and closes in the order that leaves a clean image. */
import { alignUp } from '../../base/bytes.js';
import { MAX_TIMER_MS } from '../../base/clock.js';
import { DONE, rejected } from '../../base/done.js';
import { BlockError } from '../../base/errors.js';
import type {
  BlockDriver, BlockLimits, BlockStatus, CheckOptions, CheckResult, FormatInfo, Preallocation, PreparedUse, SnapshotTable, VmStateArea,
} from '../../block/driver.js';
import { NO_LIMITS } from '../../block/driver.js';
import { BlockChild } from '../../block/child.js';
import type { BlockNode } from '../../block/node.js';
import { lookUpSnapshot } from '../../block/snapshot-lookup.js';
import { makePart, RequestFlag, type BlockRequest } from '../../block/request.js';
import { Qcow2Bitmaps } from './bitmaps.js';
import { readCacheSizes, type CacheSizes } from './cache-sizes.js';
import { Checker } from './check.js';
import { GuestIo } from './guest-io.js';
import { discard, writeZeroes, type ZeroOptions } from './guest-zero.js';
import { planBackingName } from './header-backing.js';
import { COMPATIBLE_LAZY_REFCOUNTS, HeaderStore, INCOMPATIBLE_CORRUPT, INCOMPATIBLE_DIRTY, parseHeader, type Header } from './header.js';
import { Qcow2Image, type PassDiscard } from './image.js';
import { L1Table } from './l1-table.js';
import { ClusterKind, MAX_CLUSTER_BITS, setSliceBytes, type Geometry } from './layout.js';
import { Mapping } from './mapping.js';
import type { Qcow2OpenOptions } from './options.js';
import { Refcounts } from './refcount.js';
import { overlapParts } from './overlap.js';
import { checkNewSize, failing, growL1, shrinkDisk } from './resize.js';
import { readSnapshotTable, type SnapshotEntry } from './snapshot-table.js';
import { Snapshots } from './snapshots.js';
import { TableCache } from './table-cache.js';
import { PendingVmState } from './vmstate-area.js';
import { logged } from './event-points.js';
import { events } from '../../trace/events.js';

export async function openQcow2(node: BlockNode, options: Qcow2OpenOptions = {}): Promise<Qcow2Driver> {
  const file = new BlockChild('file', 'file', node);
  try {
    return await open(file, options);
  } catch (error) {
    node.parents.delete(file); // still the caller's to close
    throw error;
  }
}

/** Gives a new, empty image in `node` its clusters. */
export async function preallocateQcow2(node: BlockNode, mode: Preallocation = 'off'): Promise<void> {
  if (mode === 'off') return;
  const file = new BlockChild('file', 'file', node);
  try {
    const image = await open(file, { lazyRefcounts: false });
    await image.preallocate(mode);
    await image.close();
  } finally {
    node.parents.delete(file);
  }
}

async function open(file: BlockChild, options: Qcow2OpenOptions): Promise<Qcow2Driver> {
  const snapshot = options.snapshot;
  const readOnly = (options.readOnly ?? false) || file.readOnly || snapshot !== undefined;
  const start = new Uint8Array(Math.min(2 ** MAX_CLUSTER_BITS, Math.max(0, file.length())));
  await file.read(0, start.subarray(0, Math.min(start.byteLength, 65536)), 'metadata');
  const clusterBytes = start.byteLength >= 24 ? 2 ** Math.min(Math.max(new DataView(start.buffer).getUint32(20), 9), MAX_CLUSTER_BITS) : 0;
  if (clusterBytes > 65536) await file.read(0, start, 'metadata');
  const header = parseHeader(start, file.name);
  refuseDamaged(header, file.name, readOnly, options);
  const store = new HeaderStore(file, header, start);
  const caches = readCaches(header, options);
  setSliceBytes(header.geometry, caches.sliceBytes);
  const refcounts = await Refcounts.load(file, store, caches.refcount);
  const image = new Qcow2Image({
    file, store, refcounts, readOnly,
    l2: new TableCache(file, caches.sliceBytes, caches.l2, 'l2'),
    activeL1: await L1Table.load(file, header.l1Offset, header.l1Entries),
    lazyRefcounts: lazyRefcountsOf(header, options),
    passDiscard: passDiscardOf(options),
    overlapParts: options.overlapParts ?? overlapParts(),
  });
  image.onCorruption = options.onCorruption ?? null;
  const entries = await readSnapshotTable(file, header);
  if ((header.incompatible & INCOMPATIBLE_DIRTY) !== 0n && !readOnly && options.forCheck !== true) await repairDirty(image, entries);
  const bitmaps = new Qcow2Bitmaps(image);
  if (options.forCheck !== true && snapshot === undefined) {
    await bitmaps.load();
    image.hooks = bitmaps;
  }
  const backing = await openBacking(header, options);
  try {
    const view = snapshot === undefined ? null : await snapshotView(image, entries, snapshot);
    return new Qcow2Driver(image, entries, bitmaps, backing, view, caches.cleanSeconds);
  } catch (error) {
    await backing?.close();
    throw error;
  }
}

function passDiscardOf({ discard, passDiscard }: Qcow2OpenOptions): PassDiscard {
  const all = discard === 'unmap';
  return passDiscard ?? { request: all, snapshot: all, other: all };
}

/** The options that depend on the image, checked in QEMU's order. */
function readCaches(header: Header, options: Qcow2OpenOptions): CacheSizes {
  const caches = readCacheSizes(header, options);
  if (options.lazyRefcounts === true && header.version < 3) {
    throw new BlockError('INVALID_ARGUMENT', 'Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level');
  }
  return caches;
}

function lazyRefcountsOf(header: Header, { lazyRefcounts }: Qcow2OpenOptions): boolean {
  return header.version >= 3 && (lazyRefcounts ?? (header.compatible & COMPATIBLE_LAZY_REFCOUNTS) !== 0n);
}

async function openBacking(header: Header, { openBacking, overrideBacking }: Qcow2OpenOptions): Promise<BlockNode | null> {
  try {
    if (overrideBacking !== undefined) return await overrideBacking();
    return header.backingFile === null || openBacking === undefined ? null : await openBacking(header.backingFile, header.backingFormat);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new BlockError(error.code, `Could not open backing file: ${error.message}`, { errno: error.errno, node: error.node, cause: error });
  }
}

interface SnapshotView {
  readonly l1: L1Table;
  readonly diskSize: number;
}

async function snapshotView(image: Qcow2Image, entries: readonly SnapshotEntry[], tag: string): Promise<SnapshotView> {
  const entry = lookUpSnapshot(entries, tag);
  if (entry === undefined) throw new BlockError('NOT_FOUND', `'${image.name}' has no snapshot '${tag}'`, { node: image.name });
  return { l1: await L1Table.load(image.file, entry.l1Offset, entry.l1Entries), diskSize: entry.diskSize };
}

function refuseDamaged(header: Header, name: string, readOnly: boolean, options: Qcow2OpenOptions): void {
  if (options.forCheck === true || readOnly) return;
  if ((header.incompatible & INCOMPATIBLE_CORRUPT) !== 0n) {
    throw new BlockError('CORRUPT', `'${name}' is marked corrupt and can only be opened read-only or for repair`, { node: name });
  }
}

/** The dirty bit says that refcounts were not kept on disk (lazy refcounts, no clean close): they are computed anew. */
async function repairDirty(image: Qcow2Image, entries: readonly SnapshotEntry[]): Promise<void> {
  const result = await new Checker(image, entries).run({ repair: 'all' }, true);
  if (result.corruptions > 0 || result.checkErrors > 0) throw image.corrupt('it was not closed cleanly and its refcounts could not be rebuilt');
}

export class Qcow2Driver implements BlockDriver {
  readonly kind = 'format';
  readonly formatName = 'qcow2';
  readonly limits: BlockLimits = NO_LIMITS;
  readonly growable = false;
  backing: BlockChild | null;
  readonly snapshots: SnapshotTable;
  readonly image: Qcow2Image;
  readonly bitmapStore: Qcow2Bitmaps;
  readonly #mapping: Mapping;
  readonly #io: GuestIo;
  readonly #fixedSize: number | null;
  readonly #pending: PendingVmState | null;
  readonly #table: Snapshots;
  #cleaning: NodeJS.Timeout | undefined;

  constructor(image: Qcow2Image, entries: readonly SnapshotEntry[], bitmaps: Qcow2Bitmaps, backing: BlockNode | null, snapshot: SnapshotView | null, cleanSeconds = 0) {
    this.image = image;
    this.bitmapStore = bitmaps;
    this.backing = backing === null ? null : new BlockChild('backing', 'backing', backing);
    this.#fixedSize = snapshot?.diskSize ?? null;
    this.#mapping = snapshot === null ? new Mapping(image, () => image.activeL1) : new Mapping(image, () => snapshot.l1, 0, false);
    this.#io = new GuestIo(this.#mapping, this.backing);
    this.#pending = snapshot === null ? new PendingVmState(image) : null;
    this.#table = new Snapshots(image, entries, this.#pending, () => bitmaps.inUse);
    this.snapshots = this.#table;
    this.#cleanEvery(cleanSeconds);
  }

  get children(): readonly BlockChild[] {
    return this.backing === null ? [this.image.file] : [this.image.file, this.backing];
  }

  get vmState(): VmStateArea | undefined { return this.image.readOnly ? undefined : this.#pending ?? undefined; }
  get geometry(): Geometry { return this.image.geometry; }
  get header(): Header { return this.image.header; }

  length(): number {
    return this.#fixedSize ?? this.image.header.size;
  }

  submit(request: BlockRequest): Promise<void> {
    if (this.image.ejected) return rejected(this.#noMedium());
    try {
      const running = this.#execute(request);
      return running === DONE ? DONE : this.#watch(running);
    } catch (error) {
      return this.#watch(rejected(error));
    }
  }

  get ejected(): boolean { return this.image.ejected; }

  #noMedium(): BlockError {
    return new BlockError('CORRUPT', `'${this.image.name}' is corrupt: it is of no use until it is repaired`, { node: this.image.name, errno: 'ENOMEDIUM' });
  }

  async #watch<T>(running: Promise<T>): Promise<T> {
    try {
      return await running;
    } catch (error) {
      if (error instanceof BlockError && error.code === 'CORRUPT') await this.image.signalCorruption(error).catch(() => {});
      throw error;
    }
  }

  #execute(request: BlockRequest): Promise<void> {
    return events.log === null ? this.#carryOut(request) : logged(request, () => this.#carryOut(request));
  }

  #carryOut(request: BlockRequest): Promise<void> {
    const { offset, bytes } = request;
    const onlyUnallocated = (request.flags & RequestFlag.IF_UNALLOCATED) !== 0;
    switch (request.op) {
      case 'read': return this.#io.read(offset, request.buffer!, request.pipe);
      case 'write':
        if (!onlyUnallocated && (request.flags & RequestFlag.FUA) === 0) return this.#io.write(offset, request.buffer!, request.pipe);
        request.pipe?.spill();
        return (request.flags & RequestFlag.FUA) !== 0 ? this.#writeLasting(request) : this.#io.fill(offset, request.buffer!);
      case 'write-zeroes':
        return writeZeroes(this.#mapping, this.#io, offset, bytes, this.#zeroesOf(request.flags));
      case 'discard': return discard(this.#mapping, offset, bytes, this.#zeroOptions(true));
      case 'flush': return this.#flush();
    }
  }

  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    if (this.image.ejected) throw this.#noMedium();
    const extent = await this.#watch(this.#mapping.find(offset, bytes));
    switch (extent.kind) {
      case ClusterKind.UNALLOCATED: return { kind: 'unallocated', bytes: extent.bytes };
      case ClusterKind.ZERO_PLAIN:
      case ClusterKind.ZERO_ALLOCATED: return { kind: 'zero', bytes: extent.bytes };
      case ClusterKind.COMPRESSED: return { kind: 'data', bytes: extent.bytes, compressed: true };
      default: return { kind: 'data', bytes: extent.bytes, hostOffset: extent.hostOffset };
    }
  }

  /**
   * Another size of the disk. What it loses is gone; what it gains reads as zeros, and is preallocated where that is asked
   * for. On a drained node.
   */
  readonly resize = async (bytes: number, preallocation: Preallocation = 'off'): Promise<void> => {
    const { image } = this;
    checkNewSize(image, bytes);
    const old = this.length();
    if (bytes === old) return;
    this.bitmapStore.checkResize();
    if (bytes < old) {
      if (preallocation !== 'off') throw new BlockError('INVALID_ARGUMENT', "Preallocation can't be used for shrinking an image", { node: image.name });
      await image.exclusive(() => shrinkDisk(image, bytes));
    } else {
      await this.#grow(old, bytes, preallocation);
    }
    this.bitmapStore.bitmaps.resize(bytes);
  };

  async #grow(old: number, bytes: number, preallocation: Preallocation): Promise<void> {
    const { image } = this;
    await image.exclusive(() => growL1(image, bytes)).catch(failing('Failed to grow the L1 table'));
    // What lies between the old end and the new one must read as zeros: a backing file may be longer than the disk was
    const visible = Math.max(alignUp(old, this.geometry.clusterSize), this.backing?.length() ?? 0);
    const end = Math.min(bytes, visible);
    if (end > old) await writeZeroes(this.#mapping, this.#io, old, end - old, { ...this.#zeroOptions(true), diskSize: bytes });
    if (preallocation !== 'off') await this.#preallocate(old, bytes, preallocation);
    // The new size last: a crash before leaves the old disk, with zeros beyond its end
    await image.exclusive(async () => {
      await image.barrier();
      await image.guard(() => image.store.switch({ size: bytes }));
    });
  }

  readonly setBacking = (backing: BlockChild | null): void => {
    this.backing = backing;
    this.#io.setBacking(backing);
  };

  /** Another name of the backing file in the image; what is open stays as it is. On a drained node. */
  readonly changeBackingFile = async (name: string | null, format: string | null): Promise<void> => {
    const { image } = this;
    image.assertWritable();
    const steps = planBackingName(image.store, name, format);
    await image.exclusive(() => image.guard(async () => { for (const patches of steps) await image.store.edit(patches); }));
    await image.store.reread();
  };

  /** Throws where options of a reopen contradict each other or the image. */
  checkReopen(options: Qcow2OpenOptions): void {
    readCaches(this.image.header, options);
  }

  /** Other runtime options; `readOnly` among them. On a drained node: what is written so far is brought to the disk first. */
  async prepareReopen(options: Qcow2OpenOptions): Promise<PreparedUse & { after(): Promise<void> }> {
    const { image } = this;
    const readOnly = options.readOnly ?? false;
    refuseDamaged(image.header, image.name, readOnly, options);
    const caches = readCaches(image.header, options);
    await this.#pending?.discard().catch(() => {});
    await image.pause();
    return {
      commit: () => {
        image.readOnly = readOnly;
        image.lazyRefcounts = lazyRefcountsOf(image.header, options);
        image.passDiscard = passDiscardOf(options);
        image.overlap.parts = options.overlapParts ?? overlapParts();
        setSliceBytes(image.geometry, caches.sliceBytes);
        image.l2.setShape(caches.sliceBytes, caches.l2);
        image.refcounts.cache.setCapacity(caches.refcount);
        this.#cleanEvery(caches.cleanSeconds);
        this.bitmapStore.setReadOnly(readOnly);
      },
      abort: () => {},
      after: async () => {
        const dirty = (image.header.incompatible & INCOMPATIBLE_DIRTY) !== 0n;
        if (dirty && !image.readOnly) await repairDirty(image, this.#table.list());
      },
    };
  }

  readonly check = async (options: CheckOptions): Promise<CheckResult> => {
    if (options.repair !== undefined && options.repair !== 'none') this.image.assertWritable();
    return new Checker(this.image, this.#table.list()).run(options);
  };

  readonly describe = (): FormatInfo => {
    const { header } = this.image;
    const bitmaps = this.bitmapStore.describe();
    return {
      clusterSize: header.geometry.clusterSize,
      dirty: (header.incompatible & INCOMPATIBLE_DIRTY) !== 0n,
      backingFile: header.backingFile,
      backingFormat: header.backingFormat,
      specific: header.version === 2 ? { compat: '0.10', 'compression-type': 'zlib', 'refcount-bits': 16 } : {
        compat: '1.1',
        'compression-type': 'zlib',
        'lazy-refcounts': (header.compatible & COMPATIBLE_LAZY_REFCOUNTS) !== 0n,
        ...(bitmaps.length === 0 ? {} : { bitmaps }),
        'refcount-bits': header.geometry.refcountBits,
        corrupt: (header.incompatible & INCOMPATIBLE_CORRUPT) !== 0n,
        'extended-l2': false,
      },
    };
  };

  /** Maps every cluster of an empty image; for creation with preallocation. */
  async preallocate(mode: Preallocation): Promise<void> {
    await this.#preallocate(0, this.length(), mode);
    await this.#flush();
  }

  async close(): Promise<void> {
    clearInterval(this.#cleaning);
    await this.#pending?.discard().catch(() => {}); // a state nobody took: it leaks at worst
    await this.image.finish();
  }

  #cleanEvery(seconds: number): void {
    clearInterval(this.#cleaning);
    if (seconds === 0) return;
    const { l2, refcounts } = this.image;
    this.#cleaning = setInterval(() => {
      l2.dropUnused();
      refcounts.cache.dropUnused();
    }, Math.min(seconds * 1000, MAX_TIMER_MS)).unref();
  }

  get pipeBytes(): number { return this.image.file.node.pipeBytes; }
  get fuaBytes(): number { return this.image.file.node.fuaBytes; }

  /** One write to the file where that changes no table; else all that it changed is flushed, in its order. */
  async #writeLasting(request: BlockRequest): Promise<void> {
    const { op, offset, bytes, buffer, flags, ioClass } = request;
    const { FUA, IF_UNALLOCATED } = RequestFlag;
    const writing = (flags & IF_UNALLOCATED) === 0 && this.image.isSettled ? this.#io.writeInPlace(offset, buffer!, FUA) : null;
    if (writing === null) {
      await this.#carryOut(makePart(request, op, offset, bytes, buffer, flags - FUA, ioClass));
      return this.#flush();
    }
    try {
      await writing;
    } catch (error) {
      // where it was the flush that failed, this one does too, and the image is told
      await this.#flush().catch(() => {});
      throw error;
    }
  }

  async #flush(): Promise<void> {
    if (this.image.failure !== null) throw this.image.failure;
    if (this.image.readOnly || !this.image.writing) {
      this.image.file.debugEvent('flush_to_disk');
      return this.image.file.flush();
    }
    await this.image.locked(() => this.image.barrier());
  }

  async #preallocate(from: number, to: number, mode: Preallocation): Promise<void> {
    const end = await this.#io.preallocate(from, to - from, mode);
    const { file } = this.image;
    if (file.growable && file.length() < end) await file.node.driver.resize?.(end);
  }

  #zeroesOf(flags: number): ZeroOptions {
    const options = this.#zeroOptions((flags & RequestFlag.MAY_UNMAP) !== 0);
    // version 2 has no zero clusters: its zeros take room, which only a backing file that is known of is worth
    const own = (flags & RequestFlag.OWN_ZEROES) !== 0 && (this.image.header.version >= 3 || this.image.header.backingFile !== null);
    return { ...options, hasBacking: options.hasBacking || own, onlyUnallocated: (flags & RequestFlag.IF_UNALLOCATED) !== 0 };
  }

  #zeroOptions(unmap: boolean): ZeroOptions {
    return { unmap, hasBacking: this.backing !== null, diskSize: this.length() };
  }
}
