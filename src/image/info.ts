/** What `image info` tells, under the names of QEMU's ImageInfo (qapi/block-core.json). */
import type { InfoValue, SnapshotInfo } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { resolveBackingName } from './backing-name.js';
import { nodeFilename } from './filename.js';

const NS_PER_SECOND = 1_000_000_000n;

export interface ImageInfo {
  readonly filename: string;
  readonly format: string;
  readonly 'virtual-size': number;
  readonly 'actual-size'?: number;
  readonly 'dirty-flag': boolean;
  readonly 'cluster-size'?: number;
  readonly 'backing-filename'?: string;
  readonly 'full-backing-filename'?: string;
  readonly 'backing-filename-format'?: string;
  readonly snapshots?: readonly Readonly<Record<string, string | number | bigint>>[];
  readonly 'format-specific'?: { readonly type: string; readonly data: Readonly<Record<string, InfoValue>> };
}

export async function imageInfo(node: BlockNode, filename: string): Promise<ImageInfo> {
  const { driver } = node;
  const file = node.children[0]?.node.driver ?? driver;
  const format = driver.describe?.();
  const snapshots = driver.snapshots?.list() ?? [];
  const allocated = await file.allocatedBytes?.();
  return {
    filename: node.origin === null ? filename : nodeFilename(node),
    format: driver.formatName,
    'virtual-size': node.length(),
    ...(allocated === undefined ? {} : { 'actual-size': allocated }),
    'dirty-flag': format?.dirty ?? false,
    ...(format === undefined ? {} : { 'cluster-size': format.clusterSize, 'format-specific': { type: driver.formatName, data: format.specific } }),
    ...backingNames(filename, format?.backingFile ?? null, format?.backingFormat ?? null),
    ...(snapshots.length === 0 ? {} : { snapshots: snapshots.map(snapshotInfo) }),
  };
}

export function backingNames(filename: string, backing: string | null, format: string | null): Partial<ImageInfo> {
  if (backing === null) return {};
  const full = /^[a-z0-9+]+:/i.test(backing) ? backing : resolveBackingName(filename, backing, 'allow');
  return { 'backing-filename': backing, 'full-backing-filename': full, ...(format === null ? {} : { 'backing-filename-format': format }) };
}

/** QEMU's SnapshotInfo. */
export function snapshotInfo(snapshot: SnapshotInfo): Readonly<Record<string, string | number | bigint>> {
  return {
    id: snapshot.id,
    name: snapshot.name,
    'vm-state-size': snapshot.vmStateSize,
    'date-sec': snapshot.dateSeconds,
    'date-nsec': snapshot.dateNanoseconds,
    'vm-clock-sec': snapshot.vmClockNs / NS_PER_SECOND,
    'vm-clock-nsec': snapshot.vmClockNs % NS_PER_SECOND,
    ...(snapshot.icount === null ? {} : { icount: snapshot.icount }),
  };
}
