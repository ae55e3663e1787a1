/** What blkparse can be asked for. */
import { BlockError } from '../../base/errors.js';
import type { Piece } from './format.js';

export interface BlkparseOptions {
  /** Formats by the first letter of an action; the default where there is none. */
  readonly formats: ReadonlyMap<string, readonly Piece[]>;
  /** Bits of `Category`: records that have none of them are not shown. -1 for all. */
  readonly mask: number;
  /** Times since the first event that are shown, ns. */
  readonly from: number;
  readonly to: number;
  /** `-t`. */
  readonly trackIos: boolean;
  /** `-s`, and with all processes of one name as one. */
  readonly perProcess: boolean;
  readonly hashByName: boolean;
  /** `-q`: no summary of devices and CPUs. */
  readonly quiet: boolean;
  /** Whether a dump has messages. */
  readonly dumpMessages: boolean;
  /** Events that are read, and sorted, together. */
  readonly batch: number;
}

/** blkparse's. */
export const DEFAULT_BATCH = 512;

/** The names of categories, as `-a` takes them. */
const MASKS: Readonly<Record<string, number>> = {
  READ: 0x1, WRITE: 0x2, FLUSH: 0x4, SYNC: 0x8, QUEUE: 0x10, REQUEUE: 0x20, ISSUE: 0x40, COMPLETE: 0x80, FS: 0x100, PC: 0x200, NOTIFY: 0x400,
  AHEAD: 0x800, META: 0x1000, DISCARD: 0x2000, DRV_DATA: 0x4000, FUA: 0x8000,
};

/** `read`, `BLK_TC_READ`. */
export function parseActionMask(name: string): number {
  const known = MASKS[name.toUpperCase().replace(/^BLK_TC_/, '')];
  if (known !== undefined) return known;
  throw new BlockError('INVALID_ARGUMENT', `invalid action '${name}': expected one of ${Object.keys(MASKS).map((mask) => mask.toLowerCase()).join(', ')}`);
}

/** Hexadecimal digits, all categories at once. */
export function parseMask(text: string): number {
  const digits = /^\s*(?:0x)?([0-9a-f]{1,8})/i.exec(text)?.[1];
  const mask = digits === undefined ? 0 : parseInt(digits, 16);
  if (mask < 1 || mask > 0xffff) throw new BlockError('INVALID_ARGUMENT', `invalid mask '${text}': expected hexadecimal digits, 1 to ffff`);
  return mask;
}

/** `END` or `START:END` in seconds; told in ns. */
export function parseSpan(text: string): { readonly from: number; readonly to: number } {
  const words = text.split(':');
  const numbers = words.map((word) => (/^\s*[+]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i.test(word) ? Math.trunc(Number(word) * 1e9) : NaN));
  const [from, to] = numbers.length === 1 ? [0, numbers[0]!] : numbers;
  if (numbers.length > 2 || numbers.some((number) => Number.isNaN(number))) {
    throw new BlockError('INVALID_ARGUMENT', `invalid span '${text}': expected END or START:END in seconds`);
  }
  if (to! <= from!) throw new BlockError('INVALID_ARGUMENT', `invalid span '${text}': it ends before it begins`);
  return { from: from!, to: to! };
}
