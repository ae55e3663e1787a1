/** The bits of a persistent bitmap: read through its table into memory, and written to new clusters. */
import { MiB } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import type { DirtyBitmap } from '../../block/dirty-bitmap.js';
import { encodeTable, readTable, type DirectoryEntry, type ReadBudget, type TableEntry } from './bitmap-directory.js';
import type { ClusterRun, Qcow2Image } from './image.js';
import { ENTRY_BYTES } from './layout.js';
import type { Reservation } from './tree.js';

/** Clusters that follow each other are read and written together, up to this. */
const STEP_BYTES = MiB;

export async function loadBitmapData(image: Qcow2Image, entry: DirectoryEntry, bitmap: DirtyBitmap, budget: ReadBudget): Promise<void> {
  const { file, geometry } = image;
  const { clusterSize } = geometry;
  const fail = (why: string): BlockError => new BlockError('INVALID_IMAGE', `'${image.name}': Could not read bitmap '${bitmap.name}' from image: ${why}`, { node: image.name });
  if (entry.tableEntries !== clustersOf(bitmap, clusterSize)) throw fail(`its table has ${entry.tableEntries} entries, which does not fit a disk of ${bitmap.size} bytes`);
  const table = await readTable(file, entry, geometry, budget);
  for (let index = 0; index < table.length;) {
    const at = table[index]!;
    const position = index * clusterSize;
    if (typeof at !== 'number') {
      if (at === 'dirty') setAll(bitmap, position, clusterSize);
      index++;
      continue;
    }
    let count = 1;
    while (table[index + count] === at + count * clusterSize && (count + 1) * clusterSize <= STEP_BYTES) count++;
    const bytes = Math.min(count * clusterSize, bitmap.encodedBytes - position);
    if (at + bytes > file.length()) throw fail(`its data at 0x${at.toString(16)} lies beyond the end of the file`);
    budget.take(count * clusterSize);
    const data = new Uint8Array(bytes);
    await file.read(at, data, 'metadata');
    bitmap.decode(position, data);
    index += count;
  }
}

function setAll(bitmap: DirtyBitmap, position: number, bytes: number): void {
  const from = position * 8 * bitmap.granularity;
  bitmap.set(from, Math.min(bytes * 8 * bitmap.granularity, bitmap.size - from));
}

function clustersOf(bitmap: DirtyBitmap, clusterSize: number): number {
  return Math.ceil(bitmap.encodedBytes / clusterSize);
}

/** Writes the bits, where they are not all alike, and their table; durable with the next flush. */
export async function writeBitmapData(
  image: Qcow2Image, bitmap: DirtyBitmap, reservation: Reservation,
): Promise<{ readonly tableOffset: number; readonly tableEntries: number }> {
  const { clusterSize } = image.geometry;
  const entries = clustersOf(bitmap, clusterSize);
  const table: TableEntry[] = [];
  const isMixed = (index: number): boolean => index < entries && uniform(bitmap, index, clusterSize) === 'mixed';
  while (table.length < entries) {
    const index = table.length;
    const kind = uniform(bitmap, index, clusterSize);
    if (kind !== 'mixed') {
      table.push(kind);
      continue;
    }
    let count = 1;
    while ((count + 1) * clusterSize <= STEP_BYTES && isMixed(index + count)) count++;
    const data = new Uint8Array(count * clusterSize);
    bitmap.encode(index * clusterSize, data);
    const at = await reservation.writeTable(data);
    for (let i = 0; i < count; i++) table.push(at + i * clusterSize);
  }
  return { tableOffset: await reservation.writeTable(encodeTable(table)), tableEntries: entries };
}

/** Ones in a last cluster that the bits do not fill are written out: the tail must be zeros. */
function uniform(bitmap: DirtyBitmap, index: number, clusterSize: number): 'clean' | 'dirty' | 'mixed' {
  const kind = bitmap.uniform(index * clusterSize, clusterSize);
  return kind === 'dirty' && (index + 1) * clusterSize * 8 > Math.ceil(bitmap.size / bitmap.granularity) ? 'mixed' : kind;
}

/** The clusters of a bitmap's table and data. */
export function referencedClusters(entry: DirectoryEntry, table: readonly TableEntry[], clusterSize: number): ClusterRun[] {
  const runs: ClusterRun[] = [{ cluster: entry.tableOffset / clusterSize, count: Math.ceil((entry.tableEntries * ENTRY_BYTES) / clusterSize) }];
  for (const at of table) if (typeof at === 'number') runs.push({ cluster: at / clusterSize, count: 1 });
  return runs;
}
