/**
 * What a protocol or format writes. A driver may assume all that its BlockNode checked: the request lies inside the
 * node, is writable, and offset, length and memory are aligned to `limits`. An absent capability means "not supported";
 * there are no throwing stubs.
 */
import type { BlockRequest } from './request.js';
import type { BlockChild } from './child.js';
import type { DirtyBitmap } from './dirty-bitmap.js';
import type { BitmapStore } from './dirty-bitmaps.js';
import type { EdgeUse } from './permissions.js';

export interface BlockLimits {
  /** Offset and length of every read and write are multiples of this (1 = any). */
  readonly requestAlignment: number;
  /** Address alignment of buffers (1 = any). */
  readonly memoryAlignment: number;
  /** Largest read or write in one request, a multiple of requestAlignment; Infinity = none. */
  readonly maxTransfer: number;
  /** Largest write-zeroes and discard in one request; none where not given. */
  readonly maxZeroes?: number | undefined;
  readonly maxDiscard?: number | undefined;
  /** Write-zeroes and discard of whole multiples of this are cheap; smaller parts are written (zeroes) or dropped (discard). */
  readonly zeroAlignment?: number | undefined;
  readonly discardAlignment?: number | undefined;
  /** What a user does best to ask for: a cluster, a stripe. */
  readonly optTransfer?: number | undefined;
}

export const NO_LIMITS: BlockLimits = { requestAlignment: 1, memoryAlignment: 1, maxTransfer: Infinity };

/** How much of new space is there from the start (QEMU's PreallocMode): tables that map it, space on the host, zeros written. */
export type Preallocation = 'off' | 'metadata' | 'falloc' | 'full';

/** What a range is in *this* layer: `unallocated` defers to the backing node (zeros where there is none). */
export interface BlockStatus {
  readonly kind: 'data' | 'zero' | 'unallocated';
  /** The answer holds for this many bytes from the asked offset: 1 … asked. */
  readonly bytes: number;
  /** Where the data lies in the file below, if it lies there as it is. */
  readonly hostOffset?: number | undefined;
  readonly compressed?: boolean | undefined;
}

export interface BlockDriver {
  readonly kind: 'protocol' | 'format' | 'filter';
  /** QEMU's driver name: `file`, `host_device`, `qcow2`, `raw`, … */
  readonly formatName: string;
  readonly limits: BlockLimits;
  /** True where a write past the end extends the node (regular files, memory). */
  readonly growable: boolean;
  /** Reads and writes of up to so many bytes may carry a pipe (see BlockRequest). Absent: none. */
  readonly pipeBytes?: number | undefined;
  /** A write goes to the one node below as it is, with its flags: that one sees to it that it lasts. */
  readonly passesWrites?: boolean;
  /**
   * Carries out writes of up to so many bytes with the FUA flag better than its node could with a flush after them. They do
   * what that flush would do: all that has been written before lasts too. Absent: none.
   */
  readonly fuaBytes?: number | undefined;
  /** Current length in bytes. */
  length(): number;
  /**
   * One verb for all I/O. Rejects with BlockError; NOT_SUPPORTED for write-zeroes means "write the zeros yourself". May
   * return DONE (base/done) for what ended before it returned; the driver then bounds how much that is in one turn.
   */
  submit(request: BlockRequest): Promise<void>;
  /** Own layer only; 0 < bytes, inside the node. */
  blockStatus(offset: number, bytes: number): Promise<BlockStatus>;
  /** True once it has found itself to be of no use (corrupt): no request succeeds any more. */
  readonly ejected?: boolean;
  /** Releases everything. Called once, when no request is in flight. */
  close(): Promise<void>;
  /** A request may wait in it for its turn, before it goes on to the node below as a part (makePart) of itself. */
  readonly queues?: boolean;
  /** The edges to the nodes below, in QEMU's order (file, backing); none for a protocol. */
  readonly children?: readonly BlockChild[];
  /** The edge among `children` that an unallocated range defers to. */
  readonly backing?: BlockChild | null;
  /** What an edge needs of the node below, where that does not follow from its role (see edgeUse). */
  readonly childUse?: (child: BlockChild, parent: EdgeUse, writable: boolean) => EdgeUse;
  /**
   * Follows the users of this node: takes image locks, opens the file for writing. Resolves to what makes it true, or
   * undoes it; rejects where it cannot be (a lock is held elsewhere).
   */
  readonly prepareUse?: (use: EdgeUse) => Promise<PreparedUse>;
  /** Writes another name (and format, where one is given) of the backing file into the image, or that it has none (null). On a drained node. */
  readonly changeBackingFile?: (name: string | null, format: string | null) => Promise<void>;
  /** Where the backing edge may come, go and be made anew: takes the new edge, or null. On a drained node. */
  readonly setBacking?: (backing: BlockChild | null) => void;
  /** Error injection hears here of the points that the format above passes (QEMU's BLKDBG_EVENT names). Never throws. */
  readonly debugEvent?: (event: string) => void;
  /** A drained section of the node, or of one above it, begins: what waits on policy goes now, until `drainEnd`. They nest. */
  readonly drainBegin?: () => void;
  readonly drainEnd?: () => void;
  /** Another length; `preallocation` tells how much of what it gains is there from the start. On a drained node. */
  /** Whoever asked is no longer interested in what a peer has not answered: it fails soon. What came of it is not known. */
  readonly cancelInFlight?: () => void;
  readonly resize?: (bytes: number, preallocation?: Preallocation) => Promise<void>;
  /** Where bulk data can go to the disk before it is flushed: while somebody wants that. */
  readonly writeOut?: { begin(): void; end(): void } | undefined;
  readonly snapshots?: SnapshotTable | undefined;
  readonly vmState?: VmStateArea | undefined;
  /** Keeps dirty bitmaps in the image. */
  readonly bitmapStore?: BitmapStore;
  /** How often confirmed writes that no flush had covered may have been lost. */
  readonly lostWrites?: number;
  /** They are written again: flushes, which fail after such a loss, may succeed. */
  forgiveLoss?(): void;
  /** Its own dirty bitmaps without a name, oldest first: shown with those of the node, and nothing else. */
  readonly shownBitmaps?: readonly DirtyBitmap[];
  readonly check?: (options: CheckOptions) => Promise<CheckResult>;
  readonly describe?: () => FormatInfo;
  /** Bytes the host really allocated for it. */
  readonly allocatedBytes?: () => Promise<number>;
}

export interface PreparedUse {
  commit(): void;
  abort(): void;
}

export type InfoValue = string | number | boolean | readonly InfoValue[] | { readonly [name: string]: InfoValue };

/** Facts that `image info` shows. */
export interface FormatInfo {
  readonly clusterSize: number;
  /** Not closed cleanly, refcounts to be rebuilt. */
  readonly dirty: boolean;
  readonly backingFile: string | null;
  readonly backingFormat: string | null;
  /** QEMU's ImageInfoSpecific data, under QEMU's names. */
  readonly specific: Readonly<Record<string, InfoValue>>;
}

export interface SnapshotInfo {
  readonly id: string;
  readonly name: string;
  /** Bytes of RAM state; 0 = disk only. */
  readonly vmStateSize: number;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  /** Guest run time in nanoseconds; a bigint, since it is a full u64 on disk. */
  readonly vmClockNs: bigint;
  /** Instruction count, or null where none was recorded. */
  readonly icount: bigint | null;
  /** Virtual disk size at the snapshot. */
  readonly diskSize: number;
}

export interface CreateSnapshot {
  readonly name: string;
  readonly vmStateSize: number;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  readonly vmClockNs?: bigint | undefined;
  readonly icount?: bigint | null | undefined;
}

/** RAM state of one snapshot, read where it lies: nothing is reverted or written. */
export interface VmStateSource {
  readonly size: number;
  /** Reads up to `into.length` bytes from `position`; returns how many (0 at the end). */
  load(position: number, into: Uint8Array): Promise<number>;
  /** Throws CORRUPT where the state's mapping is damaged or points beyond the file, before anything relies on it. */
  verify?(): Promise<void>;
}

/** Internal snapshots. Every verb is called on a drained node and is atomic: after a crash, old or new, never half. */
export interface SnapshotTable {
  list(): readonly SnapshotInfo[];
  /** Throws where `create` would refuse the name, or has no room for one more: to ask before minutes of RAM are taken. */
  checkNew(name: string): void;
  /** Takes the pending VM state (VmStateArea) into the new snapshot if vmStateSize > 0. Durable when it resolves. */
  create(snapshot: CreateSnapshot): Promise<SnapshotInfo>;
  /** Throws where `apply` would be refused, whatever the snapshot. */
  checkApply?(): void;
  /** Makes the snapshot's disk the active one (QEMU: goto). */
  apply(id: string): Promise<void>;
  delete(id: string): Promise<void>;
  /** Whether the disk is the snapshot's, and nobody has written to it since it was. On a drained node. */
  isActive(id: string): Promise<boolean>;
  openVmState(id: string): Promise<VmStateSource>;
}

/**
 * RAM state being written for the *next* snapshot. It is private until SnapshotTable.create takes it: a crash before
 * that leaves leaked clusters, never a state that a later snapshot could pick up.
 */
export interface VmStateArea {
  readonly clusterSize: number;
  /** Writes at byte `position` of the pending state. Chunks of whole clusters at cluster-aligned positions cost one host write. */
  save(position: number, data: Uint8Array): Promise<void>;
  load(position: number, into: Uint8Array): Promise<number>;
  /** Drops the pending state and frees its clusters. */
  discard(): Promise<void>;
}

export interface CheckOptions {
  readonly repair?: 'none' | 'leaks' | 'all';
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

export interface CheckResult {
  readonly corruptions: number;
  readonly leaks: number;
  readonly checkErrors: number;
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
  readonly imageEndOffset: number;
  /** One sentence each, at most 1000. */
  readonly messages: readonly string[];
}
