/**
 * Whole mapping trees (an L1 table with its L2 tables and clusters), for snapshot operations: they are built aside,
 * made reachable by one atomic header write, and what became unreachable is released afterwards. All under the mutex,
 * on a drained image.
 */
import { alignUp, viewOf } from '../../base/bytes.js';
import type { FreeCause, Qcow2Image } from './image.js';
import { L1Table } from './l1-table.js';
import { clusterKind, ENTRY_BYTES, HIGH_COPIED, ownsCluster } from './layout.js';

const TABLE_BATCH_RUNS = 1024;

export async function readL2Table(image: Qcow2Image, offset: number, l1Index: number): Promise<Uint8Array> {
  image.checkedCluster(offset, `the L2 table of L1 entry ${l1Index}`);
  const bytes = new Uint8Array(image.geometry.clusterSize);
  await image.file.read(offset, bytes, 'metadata');
  return bytes;
}

/** The host clusters that an L2 table references, joined to runs. */
export function* referencedRuns(image: Qcow2Image, table: Uint8Array): Generator<{ cluster: number; count: number }> {
  const view = viewOf(table);
  let run: { cluster: number; count: number } | null = null;
  for (let at = 0; at < table.byteLength; at += ENTRY_BYTES) {
    for (const { cluster, count } of image.clustersOf(view.getUint32(at), view.getUint32(at + 4))) {
      if (run !== null && run.cluster + run.count === cluster) {
        run.count += count;
        continue;
      }
      if (run !== null) yield run;
      run = { cluster, count };
    }
  }
  if (run !== null) yield run;
}

/** Clears the COPIED flag of every standard entry: the clusters have a second owner now. */
function clearCopied(table: Uint8Array): void {
  const view = viewOf(table);
  for (let at = 0; at < table.byteLength; at += ENTRY_BYTES) {
    const high = view.getUint32(at);
    if (ownsCluster(clusterKind(high, view.getUint32(at + 4)))) view.setUint32(at, (high & ~HIGH_COPIED) >>> 0);
  }
}

/** Clusters and references taken for a tree that is not reachable yet; `rollback` gives all of them back. */
export class Reservation {
  readonly #image: Qcow2Image;
  readonly #allocated: { cluster: number; count: number }[] = [];
  readonly #raised: { offset: number; l1Index: number }[] = [];

  constructor(image: Qcow2Image) {
    this.#image = image;
  }

  /** Host offset of contiguous new clusters that hold `bytes`. */
  async allocate(bytes: number): Promise<number> {
    const { clusterSize } = this.#image.geometry;
    const count = Math.max(1, alignUp(bytes, clusterSize) / clusterSize);
    const offset = await this.#image.refcounts.allocate(count);
    this.#allocated.push({ cluster: offset / clusterSize, count });
    return offset;
  }

  /** Writes a new table of whole clusters; returns its host offset. */
  async writeTable(table: Uint8Array): Promise<number> {
    const { clusterSize } = this.#image.geometry;
    const offset = await this.allocate(table.byteLength);
    const padded = new Uint8Array(Math.max(clusterSize, alignUp(table.byteLength, clusterSize)));
    padded.set(table);
    this.#image.l2.invalidate(offset, padded.byteLength);
    await this.#image.file.write(offset, padded, 0, 'metadata');
    return offset;
  }

  /** One more reference to everything that an L2 table references. All or nothing. */
  async raise(table: Uint8Array, offset: number, l1Index: number): Promise<void> {
    await adjustTable(this.#image, table, 1);
    this.#raised.push({ offset, l1Index });
  }

  async rollback(): Promise<void> {
    if (this.#image.failure !== null) return; // nothing may be written any more; what was taken leaks
    for (const { offset, l1Index } of this.#raised) {
      await adjustTable(this.#image, await readL2Table(this.#image, offset, l1Index), -1);
    }
    for (const { cluster, count } of this.#allocated) await this.#image.refcounts.adjust(cluster, count, -1);
  }
}

async function adjustTable(image: Qcow2Image, table: Uint8Array, delta: number): Promise<void> {
  const done: { cluster: number; count: number }[] = [];
  try {
    for (const run of referencedRuns(image, table)) {
      await image.refcounts.adjust(run.cluster, run.count, delta);
      done.push(run);
    }
  } catch (error) {
    for (const { cluster, count } of done) await image.refcounts.adjust(cluster, count, -delta);
    throw error;
  }
}

/**
 * A new L1 table over copies of `source`'s L2 tables, whose clusters thereby get one more reference. Entries from
 * `entries` on are left out. Nothing of `source` is changed, so it stays valid until the header switch.
 */
export async function copyTree(image: Qcow2Image, source: L1Table, entries: number, reservation: Reservation): Promise<L1Table> {
  const offset = await reservation.allocate(entries * ENTRY_BYTES);
  const copy = new L1Table(offset, new Uint8Array(entries * ENTRY_BYTES));
  for (let index = 0; index < Math.min(entries, source.entries); index++) {
    const tableOffset = source.l2Offset(index);
    if (tableOffset === 0) continue;
    const table = await readL2Table(image, tableOffset, index);
    await reservation.raise(table, tableOffset, index);
    clearCopied(table);
    copy.set(index, await reservation.writeTable(table));
  }
  return copy;
}

/** Drops the references that L1 entries `from`… make: their clusters, then their L2 tables. Nothing on disk reaches them. */
export async function releaseTree(image: Qcow2Image, l1: L1Table, from: number, cause: FreeCause): Promise<void> {
  for (let index = from; index < l1.entries; index++) {
    const tableOffset = l1.l2Offset(index);
    if (tableOffset === 0) continue;
    const table = await readL2Table(image, tableOffset, index);
    let batch: { cluster: number; count: number }[] = [];
    for (const run of referencedRuns(image, table)) {
      batch.push(run);
      if (batch.length < TABLE_BATCH_RUNS) continue;
      await image.releaseNow(batch, cause);
      batch = [];
    }
    await image.releaseNow([...batch, { cluster: tableOffset / image.geometry.clusterSize, count: 1 }], cause);
  }
}
