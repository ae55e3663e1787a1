import type { Preallocation } from '../../block/driver.js';
import type { BlockNode } from '../../block/node.js';
import type { CorruptionSignal } from './corruption.js';
import type { PassDiscard } from './image.js';
import type { OverlapPart } from './overlap.js';

export interface Qcow2OpenOptions {
  readonly readOnly?: boolean | undefined;
  /** Bytes of L2 tables in memory; default as QEMU's: what maps the whole disk, at most 32 MiB. */
  readonly l2CacheSize?: number | undefined;
  /** Bytes of refcount blocks in memory; default 4 clusters, as QEMU's. */
  readonly refcountCacheSize?: number | undefined;
  /** Bytes for both; what neither of them says is shared out. */
  readonly cacheSize?: number | undefined;
  /** Bytes that the L2 cache reads and writes at once: 512 … cluster size; default 64 KiB at most. */
  readonly l2CacheEntrySize?: number | undefined;
  /** Seconds after which cached tables that nobody used are dropped; default 0, never. */
  readonly cacheCleanInterval?: number | undefined;
  /** Which metadata no write may hit; by default all that is known without reading. */
  readonly overlapParts?: ReadonlySet<OverlapPart> | undefined;
  /** Overrides the image's lazy-refcounts feature bit (version 3 only). */
  readonly lazyRefcounts?: boolean | undefined;
  /** `unmap`: freed clusters are punched out of the file. Default `ignore`, as QEMU's. */
  readonly discard?: 'ignore' | 'unmap' | undefined;
  /** Which freed clusters are punched, by why they were freed; default by `discard`, all or none. */
  readonly passDiscard?: PassDiscard | undefined;
  /** Opens the backing file recorded in the image; null = run without (unallocated clusters then read as zeros). */
  readonly openBacking?: ((name: string, format: string | null) => Promise<BlockNode | null>) | undefined;
  /** Opens what is to lie below instead of what the image names, be it nothing. */
  readonly overrideBacking?: (() => Promise<BlockNode | null>) | undefined;
  /** Opens this internal snapshot (id or name) read-only instead of the active disk. */
  readonly snapshot?: string | undefined;
  /** Opens even where the corrupt bit is set and leaves the dirty bit to the caller; for check and repair. */
  readonly forCheck?: boolean | undefined;
  /** Hears of metadata that contradicts itself, when a request comes across it. */
  readonly onCorruption?: ((signal: CorruptionSignal) => void) | undefined;
}

export interface Qcow2CreateOptions {
  /** Virtual disk size in bytes; rounded up to 512. */
  readonly size: number;
  /** Default 3 (compat=1.1). */
  readonly version?: 2 | 3 | undefined;
  /** 512 … 2 MiB, a power of two; default 64 KiB. */
  readonly clusterSize?: number | undefined;
  /** 1 … 64, a power of two; default 16. */
  readonly refcountBits?: number | undefined;
  readonly backingFile?: string | undefined;
  readonly backingFormat?: string | undefined;
  readonly lazyRefcounts?: boolean | undefined;
  /** `metadata`: all clusters mapped (not written); `falloc`: space on the host too; `full`: zeros written. */
  readonly preallocation?: Preallocation | undefined;
}
