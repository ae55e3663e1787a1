/** New images: header, refcount table and blocks, L1 table; the header is written last, after all else is durable. */
import { alignUp, isPowerOfTwo, setU64, viewOf } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import type { BlockNode } from '../../block/node.js';
import { buildHeader } from './header.js';
import { checkClusterSize, ENTRY_BYTES, l1EntriesFor, makeGeometry, MAX_L1_BYTES, MAX_REFCOUNT_TABLE_BYTES, SECTOR } from './layout.js';
import type { Qcow2CreateOptions } from './options.js';
import { refcountCodec } from './refcount-codec.js';

const DEFAULT_CLUSTER_SIZE = 65536;
const DEFAULT_REFCOUNT_BITS = 16;

interface Plan {
  readonly refcountTableClusters: number;
  readonly blocks: number;
  readonly l1Clusters: number;
}

/** Writes an empty qcow2 image into an empty, growable node. */
export async function createQcow2(file: BlockNode, options: Qcow2CreateOptions): Promise<void> {
  const version = options.version ?? 3;
  const clusterSize = options.clusterSize ?? DEFAULT_CLUSTER_SIZE;
  const clusterBits = checkClusterSize(clusterSize);
  const refcountBits = options.refcountBits ?? DEFAULT_REFCOUNT_BITS;
  checkQcow2Options(options);
  const geometry = makeGeometry(clusterBits, Math.log2(refcountBits));
  const size = alignUp(options.size, SECTOR);
  const l1Entries = l1EntriesFor(geometry, size);
  if (l1Entries * ENTRY_BYTES > MAX_L1_BYTES) {
    throw new BlockError('INVALID_ARGUMENT', `The image size is too large for a cluster size of ${clusterSize} (at most ${(MAX_L1_BYTES / ENTRY_BYTES) * geometry.bytesPerL1} bytes; try using a larger cluster size)`);
  }
  const { refcountTableClusters, blocks, l1Clusters } = plan(clusterSize, geometry.refcountBlockEntries, l1Entries);
  const blocksAt = 1 + refcountTableClusters;
  const l1At = blocksAt + blocks;
  const header = buildHeader({
    version, clusterBits, refcountOrder: Math.log2(refcountBits), size,
    l1: { offset: l1Entries === 0 ? 0 : l1At * clusterSize, entries: l1Entries }, // an empty disk has no table, as with QEMU
    refcountTable: { offset: clusterSize, clusters: refcountTableClusters },
    lazyRefcounts: options.lazyRefcounts ?? false,
    backingFile: options.backingFile ?? null, backingFormat: options.backingFormat ?? null,
  });
  const tables = new Uint8Array((refcountTableClusters + blocks) * clusterSize);
  for (let i = 0; i < blocks; i++) setU64(viewOf(tables), i * ENTRY_BYTES, (blocksAt + i) * clusterSize);
  const codec = refcountCodec(refcountBits);
  const blockArea = viewOf(tables.subarray(refcountTableClusters * clusterSize));
  for (let cluster = 0; cluster < l1At + l1Clusters; cluster++) codec.set(blockArea, cluster, 1);
  await file.write(clusterSize, tables);
  // the file ends with the table, as QEMU's does
  if (l1Entries > 0) await file.writeZeroes(l1At * clusterSize, l1Entries * ENTRY_BYTES);
  await file.flush();
  await file.write(0, header);
  await file.flush();
}

/** Metadata must cover itself: iterate until the numbers hold. */
function plan(clusterSize: number, blockEntries: number, l1Entries: number): Plan {
  const l1Clusters = Math.ceil((l1Entries * ENTRY_BYTES) / clusterSize);
  let refcountTableClusters = 1;
  let blocks = 1;
  for (;;) {
    const clusters = 1 + refcountTableClusters + blocks + l1Clusters;
    const neededBlocks = Math.ceil(clusters / blockEntries);
    const neededTable = Math.ceil((neededBlocks * ENTRY_BYTES) / clusterSize);
    if (neededBlocks <= blocks && neededTable <= refcountTableClusters) break;
    blocks = Math.max(blocks, neededBlocks);
    refcountTableClusters = Math.max(refcountTableClusters, neededTable);
  }
  if (refcountTableClusters * clusterSize > MAX_REFCOUNT_TABLE_BYTES) throw new BlockError('INVALID_ARGUMENT', 'The image size is too large for the refcount table');
  return { refcountTableClusters, blocks, l1Clusters };
}

/** Throws, in QEMU's words, where the options contradict each other. */
function checkQcow2Options(options: Qcow2CreateOptions): void {
  const { version = 3, refcountBits = DEFAULT_REFCOUNT_BITS } = options;
  const refuse = (why: string): never => { throw new BlockError('INVALID_ARGUMENT', why); };
  if (!Number.isSafeInteger(options.size) || options.size < 0) refuse(`Image size must be a non-negative number of bytes, got ${options.size}`);
  if (!isPowerOfTwo(refcountBits) || refcountBits > 64) refuse(`Refcount width must be a power of two and may not exceed 64 bits, got ${refcountBits}`);
  if (version === 2 && refcountBits !== 16) refuse('Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)');
  if (version === 2 && options.lazyRefcounts === true) refuse('Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)');
  if (options.backingFormat !== undefined && options.backingFile === undefined) refuse('A backing format needs a backing file');
  if (options.backingFile !== undefined && (options.preallocation ?? 'off') !== 'off') {
    refuse('Backing file and preallocation can only be used at the same time if extended_l2 is on');
  }
}
