/** How much metadata an open image keeps in memory, by QEMU's options and in its words. */
import { alignUp, isPowerOfTwo, MiB } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import type { Header } from './header.js';
import { DEFAULT_SLICE_BYTES, ENTRY_BYTES, SECTOR } from './layout.js';
import type { Qcow2OpenOptions } from './options.js';

const MAX_L2_BYTES = 32 * MiB;
const MIN_L2_BYTES = MiB;
const MIN_REFCOUNT_CLUSTERS = 4;
const MAX_TABLES = 2 ** 31 - 1;
const MAX_CLEAN_SECONDS = 2 ** 32 - 1;

export interface CacheSizes {
  readonly sliceBytes: number;
  /** In slices. */
  readonly l2: number;
  /** In refcount blocks. */
  readonly refcount: number;
  /** Tables that nobody used for so long are dropped; 0 = never. */
  readonly cleanSeconds: number;
}

/** Throws INVALID_ARGUMENT where the options contradict each other or the image. */
export function readCacheSizes({ geometry, size }: Header, options: Qcow2OpenOptions): CacheSizes {
  const { clusterSize } = geometry;
  const { cacheSize: total, l2CacheSize: l2, refcountCacheSize: refcount, l2CacheEntrySize: entry, cacheCleanInterval = 0 } = options;
  const refuse = (why: string): never => { throw new BlockError('INVALID_ARGUMENT', why); };
  if (total !== undefined) {
    if (l2 !== undefined && refcount !== undefined) refuse('cache-size, l2-cache-size and refcount-cache-size may not be set at the same time');
    if (l2 !== undefined && l2 > total) refuse('l2-cache-size may not exceed cache-size');
    if (refcount !== undefined && refcount > total) refuse('refcount-cache-size may not exceed cache-size');
  }
  if (entry !== undefined && (entry < SECTOR || entry > clusterSize || !isPowerOfTwo(entry))) {
    refuse(`L2 cache entry size must be a power of two between ${SECTOR} and the cluster size (${clusterSize})`);
  }
  const sliceBytes = entry ?? Math.min(clusterSize, DEFAULT_SLICE_BYTES);
  const whole = alignUp(Math.ceil(size / clusterSize) * ENTRY_BYTES, clusterSize);
  const bytes = share(options, whole, MIN_REFCOUNT_CLUSTERS * clusterSize);
  const sizes = { sliceBytes, l2: Math.ceil(bytes.l2 / sliceBytes), refcount: Math.floor(bytes.refcount / clusterSize), cleanSeconds: cacheCleanInterval };
  if (sizes.l2 > MAX_TABLES) refuse('L2 cache size too big');
  if (sizes.refcount > MAX_TABLES) refuse('Refcount cache size too big');
  if (cacheCleanInterval < 0 || cacheCleanInterval > MAX_CLEAN_SECONDS) refuse('Cache clean interval too big');
  return sizes;
}

/** `whole`: L2 tables for all of the disk. Without a size a little more, for the VM state that lies beyond a small disk. */
function share({ cacheSize: total, l2CacheSize, refcountCacheSize }: Qcow2OpenOptions, whole: number, leastRefcount: number): { l2: number; refcount: number } {
  const l2 = Math.min(whole, l2CacheSize ?? MAX_L2_BYTES);
  if (total === undefined) {
    return { l2: l2CacheSize === undefined ? Math.max(l2, MIN_L2_BYTES) : l2, refcount: refcountCacheSize ?? leastRefcount };
  }
  if (l2CacheSize !== undefined) return { l2, refcount: total - l2 };
  if (refcountCacheSize !== undefined) return { l2: total - refcountCacheSize, refcount: refcountCacheSize };
  const refcount = total >= whole + leastRefcount ? total - whole : Math.min(total, leastRefcount);
  return { l2: total - refcount, refcount };
}
