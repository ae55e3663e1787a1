/** The images that one snapshot covers, open together: the first holds the RAM state, the others are its further disks. */
import { realpath, stat } from 'node:fs/promises';
import { BlockError, errnoOf } from '../base/errors.js';
import type { SnapshotInfo, SnapshotTable } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { lookUpSnapshot } from '../block/snapshot-lookup.js';
import type { BackingPolicy } from '../image/backing-name.js';
import { fileInName } from '../image/image-name.js';
import { openImage, type OpenImageOptions } from '../image/open.js';
import type { CacheModeName } from '../protocol/cache-mode.js';

export interface SetOptions {
  /** Default: O_DIRECT where the file system has it, since a state is written once and not read soon. */
  readonly cache?: CacheModeName | undefined;
  readonly backing?: BackingPolicy | undefined;
  readonly readOnly?: boolean | undefined;
  readonly forceShare?: boolean | undefined;
  /** Do not open backing files: for looking at snapshots only. */
  readonly noBacking?: boolean | undefined;
}

export interface OpenedImage {
  readonly filename: string;
  readonly node: BlockNode;
  readonly snapshots: SnapshotTable;
}

export class ImageSet {
  readonly images: readonly OpenedImage[];

  private constructor(images: readonly OpenedImage[]) {
    this.images = images;
  }

  /** Opens all of them or none. */
  static async open(filenames: readonly string[], options: SetOptions): Promise<ImageSet> {
    await refuseDuplicates(filenames);
    const images: OpenedImage[] = [];
    try {
      for (const filename of filenames) images.push(await openOne(filename, options));
      return new ImageSet(images);
    } catch (error) {
      for (const { node } of images) await node.close().catch(() => {});
      throw error;
    }
  }

  get primary(): OpenedImage { return this.images[0]!; }

  /** Closes all of them, whatever one of them says; throws the first error. Idempotent. */
  async close(): Promise<void> {
    const results = await Promise.allSettled(this.images.map(({ node }) => node.close()));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }
}

async function refuseDuplicates(filenames: readonly string[]): Promise<void> {
  const seen = new Set<string>();
  for (const filename of filenames) {
    const real = await realpath(await fileInName(filename) ?? filename).catch(() => filename);
    if (seen.has(real)) throw new BlockError('INVALID_ARGUMENT', `'${filename}' is named twice`);
    seen.add(real);
  }
}

async function openOne(filename: string, options: SetOptions): Promise<OpenedImage> {
  const node = await openWithDefaultCache(filename, {
    cache: options.cache, backing: options.backing, readOnly: options.readOnly, forceShare: options.forceShare, discard: 'unmap',
    noBacking: options.noBacking,
  });
  const { snapshots } = node.driver;
  if (snapshots !== undefined) return { filename, node, snapshots };
  await node.close();
  throw new BlockError('NOT_SUPPORTED', `'${filename}' has format ${node.driver.formatName}, which has no internal snapshots; a qcow2 image was expected`);
}

async function openWithDefaultCache(filename: string, options: OpenImageOptions): Promise<BlockNode> {
  if (options.cache !== undefined) return openImage(filename, options);
  try {
    return await openImage(filename, { ...options, cache: 'none' });
  } catch (error) {
    if (!(error instanceof BlockError) || error.code !== 'NOT_SUPPORTED' || errnoOf(error) !== 'EINVAL') throw error;
    return openImage(filename, { ...options, cache: 'writeback' });
  }
}

export function findSnapshot(image: OpenedImage, tag: string): SnapshotInfo {
  const list = image.snapshots.list();
  const found = lookUpSnapshot(list, tag);
  if (found !== undefined) return found;
  const known = list.length === 0 ? 'it has none' : `it has ${list.slice(0, 10).map(({ name }) => `'${name}'`).join(', ')}${list.length > 10 ? ', …' : ''}`;
  throw new BlockError('NOT_FOUND', `'${image.filename}' has no snapshot '${tag}': ${known}`);
}

/** RAM state read from the image it goes into, or written over the image it comes from, would destroy both. */
export async function refuseImageAsState(spec: string, filenames: readonly string[]): Promise<void> {
  const state = await stat(spec).catch(() => null);
  if (state === null || !(state.isFile() || state.isBlockDevice())) return;
  for (const filename of filenames) {
    const image = await stat(await fileInName(filename) ?? filename).catch(() => null);
    const same = image !== null && (state.isBlockDevice() ? image.isBlockDevice() && image.rdev === state.rdev : image.dev === state.dev && image.ino === state.ino);
    if (same) throw new BlockError('INVALID_ARGUMENT', `'${spec}' is the image '${filename}' itself, expected another file for the VM state`);
  }
}
