/**
 * The dirty regions of one job as they lie in its file: one bit each, in sectors that are checked one by one. What cannot
 * be read is dirty. Sector 0 tells whose they are and until when the disk may have been written, sector 1 the same for
 * processes of this boot; the bits follow.
 */
import { crc32 } from 'node:zlib';
import { alignUp, MiB, viewOf } from '../../base/bytes.js';
import { BitArray } from '../../block/bit-array.js';
import { SECTOR_BYTES, type JournalSector } from './files.js';

const MAX_REGIONS = 32_768;
const FIRST_BITS = 2;
const BITS_BYTES = 504;
const BITS = BITS_BYTES * 8;
const CHECKED_BYTES = 508;
/** Within a lease's sector. */
const BOOT_AT = 16;
const STATES_AT = 80;

export interface Geometry {
  /** Bytes of the disk. */
  readonly length: number;
  /** A power of two. */
  readonly regionBytes: number;
  /** 32 random bits that tell the sectors of one job from those of another. */
  readonly nonce: number;
}

/** Until when, by the wall clock in milliseconds, the job may have written to the disk. */
export interface Lease {
  readonly untilMs: number;
  /** The machine's boot in which it was given. */
  readonly boot: string;
  /** Nothing is under way, and this is what the job's files are (`stateOf`), in their order. Absent while something is. */
  readonly states?: readonly string[] | undefined;
}

/** Of so many files a sector can tell the states. */
export const MAX_STATES = 50;

/** Regions coarse enough that marking them costs little. */
export function regionBytesFor(length: number): number {
  let bytes = MiB;
  while (bytes * MAX_REGIONS < length) bytes *= 2;
  return bytes;
}

export function regionCount({ length, regionBytes }: Geometry): number {
  return Math.ceil(length / regionBytes);
}

/** How long the file is. */
export function fileBytes(geometry: Geometry): number {
  return (FIRST_BITS + Math.ceil(regionCount(geometry) / BITS)) * SECTOR_BYTES;
}

/** The sector that holds the region's bit. */
export function sectorOf(region: number): number {
  return FIRST_BITS + Math.floor(region / BITS);
}

export function bitsSector({ nonce }: Geometry, index: number, bits: BitArray): JournalSector {
  const bytes = new Uint8Array(SECTOR_BYTES);
  bits.encode((index - FIRST_BITS) * BITS, bytes.subarray(0, BITS_BYTES));
  viewOf(bytes).setUint32(BITS_BYTES, nonce);
  return sealed(index, bytes);
}

/** `where`: 0 the durable one, 1 that of this boot. */
export function leaseSector({ nonce }: Geometry, where: 0 | 1, { untilMs, boot, states = [] }: Lease): JournalSector {
  const bytes = new Uint8Array(SECTOR_BYTES);
  const view = viewOf(bytes);
  view.setFloat64(0, untilMs);
  view.setUint32(8, nonce);
  view.setUint32(12, states.length);
  new TextEncoder().encodeInto(boot, bytes.subarray(BOOT_AT, STATES_AT));
  bytes.set(Buffer.from(states.join(''), 'hex'), STATES_AT);
  return sealed(where, bytes);
}

export function wholeFile(geometry: Geometry, bits: BitArray, lease: Lease): Uint8Array {
  const file = new Uint8Array(fileBytes(geometry));
  const sectors = [leaseSector(geometry, 0, lease), leaseSector(geometry, 1, lease)];
  for (let index = FIRST_BITS; index * SECTOR_BYTES < file.byteLength; index++) sectors.push(bitsSector(geometry, index, bits));
  for (const { index, bytes } of sectors) file.set(bytes, index * SECTOR_BYTES);
  return file;
}

export interface ReadRegions {
  readonly dirty: BitArray;
  /** Null where it cannot be read: then nothing of the file can be trusted. */
  readonly durable: Lease | null;
  readonly volatile: Lease | null;
}

/** Null where it is no file of this job. */
export function readRegions(geometry: Geometry, file: Uint8Array): ReadRegions | null {
  if (file.byteLength !== fileBytes(geometry)) return null;
  const count = regionCount(geometry);
  const dirty = new BitArray(count);
  for (let index = FIRST_BITS; index * SECTOR_BYTES < file.byteLength; index++) {
    const bytes = file.subarray(index * SECTOR_BYTES, (index + 1) * SECTOR_BYTES);
    const first = (index - FIRST_BITS) * BITS;
    if (isSealed(index, bytes) && viewOf(bytes).getUint32(BITS_BYTES) === geometry.nonce) dirty.decode(first, bytes.subarray(0, alignUp(Math.min(BITS, count - first), 8) / 8));
    else dirty.set(first, Math.min(count, first + BITS));
  }
  return { dirty, durable: readLease(geometry, 0, file), volatile: readLease(geometry, 1, file) };
}

function readLease({ nonce }: Geometry, where: 0 | 1, file: Uint8Array): Lease | null {
  const bytes = file.subarray(where * SECTOR_BYTES, (where + 1) * SECTOR_BYTES);
  const view = viewOf(bytes);
  if (!isSealed(where, bytes) || view.getUint32(8) !== nonce) return null;
  const boot = Buffer.from(bytes.subarray(BOOT_AT, STATES_AT)).toString().replace(/\0.*$/, '');
  const count = view.getUint32(12);
  if (count > MAX_STATES) return null;
  const states = Array.from({ length: count }, (_, index) => Buffer.from(bytes.subarray(STATES_AT + index * 8, STATES_AT + (index + 1) * 8)).toString('hex'));
  return { untilMs: view.getFloat64(0), boot, ...count === 0 ? {} : { states } };
}

function sealed(index: number, bytes: Uint8Array): JournalSector {
  viewOf(bytes).setUint32(CHECKED_BYTES, crc32(bytes.subarray(0, CHECKED_BYTES), index));
  return { index, bytes };
}

function isSealed(index: number, bytes: Uint8Array): boolean {
  return viewOf(bytes).getUint32(CHECKED_BYTES) === crc32(bytes.subarray(0, CHECKED_BYTES), index);
}
