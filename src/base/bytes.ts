/**
 * Numbers and byte ranges. Offsets and lengths are `number`s in bytes up to 2^53-1; no bit operator ever touches one
 * (they truncate to 32 bits), so the helpers here use division.
 */
import { BlockError } from './errors.js';

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;
export const TWO_32 = 0x1_0000_0000;
export const MAX_OFFSET = Number.MAX_SAFE_INTEGER;

export function alignDown(value: number, alignment: number): number {
  return value - (value % alignment);
}

export function alignUp(value: number, alignment: number): number {
  const rest = value % alignment;
  return rest === 0 ? value : value + (alignment - rest);
}

export function divCeil(value: number, divisor: number): number {
  return Math.ceil(value / divisor);
}

export function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && Number.isInteger(Math.log2(value));
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A big-endian u64 as a number, or undefined where it exceeds 2^53-1 (the caller names the field in its error). */
export function getU64(view: DataView, offset: number): number | undefined {
  const high = view.getUint32(offset);
  return high > 0x1f_ffff ? undefined : high * TWO_32 + view.getUint32(offset + 4);
}

export function setU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, Math.floor(value / TWO_32));
  view.setUint32(offset + 4, value % TWO_32);
}

const SUFFIXES: Readonly<Record<string, number>> = {
  '': 1, B: 1, K: KiB, M: MiB, G: GiB, T: TiB, P: 1024 * TiB, E: 1024 * 1024 * TiB,
};

/** Parses `10G`, `1.5M`, `4096`, `0x1000` as qemu-img does: binary multiples, suffix in either case. */
export function parseSize(text: string, what: string): number {
  const fail = (why: string): never => {
    throw new BlockError('INVALID_ARGUMENT', `${what}: ${why}, got '${text}' (use a size like 512, 64K, 1.5M or 10G)`);
  };
  if (/^0x[0-9a-f]+$/i.test(text)) {
    const value = Number(text);
    return Number.isSafeInteger(value) ? value : fail('size is too large');
  }
  const match = /^(\d+(?:\.\d+)?)([bkmgtpe]?)$/i.exec(text);
  if (match === null) return fail('expected a size');
  const value = Math.floor(Number(match[1]) * SUFFIXES[match[2]!.toUpperCase()]!);
  return Number.isSafeInteger(value) ? value : fail('size is too large');
}

/** `1.5 GiB` in the words of qemu-img. */
export function formatSize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  const text = value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
  return `${text} ${units[unit]}`;
}

/** `[0x1000, 0x2000)`: how every message names a byte range. */
export function formatRange(offset: number, bytes: number): string {
  return `[0x${offset.toString(16)}, 0x${(offset + bytes).toString(16)})`;
}

const ZEROS = Buffer.alloc(65536);

/** True where every byte is zero. */
export function isZero(bytes: Uint8Array): boolean {
  if (bytes.byteLength === 0 || bytes[0] !== 0 || bytes[bytes.byteLength - 1] !== 0) return bytes.byteLength === 0;
  for (let at = 0; at < bytes.byteLength; at += ZEROS.byteLength) {
    const end = Math.min(at + ZEROS.byteLength, bytes.byteLength);
    if (ZEROS.compare(bytes, at, end, 0, end - at) !== 0) return false;
  }
  return true;
}

const TAIL_STEP = 4096;

/** How many bytes come before the zeros that the last ones are; up to 4095 of those zeros may be counted in. */
export function beforeZeros(view: ArrayBufferView): number {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  let end = bytes.byteLength;
  while (end > 0 && isZero(bytes.subarray(Math.max(0, end - TAIL_STEP), end))) end = Math.max(0, end - TAIL_STEP);
  return end;
}
