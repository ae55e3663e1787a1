/** Flags and extents of NBD exports in words. */
import { BASE_ALLOCATION, type NbdExtent } from '../src/index.js';

/** By bit of the transmission flags; the first only says that there are some. */
const FLAGS = [null, 'read-only', 'flush', 'fua', 'rotational', 'trim', 'zeroes', 'df', 'multi-conn', 'resize', 'cache', 'fast-zero'] as const;

export function transmissionFlags(flags: number): string[] {
  return FLAGS.filter((name, bit) => name !== null && Math.floor(flags / 2 ** bit) % 2 === 1) as string[];
}

export interface MapEntry {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
  readonly description: string;
}

/** Neighbours of one type become one; what a server tells past the end is cut off. */
export function joinExtents(extents: readonly NbdExtent[], size: number, context: string): MapEntry[] {
  const entries: MapEntry[] = [];
  let offset = 0;
  for (const { bytes, flags } of extents) {
    const length = Math.min(bytes, size - offset);
    const last = entries.at(-1);
    if (last?.type === flags) entries[entries.length - 1] = { ...last, length: last.length + length };
    else if (length > 0) entries.push({ offset, length, type: flags, description: extentType(context, flags) });
    offset += length;
  }
  return entries;
}

const ALLOCATION = ['data', 'hole', 'zero', 'hole,zero'] as const;
const DEPTHS = ['absent', 'local'] as const;

/** What a number says in the contexts that are known; empty in others. */
function extentType(context: string, flags: number): string {
  if (context === BASE_ALLOCATION) return ALLOCATION[flags] ?? '';
  if (context.startsWith('qemu:dirty-bitmap:')) return flags % 2 === 1 ? 'dirty' : 'clean';
  if (context === 'qemu:allocation-depth') return DEPTHS[flags] ?? `backing depth ${flags}`;
  return '';
}
