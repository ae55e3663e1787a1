/**
 * Other sizes of the disk. Growing makes room first and names the new size last; shrinking builds the tables of the
 * smaller disk aside and switches to them and to the new size by one header write, so after a crash the disk is the old
 * one or the new one, whole. All of it on a drained image.
 */
import { GiB } from '../../base/bytes.js';
import { BlockError, errnoText } from '../../base/errors.js';
import { Corruption } from './corruption.js';
import type { Qcow2Image } from './image.js';
import type { L1Table } from './l1-table.js';
import { ENTRY_BYTES, l1EntriesFor, MAX_L1_BYTES } from './layout.js';
import { readL2Table, referencedRuns, releaseTree, Reservation } from './tree.js';

/** Makes room in the active L1 table for a disk of `bytes`; entries beyond the present one are empty afterwards. Under the mutex. */
export async function growL1(image: Qcow2Image, bytes: number): Promise<void> {
  const { geometry } = image;
  const entries = l1EntriesFor(geometry, bytes);
  if (entries * ENTRY_BYTES > MAX_L1_BYTES || bytes > 2 ** 53 - GiB) {
    throw new BlockError('NO_SPACE', `'${image.name}' cannot grow to ${bytes} bytes: its L1 table would exceed 32 MiB`, { node: image.name });
  }
  await dropBeyondDisk(image);
  const old = image.activeL1;
  if (entries <= old.entries) return;
  const clusters = Math.ceil((entries * ENTRY_BYTES) / geometry.clusterSize);
  image.file.debugEvent('l1_grow_alloc_table');
  const offset = await image.refcounts.allocate(clusters);
  await image.barrier();
  const grown = old.resized(offset, entries);
  await image.guard(async () => {
    image.file.debugEvent('l1_grow_write_table');
    await grown.writeAll(image.file, clusters * geometry.clusterSize);
    await image.file.flush();
    image.file.debugEvent('l1_grow_activate_table');
    await image.store.switch({ l1: { offset, entries } });
  });
  image.activeL1 = grown;
  if (old.offset !== 0 && old.entries > 0) image.deferFree(old.offset / geometry.clusterSize, Math.ceil((old.entries * ENTRY_BYTES) / geometry.clusterSize));
}

/** VM state that QEMU's loadvm left above the disk would become part of a larger one. */
async function dropBeyondDisk(image: Qcow2Image): Promise<void> {
  const { activeL1 } = image;
  const first = l1EntriesFor(image.geometry, image.header.size);
  const dropped = activeL1.resized(0, activeL1.entries);
  let found = false;
  for (let index = first; index < activeL1.entries; index++) {
    if (activeL1.l2Offset(index) === 0) continue;
    activeL1.set(index, 0);
    found = true;
  }
  if (!found) return;
  await image.barrier();
  await releaseTree(image, dropped, first, 'other');
}

/** An L2 table that the new end cuts through. */
interface CutTable {
  readonly oldOffset: number;
  readonly kept: Uint8Array;
  /** Its entries beyond the end, the others empty. */
  readonly cropped: Uint8Array;
}

/** What is no longer reachable, and is to be given back. */
interface Switched {
  readonly old: L1Table;
  readonly keptEntries: number;
  readonly cut: CutTable | null;
  /** The last place of a new table in the file. */
  readonly lastTable: number;
}

/** Makes the disk `bytes` long, fewer than it has, and gives back what lay beyond. Under the mutex. */
export async function shrinkDisk(image: Qcow2Image, bytes: number): Promise<void> {
  await image.barrier().catch(failing('Failed to flush the L2 table cache'));
  const { clusterSize } = image.geometry;
  const endBefore = await image.refcounts.endOfUse(Math.ceil(image.file.length() / clusterSize)) * clusterSize;
  const done = await switchTables(image, bytes, false);
  // Done and durable: what fails from here on costs leaked clusters, and makes the image read-only
  await image.guard(async () => {
    await releaseCropped(image, done);
    // new tables behind all that is gone would keep the file as long as it was
    if (done.lastTable >= endBefore) await releaseCropped(image, await switchTables(image, bytes, true));
    await image.refcounts.dropUnusedBlocks();
    await cutFile(image);
  }).catch(() => {});
}

/**
 * Switches to a new L1 table, and to a copy of the L2 table that the end of the disk cuts through where it maps anything
 * beyond (or `anew`).
 */
async function switchTables(image: Qcow2Image, bytes: number, anew: boolean): Promise<Switched> {
  const { geometry, activeL1: old } = image;
  const diskEntries = l1EntriesFor(geometry, bytes);
  const entries = Math.max(1, diskEntries);
  const reservation = new Reservation(image);
  let next: L1Table;
  let cut: CutTable | null;
  let cutTo = 0;
  try {
    cut = await cutTable(image, old, bytes, anew);
    next = old.resized(await reservation.allocate(entries * ENTRY_BYTES), entries);
    if (diskEntries === 0) next.set(0, 0);
    if (cut !== null) next.set(diskEntries - 1, cutTo = await reservation.writeTable(cut.kept));
    if (diskEntries < old.entries && !anew) image.file.debugEvent('l1_shrink_write_table');
    await next.writeAll(image.file, Math.ceil((entries * ENTRY_BYTES) / geometry.clusterSize) * geometry.clusterSize);
    await image.refcounts.persist();
    await image.flushFile();
  } catch (error) {
    await reservation.rollback();
    return failing('Failed to reduce the number of L2 tables')(error);
  }
  await image.guard(() => image.store.switch({ size: bytes, l1: { offset: next.offset, entries } })).catch(failing('Failed to update the image size'));
  image.activeL1 = next;
  return { old, keptEntries: diskEntries, cut, lastTable: Math.max(next.offset, cutTo) };
}

/** Errors of the host under QEMU's sentence. What contradicts itself in the image speaks for itself. */
export function failing(what: string): (error: unknown) => never {
  return (error) => {
    if (!(error instanceof BlockError) || error.errno === undefined || error instanceof Corruption) throw error;
    throw new BlockError(error.code, `${what}: ${errnoText(error.errno)}`, { errno: error.errno, node: error.node, cause: error });
  };
}

/** Null where no table is cut through, or none that maps what the disk loses. */
async function cutTable(image: Qcow2Image, l1: L1Table, bytes: number, anew: boolean): Promise<CutTable | null> {
  const { clusterSize, bytesPerL1 } = image.geometry;
  const index = Math.floor(bytes / bytesPerL1);
  const from = Math.ceil((bytes % bytesPerL1) / clusterSize) * ENTRY_BYTES;
  if (from === 0 || index >= l1.entries || l1.l2Offset(index) === 0) return null;
  const kept = await readL2Table(image, l1.l2Offset(index), index);
  const cropped = new Uint8Array(clusterSize);
  cropped.set(kept.subarray(from), from);
  if (!anew && cropped.every((byte) => byte === 0)) return null;
  kept.fill(0, from);
  return { oldOffset: l1.l2Offset(index), kept, cropped };
}

async function releaseCropped(image: Qcow2Image, { old, keptEntries, cut }: Switched): Promise<void> {
  const { clusterSize } = image.geometry;
  if (keptEntries < old.entries) image.file.debugEvent('l1_shrink_free_l2_clusters');
  await releaseTree(image, old, keptEntries, 'always');
  if (cut !== null) {
    await image.releaseNow([...referencedRuns(image, cut.cropped)], 'always');
    await image.releaseNow([{ cluster: cut.oldOffset / clusterSize, count: 1 }], 'always');
  }
  if (old.offset !== 0 && old.entries > 0) {
    await image.releaseNow([{ cluster: old.offset / clusterSize, count: Math.ceil((old.entries * ENTRY_BYTES) / clusterSize) }], 'always');
  }
  await image.barrier(true);
}

/** The file ends with its last cluster in use. Space given back is a courtesy: where the host cannot, nothing is lost. */
async function cutFile(image: Qcow2Image): Promise<void> {
  const { clusterSize } = image.geometry;
  const { node } = image.file;
  const end = await image.refcounts.endOfUse(Math.ceil(node.length() / clusterSize)) * clusterSize;
  if (end === 0 || end >= node.length()) return;
  await node.drained(async () => node.driver.resize?.(end)).catch(() => {});
}

/** The size as it is to be recorded. Throws, in QEMU's words, where the disk cannot have it. */
export function checkNewSize(image: Qcow2Image, bytes: number): void {
  const refuse = (code: 'INVALID_ARGUMENT' | 'NOT_SUPPORTED', why: string): never => { throw new BlockError(code, why, { node: image.name }); };
  if (!Number.isSafeInteger(bytes) || bytes < 0 || bytes % 512 !== 0) refuse('INVALID_ARGUMENT', 'The new size must be a multiple of 512');
  if (image.header.snapshotCount > 0 && image.header.version < 3) refuse('NOT_SUPPORTED', "Can't resize a v2 image which has snapshots");
}
