/**
 * Persistent bitmaps on disk (qcow2.txt, sections Bitmaps extension and Bitmaps): the header extension, the directory and
 * the bitmap tables. Decode, bound, encode; entries that this engine does not understand are kept byte by byte.
 */
import { alignUp, getU64, MiB, setU64, viewOf } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import type { BlockChild } from '../../block/child.js';
import { AUTOCLEAR_BITMAPS, EXTENSION_BITMAPS, type Header } from './header.js';
import { ENTRY_BYTES, hostOffsetOf, type Geometry } from './layout.js';

export const MAX_BITMAPS = 65535;
export const MAX_BITMAP_DIRECTORY_BYTES = 1024 * MAX_BITMAPS;
export const MAX_BITMAP_NAME_BYTES = 1023;
/** Of the bits of one bitmap. */
export const MAX_BITMAP_BYTES = 512 * MiB;
export const BITMAP_EXTENSION_BYTES = 24;
export const FLAG_IN_USE = 1;
export const FLAG_AUTO = 2;
const FLAG_EXTRA_COMPATIBLE = 4;
const KNOWN_FLAGS = FLAG_IN_USE + FLAG_AUTO + FLAG_EXTRA_COMPATIBLE;
const DIRTY_TRACKING = 1;
const MIN_GRANULARITY_BITS = 9;
const MAX_GRANULARITY_BITS = 31;
const ENTRY_HEADER_BYTES = 24;

/** Byte offsets of an entry's fields. */
const F = { tableOffset: 0, tableEntries: 8, flags: 12, type: 16, granularityBits: 17, nameBytes: 18, extraBytes: 20 } as const;

export interface BitmapExtension {
  readonly count: number;
  readonly directoryBytes: number;
  readonly directoryOffset: number;
}

export interface DirectoryEntry {
  readonly tableOffset: number;
  readonly tableEntries: number;
  readonly flags: number;
  readonly type: number;
  readonly granularityBits: number;
  readonly name: string;
  readonly rawName: Uint8Array;
  readonly extra: Uint8Array;
}

function invalid(name: string, why: string): BlockError {
  return new BlockError('INVALID_IMAGE', `'${name}' has bitmaps that cannot be used: ${why}`, { node: name, errno: 'EINVAL' });
}

/** The extension, where the autoclear bit vouches for it: whoever wrote to the image last knew of its bitmaps. */
export function trustedExtension(header: Header, name: string): BitmapExtension | null {
  const data = header.extensions.find(({ type }) => type === EXTENSION_BITMAPS)?.data;
  if (data === undefined || header.version < 3 || (header.autoclear & AUTOCLEAR_BITMAPS) === 0n) return null;
  if (data.byteLength !== BITMAP_EXTENSION_BYTES) throw invalid(name, `the header extension has ${data.byteLength} bytes`);
  const view = viewOf(data);
  const count = view.getUint32(0);
  const directoryBytes = getU64(view, 8);
  const directoryOffset = getU64(view, 16);
  if (view.getUint32(4) !== 0) throw invalid(name, 'a reserved field of the header extension is not zero');
  if (count === 0) throw invalid(name, 'the header extension counts no bitmaps');
  if (count > MAX_BITMAPS) throw invalid(name, `the header extension counts ${count} bitmaps, more than ${MAX_BITMAPS}`);
  if (directoryBytes === undefined || directoryBytes === 0 || directoryBytes > MAX_BITMAP_DIRECTORY_BYTES) {
    throw invalid(name, `the directory has ${directoryBytes ?? 'far too many'} bytes, not 1 to ${MAX_BITMAP_DIRECTORY_BYTES}`);
  }
  if (directoryOffset === undefined || directoryOffset === 0 || directoryOffset % header.geometry.clusterSize !== 0) {
    throw invalid(name, 'the directory does not lie at a cluster');
  }
  return { count, directoryBytes, directoryOffset };
}

export function encodeExtension({ count, directoryBytes, directoryOffset }: BitmapExtension): Uint8Array {
  const data = new Uint8Array(BITMAP_EXTENSION_BYTES);
  const view = viewOf(data);
  view.setUint32(0, count);
  setU64(view, 8, directoryBytes);
  setU64(view, 16, directoryOffset);
  return data;
}

export async function readDirectory(file: BlockChild, extension: BitmapExtension, geometry: Geometry): Promise<DirectoryEntry[]> {
  const { count, directoryBytes, directoryOffset } = extension;
  if (directoryOffset + directoryBytes > file.length()) throw invalid(file.name, 'the directory lies beyond the end of the file');
  const bytes = new Uint8Array(directoryBytes);
  await file.read(directoryOffset, bytes, 'metadata');
  const entries: DirectoryEntry[] = [];
  const names = new Set<string>();
  for (let at = 0; at < directoryBytes;) {
    if (at + ENTRY_HEADER_BYTES > directoryBytes) throw invalid(file.name, 'the directory ends inside an entry');
    const view = viewOf(bytes.subarray(at));
    const length = alignUp(ENTRY_HEADER_BYTES + view.getUint32(F.extraBytes) + view.getUint16(F.nameBytes), 8);
    if (at + length > directoryBytes) throw invalid(file.name, 'the directory ends inside an entry');
    if (entries.length === count) throw invalid(file.name, `the directory has more than the ${count} entries that the header counts`);
    const entry = decodeEntry(bytes.subarray(at, at + length), file.name, geometry);
    if (names.has(entry.name)) throw invalid(file.name, `there are two of the name '${entry.name}'`);
    names.add(entry.name);
    entries.push(entry);
    at += length;
  }
  if (entries.length !== count) throw invalid(file.name, `the directory has ${entries.length} entries, the header counts ${count}`);
  return entries;
}

function decodeEntry(bytes: Uint8Array, file: string, { clusterSize }: Geometry): DirectoryEntry {
  const view = viewOf(bytes);
  const nameAt = ENTRY_HEADER_BYTES + view.getUint32(F.extraBytes);
  const rawName = bytes.slice(nameAt, nameAt + view.getUint16(F.nameBytes));
  const name = Buffer.from(rawName).toString('utf8');
  const tableOffset = getU64(view, F.tableOffset);
  const tableEntries = view.getUint32(F.tableEntries);
  const fail = (why: string): BlockError => invalid(file, `bitmap '${name.slice(0, 64)}' ${why}`);
  if (rawName.byteLength === 0) throw fail('has no name');
  if (tableOffset === undefined || tableOffset === 0 || tableOffset % clusterSize !== 0) throw fail('has a table that does not lie at a cluster');
  if (tableEntries === 0 || tableEntries * clusterSize > MAX_BITMAP_BYTES) throw fail(`has a table of ${tableEntries} entries`);
  return {
    tableOffset, tableEntries, name, rawName,
    flags: view.getUint32(F.flags), type: view.getUint8(F.type), granularityBits: view.getUint8(F.granularityBits),
    extra: bytes.slice(ENTRY_HEADER_BYTES, nameAt),
  };
}

/** False for what a later version of the format may have put there: kept as it is, and never used. */
export function isUnderstood({ flags, type, granularityBits, rawName, extra }: DirectoryEntry): boolean {
  return type === DIRTY_TRACKING && (flags & ~KNOWN_FLAGS) === 0 && granularityBits >= MIN_GRANULARITY_BITS && granularityBits <= MAX_GRANULARITY_BITS &&
    rawName.byteLength <= MAX_BITMAP_NAME_BYTES && (extra.byteLength === 0 || (flags & FLAG_EXTRA_COMPATIBLE) !== 0);
}

export function newEntry(name: string, granularity: number): DirectoryEntry {
  return {
    tableOffset: 0, tableEntries: 0, flags: 0, type: DIRTY_TRACKING, granularityBits: Math.log2(granularity),
    name, rawName: Buffer.from(name, 'utf8'), extra: new Uint8Array(0),
  };
}

export function entryBytes(nameBytes: number, extraBytes = 0): number {
  return alignUp(ENTRY_HEADER_BYTES + extraBytes + nameBytes, 8);
}

export function encodeDirectory(entries: readonly DirectoryEntry[]): Uint8Array {
  const bytes = new Uint8Array(entries.reduce((sum, { rawName, extra }) => sum + entryBytes(rawName.byteLength, extra.byteLength), 0));
  let at = 0;
  for (const entry of entries) {
    const view = viewOf(bytes.subarray(at));
    setU64(view, F.tableOffset, entry.tableOffset);
    view.setUint32(F.tableEntries, entry.tableEntries);
    view.setUint32(F.flags, entry.flags);
    view.setUint8(F.type, entry.type);
    view.setUint8(F.granularityBits, entry.granularityBits);
    view.setUint16(F.nameBytes, entry.rawName.byteLength);
    view.setUint32(F.extraBytes, entry.extra.byteLength);
    bytes.set(entry.extra, at + ENTRY_HEADER_BYTES);
    bytes.set(entry.rawName, at + ENTRY_HEADER_BYTES + entry.extra.byteLength);
    at += entryBytes(entry.rawName.byteLength, entry.extra.byteLength);
  }
  return bytes;
}

/** Where one cluster of a bitmap's bits is: at a host offset, or nowhere because all of them are equal. */
export type TableEntry = number | 'clean' | 'dirty';

/** Bounds what all tables and data of an image may be together: no cluster belongs to two bitmaps. */
export class ReadBudget {
  #left: number;
  readonly #file: string;

  constructor(file: BlockChild) {
    this.#left = file.length();
    this.#file = file.name;
  }

  take(bytes: number): void {
    this.#left -= bytes;
    if (this.#left < 0) throw invalid(this.#file, 'their tables claim more than the file holds');
  }
}

export async function readTable(file: BlockChild, entry: DirectoryEntry, { clusterSize }: Geometry, budget: ReadBudget): Promise<TableEntry[]> {
  const { tableOffset, tableEntries, name } = entry;
  const bytes = tableEntries * ENTRY_BYTES;
  if (tableOffset + bytes > file.length()) throw invalid(file.name, `the table of bitmap '${name}' lies beyond the end of the file`);
  budget.take(bytes);
  const table = new Uint8Array(bytes);
  await file.read(tableOffset, table, 'metadata');
  const view = viewOf(table);
  return Array.from({ length: tableEntries }, (_, index) => {
    const decoded = decodeTableEntry(view.getUint32(index * ENTRY_BYTES), view.getUint32(index * ENTRY_BYTES + 4), clusterSize);
    if (decoded === null) throw invalid(file.name, `entry ${index} of the table of bitmap '${name}' is not a cluster offset`);
    return decoded;
  });
}

const HIGH_RESERVED = 0xff00_0000;
const LOW_RESERVED = 0x1fe;
const LOW_ALL_ONES = 1;

function decodeTableEntry(high: number, low: number, clusterSize: number): TableEntry | null {
  const host = hostOffsetOf(high, low);
  if ((high & HIGH_RESERVED) !== 0 || (low & LOW_RESERVED) !== 0) return null;
  if (host === 0) return (low & LOW_ALL_ONES) === 0 ? 'clean' : 'dirty';
  return (low & LOW_ALL_ONES) !== 0 || host % clusterSize !== 0 || !Number.isSafeInteger(host) ? null : host;
}

export function encodeTable(table: readonly TableEntry[]): Uint8Array {
  const bytes = new Uint8Array(table.length * ENTRY_BYTES);
  const view = viewOf(bytes);
  table.forEach((entry, index) => setU64(view, index * ENTRY_BYTES, entry === 'clean' ? 0 : entry === 'dirty' ? LOW_ALL_ONES : entry));
  return bytes;
}
