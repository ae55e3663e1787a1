/** The header cluster: decode, validate, and the few fields that change while an image is open. */
import { getU64, setU64, viewOf } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import type { BlockChild } from '../../block/child.js';
import { because } from '../../block/request.js';
import {
  MAGIC, MAX_BACKING_NAME_BYTES, MAX_CLUSTER_BITS, MAX_L1_BYTES, MAX_REFCOUNT_TABLE_BYTES, MAX_SNAPSHOTS,
  MIN_CLUSTER_BITS, makeGeometry, SECTOR, type Geometry,
} from './layout.js';

export const INCOMPATIBLE_DIRTY = 1n;
export const INCOMPATIBLE_CORRUPT = 2n;
export const COMPATIBLE_LAZY_REFCOUNTS = 1n;
export const AUTOCLEAR_BITMAPS = 1n;
export const EXTENSION_END = 0;
export const EXTENSION_BACKING_FORMAT = 0xe279_2aca;
const EXTENSION_FEATURE_NAMES = 0x6803_f857;
export const EXTENSION_BITMAPS = 0x2385_2875;
const V2_HEADER_BYTES = 72;
const V3_HEADER_BYTES = 104;
const MAX_HEADER_EXTENSIONS = 4096;

const FEATURE_NAMES: readonly (readonly [bit: bigint, name: string])[] = [
  [4n, 'external data file'], [8n, 'compression type'], [16n, 'extended L2 entries'],
];

export interface HeaderExtension {
  readonly type: number;
  data: Uint8Array;
  /** Of its type field, in the header cluster. */
  readonly offset: number;
}

export interface Header {
  readonly version: 2 | 3;
  readonly geometry: Geometry;
  backingFile: string | null;
  backingFormat: string | null;
  readonly cryptMethod: number;
  readonly compatible: bigint;
  readonly headerLength: number;
  readonly extensions: HeaderExtension[];
  /** Mutable through HeaderStore only. */
  extensionsEnd: number;
  /** Where the backing file name lies in the header cluster. */
  backing: { readonly offset: number; readonly bytes: number } | null;
  size: number;
  l1Entries: number;
  l1Offset: number;
  refcountTableOffset: number;
  refcountTableClusters: number;
  snapshotCount: number;
  snapshotsOffset: number;
  incompatible: bigint;
  autoclear: bigint;
}

/** Byte offsets of the fields. */
export const HEADER_FIELDS = {
  version: 4, backingOffset: 8, backingSize: 16, clusterBits: 20, size: 24, crypt: 32, l1Entries: 36, l1Offset: 40,
  refcountTableOffset: 48, refcountTableClusters: 56, snapshotCount: 60, snapshotsOffset: 64,
  incompatible: 72, compatible: 80, autoclear: 88, refcountOrder: 96, headerLength: 100, compressionType: 104,
} as const;
const F = HEADER_FIELDS;

function invalid(name: string, why: string): BlockError {
  return new BlockError('INVALID_IMAGE', `'${name}' is not a usable qcow2 image: ${why}`, { node: name });
}

export function isQcow2(start: Uint8Array): boolean {
  return start.byteLength >= 8 && viewOf(start).getUint32(0) === MAGIC;
}

function u64(view: DataView, offset: number, name: string, field: string): number {
  const value = getU64(view, offset);
  if (value === undefined) throw invalid(name, `${field} is larger than 2^53-1`);
  return value;
}

/** Decodes and validates the first cluster (or the whole file, where that is shorter). */
export function parseHeader(bytes: Uint8Array, name: string): Header {
  if (bytes.byteLength < V2_HEADER_BYTES || !isQcow2(bytes)) throw invalid(name, 'it does not start with the qcow2 magic');
  const view = viewOf(bytes);
  const version = view.getUint32(F.version);
  if (version !== 2 && version !== 3) throw new BlockError('NOT_SUPPORTED', `'${name}' has qcow2 version ${version}; this engine reads 2 and 3`, { node: name });
  if (version === 3 && bytes.byteLength < V3_HEADER_BYTES) throw invalid(name, 'the file ends inside the header');
  const clusterBits = view.getUint32(F.clusterBits);
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS) throw invalid(name, `cluster_bits is ${clusterBits}, not 9 … 21`);
  const headerLength = version === 2 ? V2_HEADER_BYTES : view.getUint32(F.headerLength);
  if (version === 3 && (headerLength < V3_HEADER_BYTES || headerLength > 2 ** clusterBits || headerLength % 8 !== 0)) {
    throw invalid(name, `header_length is ${headerLength}`);
  }
  const refcountOrder = version === 2 ? 4 : view.getUint32(F.refcountOrder);
  if (refcountOrder > 6) throw invalid(name, `refcount_order is ${refcountOrder}, not 0 … 6`);
  const incompatible = version === 2 ? 0n : view.getBigUint64(F.incompatible);
  const { extensions, end: extensionsEnd } = parseExtensions(bytes.subarray(0, Math.min(bytes.byteLength, 2 ** clusterBits)), headerLength, name);
  refuseUnknownFeatures(incompatible, extensions, name);
  const geometry = makeGeometry(clusterBits, refcountOrder);
  const backingFile = parseBackingName(bytes, view, geometry, name);
  const header: Header = {
    version, geometry, headerLength, extensions, extensionsEnd, incompatible,
    cryptMethod: view.getUint32(F.crypt),
    compatible: version === 2 ? 0n : view.getBigUint64(F.compatible),
    autoclear: version === 2 ? 0n : view.getBigUint64(F.autoclear),
    backingFile,
    backing: backingFile === null ? null : { offset: u64(view, F.backingOffset, name, 'the backing file offset'), bytes: view.getUint32(F.backingSize) },
    backingFormat: parseBackingFormat(extensions),
    size: u64(view, F.size, name, 'the disk size'),
    l1Entries: view.getUint32(F.l1Entries),
    l1Offset: u64(view, F.l1Offset, name, 'the L1 table offset'),
    refcountTableOffset: u64(view, F.refcountTableOffset, name, 'the refcount table offset'),
    refcountTableClusters: view.getUint32(F.refcountTableClusters),
    snapshotCount: view.getUint32(F.snapshotCount),
    snapshotsOffset: u64(view, F.snapshotsOffset, name, 'the snapshot table offset'),
  };
  validate(header, name);
  return header;
}

function refuseUnknownFeatures(incompatible: bigint, extensions: readonly HeaderExtension[], name: string): void {
  const rest = incompatible & ~(INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT);
  if (rest === 0n) return;
  const names: string[] = [];
  for (let bit = 0n; bit < 64n; bit++) {
    if ((rest & (1n << bit)) === 0n) continue;
    const known = FEATURE_NAMES.find(([mask]) => mask === 1n << bit)?.[1];
    names.push(known ?? featureNameFromImage(extensions, Number(bit)) ?? `unknown incompatible feature ${bit}`);
  }
  throw new BlockError('NOT_SUPPORTED', `'${name}' uses qcow2 features that this engine does not have: ${names.join(', ')}`, { node: name });
}

/** The Feature name table extension: type, bit, 46 bytes of name per entry. */
function featureNameFromImage(extensions: readonly HeaderExtension[], bit: number): string | undefined {
  const table = extensions.find((extension) => extension.type === EXTENSION_FEATURE_NAMES)?.data;
  if (table === undefined) return undefined;
  for (let at = 0; at + 48 <= table.byteLength; at += 48) {
    if (table[at] !== 0 || table[at + 1] !== bit) continue;
    const text = Buffer.from(table.subarray(at + 2, at + 48)).toString('latin1').replace(/\0.*$/s, '');
    return text.replaceAll(/[^\x20-\x7e]/g, '?');
  }
  return undefined;
}

function parseExtensions(cluster: Uint8Array, headerLength: number, name: string): { extensions: HeaderExtension[]; end: number } {
  const view = viewOf(cluster);
  const backingOffset = getU64(view, F.backingOffset) ?? 0;
  const end = backingOffset > 0 ? Math.min(backingOffset, cluster.byteLength) : cluster.byteLength;
  const extensions: HeaderExtension[] = [];
  let at = headerLength;
  while (at + 8 <= end && extensions.length < MAX_HEADER_EXTENSIONS) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === EXTENSION_END) break;
    if (length > end - at - 8) throw invalid(name, `header extension 0x${type.toString(16)} of ${length} bytes does not fit in the header`);
    extensions.push({ type, data: cluster.slice(at + 8, at + 8 + length), offset: at });
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return { extensions, end: extensions.length < MAX_HEADER_EXTENSIONS ? at : end };
}

function parseBackingName(bytes: Uint8Array, view: DataView, geometry: Geometry, name: string): string | null {
  const offset = u64(view, F.backingOffset, name, 'the backing file offset');
  if (offset === 0) return null;
  const length = view.getUint32(F.backingSize);
  const limit = Math.min(geometry.clusterSize, bytes.byteLength);
  if (length > MAX_BACKING_NAME_BYTES) throw invalid(name, `the backing file name has ${length} bytes, more than ${MAX_BACKING_NAME_BYTES}`);
  if (offset > limit || length > limit - offset) throw invalid(name, 'the backing file name does not lie in the first cluster');
  return length === 0 ? null : Buffer.from(bytes.subarray(offset, offset + length)).toString('utf8');
}

function parseBackingFormat(extensions: readonly HeaderExtension[]): string | null {
  const data = extensions.find((extension) => extension.type === EXTENSION_BACKING_FORMAT)?.data;
  const text = data === undefined ? '' : Buffer.from(data.subarray(0, 255)).toString('utf8').replace(/\0.*/s, '');
  return text === '' ? null : text;
}

/** Every size is bounded here, before anything is allocated for it. */
function validate(header: Header, name: string): void {
  const { clusterSize, bytesPerL1 } = header.geometry;
  if (header.cryptMethod !== 0) {
    const method = header.cryptMethod === 1 ? 'AES' : header.cryptMethod === 2 ? 'LUKS' : `method ${header.cryptMethod}`;
    throw new BlockError('NOT_SUPPORTED', `'${name}' is encrypted (${method}), which this engine does not have`, { node: name });
  }
  const aligned = (offset: number, what: string): void => {
    if (offset % clusterSize !== 0) throw invalid(name, `${what} (0x${offset.toString(16)}) is not aligned to a cluster`);
  };
  aligned(header.l1Offset, 'the L1 table');
  aligned(header.refcountTableOffset, 'the refcount table');
  aligned(header.snapshotsOffset, 'the snapshot table');
  if (header.l1Entries * 8 > MAX_L1_BYTES) throw invalid(name, `the L1 table has ${header.l1Entries} entries, more than 32 MiB`);
  if (header.l1Entries < Math.ceil(header.size / bytesPerL1)) throw invalid(name, `the L1 table has ${header.l1Entries} entries, too few for a disk of ${header.size} bytes`);
  if (header.l1Entries > 0 && header.l1Offset === 0) throw invalid(name, 'the L1 table lies on the header');
  if (header.refcountTableOffset === 0) throw invalid(name, 'the refcount table lies on the header');
  if (header.refcountTableClusters === 0) throw invalid(name, 'it has no refcount table');
  if (header.refcountTableClusters * clusterSize > MAX_REFCOUNT_TABLE_BYTES) throw invalid(name, `the refcount table has ${header.refcountTableClusters} clusters, more than 8 MiB`);
  if (header.snapshotCount > MAX_SNAPSHOTS) throw invalid(name, `it claims ${header.snapshotCount} snapshots, more than ${MAX_SNAPSHOTS}`);
  if (header.snapshotCount > 0 && header.snapshotsOffset === 0) throw invalid(name, 'the snapshot table lies on the header');
}

/** Fields that a switch of the header changes, all within its first 72 bytes: one sector, so the switch is atomic. */
export interface HeaderSwitch {
  readonly size?: number;
  readonly l1?: { readonly offset: number; readonly entries: number };
  readonly refcountTable?: { readonly offset: number; readonly clusters: number };
  readonly snapshots?: { readonly offset: number; readonly count: number };
}

/** Bytes of the header cluster to be. */
export interface HeaderPatch {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class HeaderStore {
  readonly header: Header;
  readonly #file: BlockChild;
  readonly #sector: Uint8Array;

  constructor(file: BlockChild, header: Header, firstSector: Uint8Array) {
    this.#file = file;
    this.header = header;
    this.#sector = firstSector.slice(0, SECTOR);
  }

  /** Writes the first sector with the new fields and makes it durable; all of them take effect at once. */
  async switch(change: HeaderSwitch): Promise<void> {
    const view = viewOf(this.#sector);
    const { header } = this;
    if (change.size !== undefined) setU64(view, F.size, (header.size = change.size));
    if (change.l1 !== undefined) {
      view.setUint32(F.l1Entries, (header.l1Entries = change.l1.entries));
      setU64(view, F.l1Offset, (header.l1Offset = change.l1.offset));
    }
    if (change.refcountTable !== undefined) {
      setU64(view, F.refcountTableOffset, (header.refcountTableOffset = change.refcountTable.offset));
      view.setUint32(F.refcountTableClusters, (header.refcountTableClusters = change.refcountTable.clusters));
    }
    if (change.snapshots !== undefined) {
      view.setUint32(F.snapshotCount, (header.snapshotCount = change.snapshots.count));
      setU64(view, F.snapshotsOffset, (header.snapshotsOffset = change.snapshots.offset));
    }
    await this.#write();
  }

  async setFeatures(features: { readonly incompatible?: bigint; readonly autoclear?: bigint }): Promise<void> {
    const view = viewOf(this.#sector);
    if (features.incompatible !== undefined) view.setBigUint64(F.incompatible, (this.header.incompatible = features.incompatible));
    if (features.autoclear !== undefined) view.setBigUint64(F.autoclear, (this.header.autoclear = features.autoclear));
    await this.#write();
  }

  /** Learns anew what the header says of the backing file and its extensions, after an edit of them. */
  async reread(): Promise<void> {
    const { header } = this;
    const fresh = parseHeader(await this.readCluster(0, header.geometry.clusterSize), this.name);
    header.backingFile = fresh.backingFile;
    header.backingFormat = fresh.backingFormat;
    header.backing = fresh.backing;
    header.extensions.splice(0, Infinity, ...fresh.extensions);
    header.extensionsEnd = fresh.extensionsEnd;
  }

  get name(): string { return this.#file.name; }

  async readCluster(offset: number, bytes: number): Promise<Uint8Array> {
    const part = new Uint8Array(bytes);
    await this.#file.read(offset, part, 'metadata');
    return part;
  }

  /** What lies beyond the first sector is durable before the first sector changes, at once and with all else that is new in it. */
  async edit(patches: readonly HeaderPatch[]): Promise<void> {
    let first = false;
    let beyond = false;
    for (const { offset, bytes } of patches) {
      const inside = Math.max(0, Math.min(bytes.byteLength, SECTOR - offset));
      if (inside > 0) {
        this.#sector.set(bytes.subarray(0, inside), offset);
        first = true;
      }
      if (inside === bytes.byteLength) continue;
      await because('header', () => this.#file.write(offset + inside, bytes.subarray(inside), 0, 'metadata'));
      beyond = true;
    }
    if (beyond) await this.#file.flush();
    if (first) await this.#write();
  }

  async #write(): Promise<void> {
    await because('header', () => this.#file.write(0, this.#sector, 0, 'metadata'));
    await this.#file.flush();
  }
}

interface NewHeader {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly refcountOrder: number;
  readonly size: number;
  readonly l1: { readonly offset: number; readonly entries: number };
  readonly refcountTable: { readonly offset: number; readonly clusters: number };
  readonly lazyRefcounts: boolean;
  readonly backingFile: string | null;
  readonly backingFormat: string | null;
}

/** The names that tools without a feature can show of it (Feature name table). */
const ALL_FEATURES: readonly (readonly [type: number, bit: number, name: string])[] = [
  [0, 0, 'dirty bit'], [0, 1, 'corrupt bit'], [0, 2, 'external data file'], [0, 3, 'compression type'],
  [0, 4, 'extended L2 entries'], [1, 0, 'lazy refcounts'], [2, 0, 'bitmaps'], [2, 1, 'raw external data'],
];
const NEW_V3_HEADER_BYTES = 112; // with compression_type and its padding, as QEMU writes it

/** The first cluster of a new image. */
export function buildHeader(fields: NewHeader): Uint8Array {
  const cluster = new Uint8Array(2 ** fields.clusterBits);
  const view = viewOf(cluster);
  view.setUint32(0, MAGIC);
  view.setUint32(F.version, fields.version);
  view.setUint32(F.clusterBits, fields.clusterBits);
  setU64(view, F.size, fields.size);
  view.setUint32(F.l1Entries, fields.l1.entries);
  setU64(view, F.l1Offset, fields.l1.offset);
  setU64(view, F.refcountTableOffset, fields.refcountTable.offset);
  view.setUint32(F.refcountTableClusters, fields.refcountTable.clusters);
  if (fields.version === 3) {
    view.setBigUint64(F.compatible, fields.lazyRefcounts ? COMPATIBLE_LAZY_REFCOUNTS : 0n);
    view.setUint32(F.refcountOrder, fields.refcountOrder);
    view.setUint32(F.headerLength, NEW_V3_HEADER_BYTES);
  }
  const end = appendExtensions(cluster, fields);
  if (fields.backingFile !== null) {
    const name = Buffer.from(fields.backingFile, 'utf8');
    if (name.byteLength > MAX_BACKING_NAME_BYTES || end + name.byteLength > cluster.byteLength) {
      throw new BlockError('INVALID_ARGUMENT', `The backing file name has ${name.byteLength} bytes and does not fit in the header cluster`);
    }
    cluster.set(name, end);
    setU64(view, F.backingOffset, end);
    view.setUint32(F.backingSize, name.byteLength);
  }
  return cluster;
}

function appendExtensions(cluster: Uint8Array, fields: NewHeader): number {
  const view = viewOf(cluster);
  let at = fields.version === 2 ? V2_HEADER_BYTES : NEW_V3_HEADER_BYTES;
  const append = (type: number, data: Uint8Array): void => {
    const needed = 8 + Math.ceil(data.byteLength / 8) * 8;
    if (at + needed + 8 > cluster.byteLength) throw new BlockError('INVALID_ARGUMENT', `The header extensions do not fit in a cluster of ${cluster.byteLength} bytes`);
    view.setUint32(at, type);
    view.setUint32(at + 4, data.byteLength);
    cluster.set(data, at + 8);
    at += needed;
  };
  if (fields.backingFormat !== null) append(EXTENSION_BACKING_FORMAT, Buffer.from(fields.backingFormat, 'utf8'));
  const names = Buffer.alloc(ALL_FEATURES.length * 48);
  ALL_FEATURES.forEach(([type, bit, name], index) => {
    names[index * 48] = type;
    names[index * 48 + 1] = bit;
    names.write(name, index * 48 + 2, 'latin1');
  });
  // The table is a courtesy: a 512-byte header cluster has no room for it next to a backing file name
  const room = cluster.byteLength - at - 8 - 8 - MAX_BACKING_NAME_BYTES;
  if (fields.version === 3 && room >= names.byteLength) append(EXTENSION_FEATURE_NAMES, names);
  return at + 8;
}
