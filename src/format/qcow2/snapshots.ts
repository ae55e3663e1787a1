/**
 * Internal snapshots. Each verb builds the new tables aside and makes them the image by one write of the header's first
 * sector, which holds the active L1 table, the disk size and the snapshot table together: after a crash the image is
 * old or new. What the switch made unreachable is released afterwards, so the worst a crash leaves is leaked clusters.
 *
 * The active disk gets new copies of L2 tables whenever COPIED flags change, instead of edits in place: flags edited
 * before the switch would be wrong without it, flags edited after it wrong until then.
 */
import { viewOf } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import type { CreateSnapshot, SnapshotInfo, SnapshotTable, VmStateSource } from '../../block/driver.js';
import type { HeaderSwitch } from './header.js';
import { GuestIo } from './guest-io.js';
import { isCorruption, type Qcow2Image } from './image.js';
import { L1Table } from './l1-table.js';
import {
  ClusterKind, clusterKind, ENTRY_BYTES, HIGH_COPIED, hostOffsetOf, isCopied, l1EntriesFor, MAX_L1_BYTES, MAX_SNAPSHOTS, MAX_SNAPSHOT_TABLE_BYTES, ownsCluster,
} from './layout.js';
import { Mapping } from './mapping.js';
import { encodeSnapshotTable, snapshotTableBytes, type SnapshotEntry } from './snapshot-table.js';
import { copyTree, readL2Table, releaseTree, Reservation } from './tree.js';
import type { PendingVmState } from './vmstate-area.js';
import { events } from '../../trace/events.js';

const MAX_NAME_BYTES = 255; // QEMU's QEMUSnapshotInfo holds 255 bytes and a NUL

export class Snapshots implements SnapshotTable {
  readonly #image: Qcow2Image;
  readonly #vmState: PendingVmState | null;
  readonly #hasBitmaps: () => boolean;
  #entries: readonly SnapshotEntry[];

  constructor(image: Qcow2Image, entries: readonly SnapshotEntry[], vmState: PendingVmState | null, hasBitmaps: () => boolean) {
    this.#image = image;
    this.#hasBitmaps = hasBitmaps;
    this.#entries = entries;
    image.overlap.setSnapshots(entries, snapshotTableBytes(entries));
    this.#vmState = vmState;
  }

  list(): readonly SnapshotEntry[] {
    return this.#entries;
  }

  checkNew(name: string): void {
    const refuse = (code: 'INVALID_ARGUMENT' | 'NO_SPACE', why: string): never => {
      throw new BlockError(code, `'${this.#image.name}' ${why}`, { node: this.#image.name });
    };
    const bytes = Buffer.byteLength(name);
    if (bytes === 0 || bytes > MAX_NAME_BYTES || name.includes('\0')) {
      const shown = JSON.stringify(bytes > 64 ? `${name.slice(0, 32)}…` : name);
      refuse('INVALID_ARGUMENT', `takes snapshot names of 1 to ${MAX_NAME_BYTES} bytes without NUL, got ${shown} (${bytes} bytes)`);
    }
    if (this.#entries.length >= MAX_SNAPSHOTS) refuse('NO_SPACE', `has ${MAX_SNAPSHOTS} snapshots, no more fit`);
  }

  async create(snapshot: CreateSnapshot): Promise<SnapshotInfo> {
    const created = await this.#image.exclusive(() => this.#create(snapshot));
    events.log?.emit('qcow2_snapshot_create_finish', this.#image, created.id);
    // A state that this snapshot does not carry must not wait for the next one
    if (snapshot.vmStateSize === 0) await this.#vmState?.discard();
    return created;
  }

  /** Refused, as by QEMU, where bitmaps say what was written to the disk as it is: they would know nothing of the other one. */
  checkApply(): void {
    if (this.#hasBitmaps()) throw new BlockError('BUSY', `'${this.#image.name}': Device has active dirty bitmaps`, { node: this.#image.name });
  }

  async apply(id: string): Promise<void> {
    const entry = this.#find(id);
    this.checkApply();
    await this.#vmState?.discard();
    await this.#image.exclusive(() => this.#apply(entry));
  }

  async delete(id: string): Promise<void> {
    const entry = this.#find(id);
    await this.#image.exclusive(() => this.#delete(entry));
  }

  isActive(id: string): Promise<boolean> {
    const entry = this.#find(id);
    return this.#image.mutex.runExclusive(() => this.#isActive(entry));
  }

  async openVmState(id: string): Promise<VmStateSource> {
    const image = this.#image;
    const entry = this.#find(id);
    const l1 = await L1Table.load(image.file, entry.l1Offset, entry.l1Entries);
    const mapping = new Mapping(image, () => l1, l1EntriesFor(image.geometry, entry.diskSize), false);
    const io = new GuestIo(mapping, null);
    const size = entry.vmStateSize;
    return {
      size,
      verify: () => verifyMapped(mapping, size, entry.name),
      load: async (position, into) => {
        const bytes = Math.max(0, Math.min(into.byteLength, size - position));
        image.file.debugEvent('vmstate_load');
        if (bytes > 0) await io.read(position, into.subarray(0, bytes));
        return bytes;
      },
    };
  }

  #find(id: string): SnapshotEntry {
    const entry = this.#entries.find((candidate) => candidate.id === id);
    if (entry === undefined) throw new BlockError('NOT_FOUND', `'${this.#image.name}' has no snapshot with id ${id}`, { node: this.#image.name });
    return entry;
  }

  async #create(snapshot: CreateSnapshot): Promise<SnapshotEntry> {
    const image = this.#image;
    const { header, geometry } = image;
    this.checkNew(snapshot.name);
    await image.barrier();
    const diskEntries = l1EntriesFor(geometry, header.size);
    const old = { active: image.activeL1 };
    let entry: SnapshotEntry | null = null;
    await this.#replace(async (reservation) => {
      const active = await copyTree(image, old.active, Math.max(1, diskEntries), reservation);
      const l1 = this.#snapshotL1(old.active, diskEntries, snapshot.vmStateSize > 0);
      const l1Offset = await reservation.writeTable(l1);
      const id = nextId(this.#entries);
      entry = {
        ...snapshot, id, l1Offset, l1Entries: l1.byteLength / ENTRY_BYTES, diskSize: header.size,
        vmClockNs: snapshot.vmClockNs ?? 0n, icount: snapshot.icount ?? null, unknownExtra: new Uint8Array(0),
        rawId: Buffer.from(id), rawName: Buffer.from(snapshot.name),
      };
      return { active, entries: [...this.#entries, entry] };
    });
    await this.#releaseAfterSwitch(async () => {
      if (snapshot.vmStateSize > 0) this.#vmState!.take();
      await releaseTree(image, old.active, diskEntries, 'snapshot'); // VM state that QEMU's loadvm left in the active table
      await this.#releaseL1(old.active);
    });
    return entry!;
  }

  /** The old active L2 tables become the snapshot's as they are; its VM state follows above the disk. */
  #snapshotL1(active: L1Table, diskEntries: number, withVmState: boolean): Uint8Array {
    const state = withVmState ? this.#vmState!.l1 : null;
    let stateEntries = state?.entries ?? 0;
    while (stateEntries > 0 && state!.l2Offset(stateEntries - 1) === 0) stateEntries--;
    const bytes = new Uint8Array(Math.max(1, diskEntries + stateEntries) * ENTRY_BYTES);
    const l1 = new L1Table(0, bytes);
    for (let index = 0; index < Math.min(diskEntries, active.entries); index++) l1.set(index, active.l2Offset(index), false);
    for (let index = 0; index < stateEntries; index++) l1.set(diskEntries + index, state!.l2Offset(index), false);
    return bytes;
  }

  async #apply(entry: SnapshotEntry): Promise<void> {
    const image = this.#image;
    await image.barrier();
    const old = image.activeL1;
    const source = await L1Table.load(image.file, entry.l1Offset, entry.l1Entries);
    const diskEntries = Math.max(1, l1EntriesFor(image.geometry, entry.diskSize));
    if (diskEntries * ENTRY_BYTES > MAX_L1_BYTES) throw image.corrupt(`snapshot '${entry.name}' claims a disk of ${entry.diskSize} bytes, too large for an L1 table`);
    await this.#replace(async (reservation) => {
      const active = await copyTree(image, source, diskEntries, reservation);
      return { active, size: entry.diskSize };
    });
    await this.#releaseAfterSwitch(async () => {
      await releaseTree(image, old, 0, 'snapshot');
      await this.#releaseL1(old);
    });
  }

  /** Data that two disks share is never written in place, so whatever was written since shows in the mapping. */
  async #isActive(entry: SnapshotEntry): Promise<boolean> {
    const image = this.#image;
    if (image.header.size !== entry.diskSize) return false;
    if (image.writing) await image.barrier();
    const snapshot = await L1Table.load(image.file, entry.l1Offset, entry.l1Entries);
    const active = image.activeL1;
    const read = (l1: L1Table, index: number): Promise<Uint8Array | null> | null => {
      const offset = index < l1.entries ? l1.l2Offset(index) : 0;
      return offset === 0 ? null : readL2Table(image, offset, index);
    };
    for (let index = 0; index < l1EntriesFor(image.geometry, entry.diskSize); index++) {
      if (index < Math.min(active.entries, snapshot.entries) && active.l2Offset(index) === snapshot.l2Offset(index)) continue;
      if (!mapTheSame(await read(active, index), await read(snapshot, index))) return false;
    }
    return true;
  }

  async #delete(entry: SnapshotEntry): Promise<void> {
    const image = this.#image;
    await image.barrier();
    const old = image.activeL1;
    const deleted = await L1Table.load(image.file, entry.l1Offset, entry.l1Entries);
    const replaced: number[] = [];
    await this.#replace(async (reservation) => {
      const active = await this.#regainOwnership(old, deleted, reservation, replaced);
      return { active, entries: this.#entries.filter((other) => other !== entry) };
    });
    await this.#releaseAfterSwitch(async () => {
      for (const table of replaced) await image.releaseNow([{ cluster: table / image.geometry.clusterSize, count: 1 }], 'snapshot');
      await releaseTree(image, deleted, 0, 'snapshot');
      await this.#releaseL1(deleted);
      if (image.activeL1 !== old) await this.#releaseL1(old);
    });
  }

  /**
   * The active table as it is right once `deleted` is gone: clusters shared with it alone get their COPIED flag back.
   * Returns the table unchanged where no flag changes.
   */
  async #regainOwnership(active: L1Table, deleted: L1Table, reservation: Reservation, replaced: number[]): Promise<L1Table> {
    const image = this.#image;
    let next: L1Table | null = null;
    for (let index = 0; index < Math.min(active.entries, deleted.entries); index++) {
      const activeOffset = active.l2Offset(index);
      const deletedOffset = deleted.l2Offset(index);
      if (activeOffset === 0 || deletedOffset === 0) continue;
      const table = await readL2Table(image, activeOffset, index);
      const other = deletedOffset === activeOffset ? table : await readL2Table(image, deletedOffset, index);
      const changed = await this.#setCopiedWhereShared(table, other);
      if (!changed && deletedOffset !== activeOffset) continue;
      next ??= active.resized(await reservation.allocate(active.entries * ENTRY_BYTES), active.entries);
      next.set(index, await reservation.writeTable(table));
      replaced.push(activeOffset);
    }
    return next ?? active;
  }

  async #setCopiedWhereShared(table: Uint8Array, deleted: Uint8Array): Promise<boolean> {
    const view = viewOf(table);
    const other = viewOf(deleted.slice()); // may be the same table, which is edited below
    let changed = false;
    for (let at = 0; at < table.byteLength; at += ENTRY_BYTES) {
      const high = view.getUint32(at);
      const low = view.getUint32(at + 4);
      if (isCopied(high) || !ownsCluster(clusterKind(high, low))) continue;
      const otherHigh = other.getUint32(at);
      const otherLow = other.getUint32(at + 4);
      const host = hostOffsetOf(high, low);
      if (!ownsCluster(clusterKind(otherHigh, otherLow)) || hostOffsetOf(otherHigh, otherLow) !== host) continue;
      const cluster = this.#image.checkedCluster(host, 'a data cluster');
      if (await this.#image.refcounts.get(cluster) !== 2) continue;
      view.setUint32(at, (high | HIGH_COPIED) >>> 0);
      changed = true;
    }
    return changed;
  }

  /** Builds, makes durable, and switches the header; on failure before the switch nothing has changed. */
  async #replace(build: (reservation: Reservation) => Promise<Replacement>): Promise<void> {
    const image = this.#image;
    const { clusterSize } = image.geometry;
    const reservation = new Reservation(image);
    let next: Replacement;
    let snapshots: { offset: number; count: number } | undefined;
    try {
      next = await build(reservation);
      if (next.entries !== undefined) {
        if (snapshotTableBytes(next.entries) > MAX_SNAPSHOT_TABLE_BYTES) throw new BlockError('NO_SPACE', `the snapshot table of '${image.name}' has reached 64 MiB`, { node: image.name });
        const count = next.entries.length;
        snapshots = count === 0 ? { offset: 0, count } : { offset: await reservation.writeTable(encodeSnapshotTable(next.entries)), count };
      }
      if (next.active !== image.activeL1) await next.active.writeAll(image.file, Math.ceil((next.active.entries * ENTRY_BYTES) / clusterSize) * clusterSize);
      await image.refcounts.persist();
      await image.flushFile();
    } catch (error) {
      await reservation.rollback();
      throw error;
    }
    const change: HeaderSwitch = {
      l1: { offset: next.active.offset, entries: next.active.entries },
      ...(next.size === undefined ? {} : { size: next.size }),
      ...(snapshots === undefined ? {} : { snapshots }),
    };
    const oldTable = { offset: image.header.snapshotsOffset, bytes: snapshotTableBytes(this.#entries) };
    await image.guard(() => image.store.switch(change));
    image.activeL1 = next.active;
    if (next.entries === undefined) return;
    this.#entries = next.entries;
    image.overlap.setSnapshots(next.entries, snapshotTableBytes(next.entries));
    await image.overlap.loadInactive(image.file);
    if (oldTable.offset !== 0) await this.#releaseAfterSwitch(() => this.#releaseRange(oldTable.offset, oldTable.bytes));
  }

  /** The operation is done and durable: a failure here costs leaked clusters, no more. */
  async #releaseAfterSwitch(release: () => Promise<void>): Promise<void> {
    await this.#image.guard(async () => {
      if (this.#image.failure !== null) return;
      await release();
      await this.#image.barrier();
    }, isCorruption).catch(() => {});
  }

  #releaseL1(l1: L1Table): Promise<void> {
    return this.#releaseRange(l1.offset, l1.entries * ENTRY_BYTES);
  }

  async #releaseRange(offset: number, bytes: number): Promise<void> {
    const { clusterSize } = this.#image.geometry;
    if (offset !== 0 && bytes > 0) await this.#image.releaseNow([{ cluster: offset / clusterSize, count: Math.ceil(bytes / clusterSize) }], 'other');
  }
}

/** Every byte of a VM state must be mapped to data inside the file. */
async function verifyMapped(mapping: Mapping, size: number, name: string): Promise<void> {
  const { image } = mapping;
  for (let at = 0; at < size;) {
    const extent = await mapping.find(at, size - at);
    const end = extent.compressed === null ? extent.hostOffset + extent.bytes : extent.compressed.offset;
    if (extent.kind === ClusterKind.UNALLOCATED) throw image.corrupt(`the VM state of snapshot '${name}' has no data at ${at} of ${size} bytes`);
    if (end > image.file.length() + image.geometry.clusterSize) throw image.corrupt(`the VM state of snapshot '${name}' points beyond the end of the file`);
    at += extent.bytes;
  }
}

/** Two L2 tables, but for who owns the clusters; null: none. */
function mapTheSame(a: Uint8Array | null, b: Uint8Array | null): boolean {
  const one = a ?? b;
  if (one === null) return true;
  const [left, right] = [a, b].map((table) => viewOf(table ?? new Uint8Array(one.byteLength))) as [DataView, DataView];
  for (let at = 0; at < one.byteLength; at += ENTRY_BYTES) {
    if ((left.getUint32(at) & ~HIGH_COPIED) !== (right.getUint32(at) & ~HIGH_COPIED) || left.getUint32(at + 4) !== right.getUint32(at + 4)) return false;
  }
  return true;
}

interface Replacement {
  readonly active: L1Table;
  readonly size?: number;
  readonly entries?: readonly SnapshotEntry[];
}

/** QEMU's rule: one more than the largest numeric id. */
function nextId(entries: readonly SnapshotEntry[]): string {
  let largest = 0n;
  for (const { id } of entries) {
    const value = /^\d{1,20}$/.test(id) ? BigInt(id) : 0n;
    if (value > largest) largest = value;
  }
  return String(largest + 1n);
}
