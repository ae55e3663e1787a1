/** The snapshot table on disk (qcow2.txt, section Snapshots): decode, validate, encode. Unknown extra data is kept. */
import { alignUp, getU64, setU64, viewOf } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import type { BlockChild } from '../../block/child.js';
import type { SnapshotInfo } from '../../block/driver.js';
import type { Header } from './header.js';
import { MAX_L1_BYTES, MAX_SNAPSHOT_EXTRA_BYTES, MAX_SNAPSHOT_TABLE_BYTES } from './layout.js';

export interface SnapshotEntry extends SnapshotInfo {
  readonly l1Offset: number;
  readonly l1Entries: number;
  /** As on disk: they need not be UTF-8, and survive a rewrite. */
  readonly rawId: Uint8Array;
  readonly rawName: Uint8Array;
  /** Extra data beyond the fields known here (from byte 24 of the extra data on). */
  readonly unknownExtra: Uint8Array;
}

const ENTRY_HEADER_BYTES = 40;
const KNOWN_EXTRA_BYTES = 24; // VM state size, disk size, icount
const NO_ICOUNT = 0xffff_ffff_ffff_ffffn;
const READ_STEP = 64 * 1024;

/** Byte offsets of an entry's fields. */
const F = {
  l1Offset: 0, l1Entries: 8, idBytes: 12, nameBytes: 14, seconds: 16, nanoseconds: 20, vmClock: 24, vmStateSize32: 32,
  extraBytes: 36, vmStateSize: 40, diskSize: 48, icount: 56,
} as const;

function bad(name: string, index: number, why: string): BlockError {
  return new BlockError('INVALID_IMAGE', `'${name}' has a bad snapshot table: entry ${index} ${why}`, { node: name });
}

/** Reads and validates the whole table; the table's length is only known by reading it, so it is read in bounded steps. */
export async function readSnapshotTable(file: BlockChild, header: Header): Promise<SnapshotEntry[]> {
  const reader = new TableReader(file, header.snapshotsOffset);
  const entries: SnapshotEntry[] = [];
  for (let index = 0; index < header.snapshotCount; index++) {
    const fixed = await reader.peek(ENTRY_HEADER_BYTES, index);
    const view = viewOf(fixed);
    const extraBytes = view.getUint32(F.extraBytes);
    if (extraBytes > MAX_SNAPSHOT_EXTRA_BYTES) throw bad(file.name, index, `has ${extraBytes} bytes of extra data, more than ${MAX_SNAPSHOT_EXTRA_BYTES}`);
    const length = ENTRY_HEADER_BYTES + extraBytes + view.getUint16(F.idBytes) + view.getUint16(F.nameBytes);
    const bytes = await reader.peek(length, index);
    entries.push(decodeEntry(bytes, header, file.name, index));
    reader.advance(alignUp(length, 8));
  }
  return entries;
}

/** Where the table ends, relative to its start. */
export function snapshotTableBytes(entries: readonly SnapshotEntry[]): number {
  return entries.reduce((sum, entry) => sum + encodedBytes(entry), 0);
}

class TableReader {
  readonly #file: BlockChild;
  readonly #start: number;
  #position = 0;
  #window = new Uint8Array(0);
  #windowAt = 0;

  constructor(file: BlockChild, start: number) {
    this.#file = file;
    this.#start = start;
  }

  async peek(bytes: number, index: number): Promise<Uint8Array> {
    if (this.#position + bytes > MAX_SNAPSHOT_TABLE_BYTES) throw bad(this.#file.name, index, 'lies beyond the 64 MiB a table may have');
    const end = this.#start + this.#position + bytes;
    if (end > this.#file.length()) throw bad(this.#file.name, index, 'lies beyond the end of the file');
    if (this.#position + bytes > this.#windowAt + this.#window.byteLength) {
      const wanted = Math.min(Math.max(bytes, READ_STEP), this.#file.length() - this.#start - this.#position);
      this.#window = new Uint8Array(wanted);
      this.#windowAt = this.#position;
      await this.#file.read(this.#start + this.#position, this.#window, 'metadata');
    }
    const at = this.#position - this.#windowAt;
    return this.#window.subarray(at, at + bytes);
  }

  advance(bytes: number): void {
    this.#position += bytes;
  }
}

function decodeEntry(bytes: Uint8Array, header: Header, name: string, index: number): SnapshotEntry {
  const view = viewOf(bytes);
  const extraBytes = view.getUint32(F.extraBytes);
  const extraEnd = ENTRY_HEADER_BYTES + extraBytes;
  const idEnd = extraEnd + view.getUint16(F.idBytes);
  const u64 = (at: number, field: string): number => {
    const value = getU64(view, at);
    if (value === undefined) throw bad(name, index, `has a ${field} larger than 2^53-1`);
    return value;
  };
  const has = (at: number): boolean => extraEnd >= at + 8;
  const icount = has(F.icount) ? view.getBigUint64(F.icount) : NO_ICOUNT;
  const entry: SnapshotEntry = {
    l1Offset: u64(F.l1Offset, 'L1 table offset'),
    l1Entries: view.getUint32(F.l1Entries),
    rawId: bytes.slice(extraEnd, idEnd),
    rawName: bytes.slice(idEnd),
    id: Buffer.from(bytes.subarray(extraEnd, idEnd)).toString('utf8'),
    name: Buffer.from(bytes.subarray(idEnd)).toString('utf8'),
    dateSeconds: view.getUint32(F.seconds),
    dateNanoseconds: view.getUint32(F.nanoseconds),
    vmClockNs: view.getBigUint64(F.vmClock),
    vmStateSize: has(F.vmStateSize) ? u64(F.vmStateSize, 'VM state size') : view.getUint32(F.vmStateSize32),
    diskSize: has(F.diskSize) ? u64(F.diskSize, 'disk size') : header.size,
    icount: icount === NO_ICOUNT ? null : icount,
    unknownExtra: extraBytes > KNOWN_EXTRA_BYTES ? bytes.slice(ENTRY_HEADER_BYTES + KNOWN_EXTRA_BYTES, extraEnd) : new Uint8Array(0),
  };
  if (entry.l1Offset % header.geometry.clusterSize !== 0) throw bad(name, index, `has an L1 table at 0x${entry.l1Offset.toString(16)}, not aligned to a cluster`);
  if (entry.l1Entries * 8 > MAX_L1_BYTES) throw bad(name, index, `has an L1 table of ${entry.l1Entries} entries, more than 32 MiB`);
  if (entry.l1Entries > 0 && entry.l1Offset === 0) throw bad(name, index, 'has an L1 table on the header');
  return entry;
}

function encodedBytes(entry: SnapshotEntry): number {
  const strings = entry.rawId.byteLength + entry.rawName.byteLength;
  return alignUp(ENTRY_HEADER_BYTES + KNOWN_EXTRA_BYTES + entry.unknownExtra.byteLength + strings, 8);
}

export function encodeSnapshotTable(entries: readonly SnapshotEntry[]): Uint8Array {
  const bytes = new Uint8Array(snapshotTableBytes(entries));
  let at = 0;
  for (const entry of entries) {
    encodeEntry(viewOf(bytes.subarray(at, at + encodedBytes(entry))), bytes.subarray(at), entry);
    at += encodedBytes(entry);
  }
  return bytes;
}

function encodeEntry(view: DataView, bytes: Uint8Array, entry: SnapshotEntry): void {
  setU64(view, F.l1Offset, entry.l1Offset);
  view.setUint32(F.l1Entries, entry.l1Entries);
  view.setUint16(F.idBytes, entry.rawId.byteLength);
  view.setUint16(F.nameBytes, entry.rawName.byteLength);
  view.setUint32(F.seconds, entry.dateSeconds);
  view.setUint32(F.nanoseconds, entry.dateNanoseconds);
  view.setBigUint64(F.vmClock, entry.vmClockNs);
  // Too large for the old field: zero there, the 64-bit field rules
  view.setUint32(F.vmStateSize32, entry.vmStateSize <= 0xffff_ffff ? entry.vmStateSize : 0);
  view.setUint32(F.extraBytes, KNOWN_EXTRA_BYTES + entry.unknownExtra.byteLength);
  setU64(view, F.vmStateSize, entry.vmStateSize);
  setU64(view, F.diskSize, entry.diskSize);
  view.setBigUint64(F.icount, entry.icount ?? NO_ICOUNT);
  let at = ENTRY_HEADER_BYTES + KNOWN_EXTRA_BYTES;
  for (const part of [entry.unknownExtra, entry.rawId, entry.rawName]) {
    bytes.set(part, at);
    at += part.byteLength;
  }
}
