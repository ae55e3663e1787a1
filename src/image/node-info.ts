/** What `query-named-block-nodes`, `query-block` and `query-blockstats` tell of a node, under the names of QAPI. */
import { alignUp } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import type { BlockNode } from '../block/node.js';
import { Permission } from '../block/permissions.js';
import { FileDriver } from '../protocol/file-driver.js';
import { nodeFilename } from './filename.js';
import { backingNames, snapshotInfo } from './info.js';
import type { OptionTree } from './options.js';

type Json = OptionTree[string];
type Members = Record<string, Json>;

/** QAPI's BlockDeviceInfo. `flat` leaves out what lies below. */
export async function blockDeviceInfo(node: BlockNode, flat: boolean): Promise<OptionTree> {
  const chain = flat ? [node] : chainOf(node);
  let image: OptionTree | undefined;
  for (const layer of [...chain].reverse()) {
    const info = await nodeImageInfo(layer);
    image = image === undefined ? info : { ...info, 'backing-image': image };
  }
  const bitmaps = node.bitmaps.info();
  return {
    file: nodeFilename(node),
    'node-name': node.nodeName,
    ro: node.readOnly,
    drv: node.driver.formatName,
    encrypted: false,
    cache: { writeback: true, direct: node.direct, 'no-flush': node.noFlush },
    detect_zeroes: node.detectZeroes,
    ...(node.backing === null ? {} : { backing_file: nodeFilename(node.backing) }),
    backing_file_depth: chain.length - 1,
    bps: 0, bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0,
    write_threshold: 0,
    image: image!,
    ...(bitmaps.length === 0 ? {} : { 'dirty-bitmaps': bitmaps as unknown as OptionTree[] }),
  };
}

/** The node and what it filters or overlays, down to the end. */
function chainOf(top: BlockNode): BlockNode[] {
  const chain: BlockNode[] = [];
  for (let node: BlockNode | null = top; node !== null; node = filteredBelow(node) ?? node.backing) chain.push(node);
  return chain;
}

function filteredBelow(node: BlockNode): BlockNode | null {
  if (node.driver.kind !== 'filter') return null;
  return node.children.find(({ role }) => role === 'filtered')?.node ?? null;
}

/** QAPI's ImageInfo of one node. */
export async function nodeImageInfo(node: BlockNode): Promise<OptionTree> {
  const { driver } = node;
  if (driver.ejected === true) throw new BlockError('CORRUPT', `Block device ${node.nodeName} is ejected`, { node: node.name });
  const format = driver.describe?.();
  const snapshots = snapshotsOf(node);
  const allocated = await allocatedBelow(node);
  const basics = basicInfo(node);
  const filename = nodeFilename(node);
  return {
    filename,
    format: driver.formatName,
    'virtual-size': alignUp(node.length(), SECTOR),
    ...(allocated === null ? {} : { 'actual-size': allocated }),
    ...basics,
    ...(format === undefined ? {} : { 'format-specific': { type: driver.formatName, data: format.specific as Members } }),
    ...(format === undefined ? {} : backingNames(node.name, format.backingFile, format.backingFormat) as unknown as Members),
    ...(snapshots.length === 0 ? {} : { snapshots }),
  };
}

function snapshotsOf(node: BlockNode): OptionTree[] {
  const table = node.driver.snapshots;
  if (table !== undefined) return table.list().map((snapshot) => snapshotInfo(snapshot));
  const below = filteredBelow(node);
  return below === null ? [] : snapshotsOf(below);
}

/** What only drivers with metadata of their own know, and those on top of them that hide nothing. */
function basicInfo(node: BlockNode): Members {
  const { driver } = node;
  const format = driver.describe?.();
  if (format !== undefined) return { 'cluster-size': format.clusterSize, 'dirty-flag': format.dirty };
  if (driver instanceof FileDriver) return { 'dirty-flag': false };
  const below = driver.formatName === 'raw' ? node.children[0]?.node : filteredBelow(node);
  return below === undefined || below === null ? {} : basicInfo(below);
}

/** Null where the driver cannot tell. */
async function allocatedBelow(node: BlockNode): Promise<number | null> {
  const { driver } = node;
  if (driver.allocatedBytes !== undefined) return driver.allocatedBytes();
  if (driver.kind === 'protocol' || driver.formatName === 'blkdebug' || driver.formatName === 'blkverify') return null;
  let sum = 0;
  for (const child of node.children) {
    if (child.role === 'backing') continue;
    const bytes = await allocatedBelow(child.node);
    if (bytes === null) return null;
    sum += bytes;
  }
  return sum;
}

/** Lengths are told in whole sectors. */
const SECTOR = 512;
const COUNTED = ['rd', 'wr', 'flush', 'unmap'] as const;

/** QAPI's BlockStats; of a node alone, so that its counters of users' requests are zero. */
export function blockStats(node: BlockNode): OptionTree {
  const stats: Members = { wr_highest_offset: node.writeHighestOffset, account_invalid: false, account_failed: false };
  for (const kind of COUNTED) {
    for (const name of [`${kind}_operations`, `${kind}_total_time_ns`, `failed_${kind}_operations`, `invalid_${kind}_operations`]) stats[name] = 0;
    if (kind !== 'flush') for (const name of [`${kind}_bytes`, `${kind}_merged`]) stats[name] = 0;
  }
  stats['timed_stats'] = [];
  const primary = node.children.find(({ role, edge }) => role !== 'backing' && (role !== 'data' || edge === 'file'));
  return {
    'node-name': node.nodeName,
    stats,
    ...(node.driver instanceof FileDriver ? { 'driver-specific': fileStats(node.driver) } : {}),
    ...(primary === undefined ? {} : { parent: blockStats(primary.node) }),
  };
}

function fileStats({ formatName, discards }: FileDriver): OptionTree {
  return { driver: formatName, 'discard-nb-ok': discards.ok, 'discard-nb-failed': discards.failed, 'discard-bytes-ok': discards.bytes };
}

const PERMISSION_NAMES: readonly (readonly [number, string])[] = [
  [Permission.CONSISTENT_READ, 'consistent-read'], [Permission.WRITE, 'write'], [Permission.WRITE_UNCHANGED, 'write-unchanged'], [Permission.RESIZE, 'resize'],
];

/** QAPI's list of permissions, in the order in which QEMU tells them. */
export function permissionList(mask: number): string[] {
  return PERMISSION_NAMES.filter(([bit]) => (mask & bit) !== 0).map(([, name]) => name).reverse();
}
