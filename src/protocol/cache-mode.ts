import { BlockError } from '../base/errors.js';

/** QEMU's cache modes, as the three independent switches they stand for. */
interface CacheMode {
  /** O_DIRECT: bypass the host's page cache. */
  readonly direct: boolean;
  /** A write completes only once it is on stable storage. */
  readonly writethrough: boolean;
  /** Ignore flushes: fast, and a host crash loses the image. */
  readonly noFlush: boolean;
}

export type CacheModeName = 'writeback' | 'none' | 'writethrough' | 'directsync' | 'unsafe';

export const CACHE_MODES: Readonly<Record<CacheModeName, CacheMode>> = {
  writeback: { direct: false, writethrough: false, noFlush: false },
  none: { direct: true, writethrough: false, noFlush: false },
  writethrough: { direct: false, writethrough: true, noFlush: false },
  directsync: { direct: true, writethrough: true, noFlush: false },
  unsafe: { direct: false, writethrough: false, noFlush: true },
};

export function parseCacheMode(text: string): CacheMode {
  if (Object.hasOwn(CACHE_MODES, text)) return CACHE_MODES[text as CacheModeName];
  throw new BlockError('INVALID_ARGUMENT', `Invalid cache mode '${text}': expected one of ${Object.keys(CACHE_MODES).join(', ')}`);
}
