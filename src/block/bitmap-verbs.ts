/**
 * What users do with dirty bitmaps (QMP's block-dirty-bitmap-*), with QEMU's rules and error texts. Each verb checks
 * first, and returns how to undo it, for transactions. A verb that changes a persistent bitmap first takes back, on the
 * disk, the claim that what is stored is right. Verbs of a transaction run while the node is drained.
 */
import { isPowerOfTwo, KiB } from '../base/bytes.js';
import { BlockError, messageOf } from '../base/errors.js';
import { DirtyBitmap, MAX_GRANULARITY, MIN_GRANULARITY, type BitmapState } from './dirty-bitmap.js';
import type { BlockNode } from './node.js';

const MIN_DEFAULT_GRANULARITY = 4 * KiB;
const MAX_DEFAULT_GRANULARITY = 64 * KiB;
const MAX_NAME_BYTES = 1023;

export type Undo = () => Promise<void>;

const NOTHING: Undo = async () => {};

export interface AddBitmapOptions {
  readonly name: string;
  /** Default: the cluster size, between 4 and 64 KiB. */
  readonly granularity?: number | undefined;
  readonly persistent?: boolean | undefined;
  readonly disabled?: boolean | undefined;
}

/** A bitmap of the target's own node by name, or of another node. */
export type BitmapSource = string | { readonly node: BlockNode; readonly name: string };

export function findBitmap(node: BlockNode, name: string): DirtyBitmap {
  const found = node.bitmaps.get(name);
  if (found === undefined) throw new BlockError('NOT_FOUND', `Dirty bitmap '${name}' not found`, { node: node.name });
  return found;
}

export async function addBitmap(node: BlockNode, options: AddBitmapOptions): Promise<Undo> {
  const { name, granularity = defaultGranularity(node), persistent = false, disabled = false } = options;
  const refuse = (why: string): never => { throw new BlockError('INVALID_ARGUMENT', why, { node: node.name }); };
  if (name === '') refuse('Bitmap name cannot be empty');
  if (granularity < MIN_GRANULARITY || granularity > MAX_GRANULARITY || !isPowerOfTwo(granularity)) refuse('Granularity must be power of 2 and at least 512');
  const checkFree = (): void => {
    if (node.bitmaps.get(name) !== undefined) throw new BlockError('EXISTS', `Bitmap already exists: ${name}`, { node: node.name });
  };
  if (persistent) {
    const { bitmapStore } = node.driver;
    if (bitmapStore === undefined) throw new BlockError('NOT_SUPPORTED', `Can't store persistent bitmaps to ${nameOf(node)}: Operation not supported`, { node: node.name });
    checkFree();
    try {
      bitmapStore.checkNew(name, granularity);
      await bitmapStore.beginChanges();
    } catch (error) {
      throw new BlockError(error instanceof BlockError ? error.code : 'IO', `Can't make bitmap '${name}' persistent in '${nameOf(node)}': ${messageOf(error)}`, { node: node.name, cause: error });
    }
  }
  checkFree();
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) refuse(`Bitmap name too long: ${name}`);
  node.bitmaps.add(new DirtyBitmap({ name, granularity, size: node.length(), enabled: !disabled, persistent }));
  return async () => { node.bitmaps.delete(name); };
}

function nameOf(node: BlockNode): string {
  return node.nodeName === '' ? node.name : node.nodeName;
}

/** QEMU's rule. */
/** As QEMU chooses it: the cluster size, within 4 … 64 KiB. */
export function defaultGranularity(node: BlockNode): number {
  const clusterSize = node.driver.describe?.().clusterSize ?? 0;
  if (clusterSize === 0) return MAX_DEFAULT_GRANULARITY;
  return Math.min(Math.max(clusterSize, MIN_DEFAULT_GRANULARITY), MAX_DEFAULT_GRANULARITY);
}

interface PreparedRemoval {
  commit(): void;
  abort(): void;
}

/** Off the disk at once; the bitmap itself goes with the commit, or is stored again at the close after an abort. */
export async function prepareRemoveBitmap(node: BlockNode, name: string): Promise<PreparedRemoval> {
  const bitmap = findBitmap(node, name);
  bitmap.check('busy', 'readOnly');
  bitmap.busy = true;
  try {
    if (bitmap.persistent) await node.driver.bitmapStore?.remove(name);
  } finally {
    bitmap.busy = false;
  }
  bitmap.busy = true;
  return {
    commit: () => {
      bitmap.busy = false;
      node.bitmaps.delete(name);
    },
    abort: () => { bitmap.busy = false; },
  };
}

export async function removeBitmap(node: BlockNode, name: string): Promise<void> {
  const removal = await prepareRemoveBitmap(node, name);
  removal.commit();
}

export async function clearBitmap(node: BlockNode, name: string): Promise<Undo> {
  const bitmap = await changeable(node, name, 'busy', 'readOnly', 'inconsistent');
  const saved = bitmap.clearAll();
  return async () => bitmap.restore(saved, true);
}

export function enableBitmap(node: BlockNode, name: string): Promise<Undo> {
  return setEnabled(node, name, true);
}

export function disableBitmap(node: BlockNode, name: string): Promise<Undo> {
  return setEnabled(node, name, false);
}

async function setEnabled(node: BlockNode, name: string, enabled: boolean): Promise<Undo> {
  const bitmap = await changeable(node, name, 'busy', 'inconsistent');
  if (bitmap.enabled === enabled) return NOTHING;
  bitmap.enabled = enabled;
  return async () => { bitmap.enabled = !enabled; };
}

/** All sources or none: the target is as before where one of them cannot be merged. */
export async function mergeBitmaps(node: BlockNode, target: string, sources: readonly BitmapSource[]): Promise<Undo> {
  const found = findBitmap(node, target);
  const collected = (): DirtyBitmap => {
    const all = new DirtyBitmap({ name: '', granularity: found.granularity, size: found.size });
    for (const source of sources) mergeInto(all, typeof source === 'string' ? findBitmap(node, source) : findBitmap(source.node, source.name));
    return all;
  };
  collected();
  const bitmap = await changeable(node, target, 'busy', 'readOnly', 'inconsistent');
  const all = collected(); // as the sources are now
  const saved = bitmap.save();
  bitmap.merge(all);
  return async () => bitmap.restore(saved, false);
}

/** Why a bitmap cannot be merged into one of a node of so many bytes; null where it can. */
export function mergeable(source: DirtyBitmap, size: number): BlockError | null {
  try {
    source.check('busy', 'inconsistent');
    checkSizes(size, source);
    return null;
  } catch (error) {
    if (error instanceof BlockError) return error;
    throw error;
  }
}

function mergeInto(target: DirtyBitmap, source: DirtyBitmap): void {
  source.check('busy', 'inconsistent');
  checkSizes(target.size, source);
  target.merge(source);
}

function checkSizes(size: number, source: DirtyBitmap): void {
  if (size === source.size) return;
  throw new BlockError('INVALID_ARGUMENT',
    `Bitmaps are of different sizes (destination size is ${size}, source size is ${source.size}) and can't be merged`);
}

/** Checked before and after the disk was told: it may have become busy meanwhile. */
async function changeable(node: BlockNode, name: string, ...states: readonly BitmapState[]): Promise<DirtyBitmap> {
  const bitmap = findBitmap(node, name);
  bitmap.check(...states);
  if (!bitmap.persistent || bitmap.readOnly) return bitmap;
  await node.driver.bitmapStore?.beginChanges();
  bitmap.check(...states);
  return bitmap;
}
