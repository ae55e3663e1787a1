import { Category } from '../trace/record.js';

/** What viewers tell requests apart by. `other` has no data and is no flush: zone commands, packet commands. */
export const OPS = ['read', 'write', 'flush', 'discard', 'other'] as const;
export type Op = (typeof OPS)[number];
export const READ = 0;
export const WRITE = 1;
export const FLUSH = 2;
export const DISCARD = 3;
export const OTHER = 4;

/** Index into OPS. A flush without data may claim to read or write (its issue says `R`); one with data is a write with a flush before. */
export function opOf(category: number, bytes: number): number {
  if ((category & Category.DISCARD) !== 0) return DISCARD;
  if (bytes === 0) return (category & Category.FLUSH) === 0 ? OTHER : FLUSH;
  if ((category & Category.WRITE) !== 0) return WRITE;
  return (category & Category.READ) === 0 ? OTHER : READ;
}

/** The letters blkparse has for it: `FWFS`, `RAM`, `DS`. */
export function letters(category: number, bytes: number): string {
  const has = (bit: number, letter: string): string => ((category & bit) === 0 ? '' : letter);
  const data = (category & Category.DISCARD) === 0 ? has(Category.WRITE, 'W') || (bytes > 0 ? 'R' : 'N') : 'D';
  return has(Category.FLUSH, 'F') + data + has(Category.FUA, 'F') + has(Category.AHEAD, 'A') + has(Category.SYNC, 'S') + has(Category.META, 'M');
}
