/** Fields of a record as blkparse shows them, as bytes. */
import { TWO_32 } from '../../base/bytes.js';
import { Category, type RecordBatch } from '../record.js';

const CATEGORY_BITS = 0x1_0000;

/** `WS`, `FWFS`, …: flush, the direction, then what kind of one. */
function rwbsOf(category: number, hasBytes: boolean): string {
  const letter = (bit: number, text: string): string => ((category & bit) === 0 ? '' : text);
  const direction = letter(Category.DISCARD, 'D') || letter(Category.WRITE, 'W') || (hasBytes ? 'R' : 'N');
  return letter(Category.FLUSH, 'F') + direction + letter(Category.FUA, 'F') + letter(Category.AHEAD, 'A') + letter(Category.SYNC, 'S') + letter(Category.META, 'M');
}

const rwbsCache: (Uint8Array | undefined)[] = [];

export function rwbs(category: number, bytes: number): Uint8Array {
  const key = category % CATEGORY_BITS + (bytes > 0 ? CATEGORY_BITS : 0);
  return rwbsCache[key] ??= Buffer.from(rwbsOf(category, bytes > 0));
}

const headCache: (Uint8Array | undefined)[] = [];

/** As in a line of the default format: three wide, with a space behind. */
export function rwbsColumn(category: number, bytes: number): Uint8Array {
  const key = category % CATEGORY_BITS + (bytes > 0 ? CATEGORY_BITS : 0);
  return headCache[key] ??= Buffer.from(`${rwbsOf(category, bytes > 0).padStart(3)} `);
}

/** A 64-bit number with its upper byte first, at `at` of the payload; what the payload does not hold is 0. */
export function payloadWord(batch: RecordBatch, index: number, at: number, bytes: 4 | 8): number {
  if (at + bytes > batch.pduLength[index]!) return 0;
  const { payloads } = batch;
  let offset = batch.pduOffset[index]! + at;
  let value = 0;
  for (let left: number = bytes; left > 0; left--) value = value * 256 + payloads[offset++]!;
  return value;
}

/** As blkparse takes it: an unsigned int. */
export function payloadInt(batch: RecordBatch, index: number): number {
  return payloadWord(batch, index, 0, 8) % TWO_32;
}

export function payloadOf(batch: RecordBatch, index: number): Uint8Array {
  const offset = batch.pduOffset[index]!;
  return batch.payloads.subarray(offset, offset + batch.pduLength[index]!);
}

/** A SCSI command in hex, cut where all that is left is zeros. */
export function payloadHex(payload: Uint8Array): string {
  const words: string[] = [];
  let end = payload.length;
  while (end > 0 && payload[end - 1] === 0) end--;
  for (let at = 0; at < Math.min(end + 1, payload.length); at++) words.push(payload[at]!.toString(16).padStart(2, '0'));
  return words.join(' ') + (end < payload.length ? ' ..' : '');
}
