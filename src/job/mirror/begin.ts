/** How a mirror begins: what the target holds already, what is dirty at first. */
import { alignDown, GiB } from '../../base/bytes.js';
import type { DirtyBitmap } from '../../block/dirty-bitmap.js';
import type { BlockNode } from '../../block/node.js';
import { RequestFlag } from '../../block/request.js';
import type { NbdDriver } from '../../protocol/nbd.js';
import type { JobContext } from '../job.js';
import type { MirrorState } from './state.js';

/** `top`: only what the first layer of the source holds. */
export type MirrorSync = 'full' | 'top' | 'none' | 'bitmap' | 'incremental';

export interface BeginOptions {
  readonly sync: MirrorSync;
  /** The target reads as zeros all over. */
  readonly targetIsZero: boolean;
  /** Holds what is to be copied, with the sync modes `bitmap` and `incremental`. */
  readonly wanted: DirtyBitmap | null;
  /** The node whose content the target has already: the base of a commit. */
  readonly base: BlockNode | null;
}

const STEP_BYTES = 2 * GiB;

/** Marks what is to be copied, and zeroes a target where that is cheap. */
export async function begin(state: MirrorState, source: () => Promise<BlockNode>, options: BeginOptions, context: JobContext): Promise<void> {
  const { bitmap, length, parts } = state;
  const belowTop = options.sync === 'top' ? await layerBelowTop(source) : null;
  // without a layer below, the top is all there is, and what it does not hold is zeros
  switch (options.sync === 'top' && belowTop === null ? 'full' : options.sync) {
    case 'none':
      return;
    case 'bitmap':
    case 'incremental':
      return bitmap.merge(options.wanted!);
    case 'top':
      return markAllocated(state, source, belowTop, context);
    case 'full':
      if (options.base === null && !options.targetIsZero) {
        if (!zeroesCheaply(parts.target.door.node)) return bitmap.set(0, length);
        await zeroTarget(state, context);
      }
      return markAllocated(state, source, options.base, context);
  }
}

/** Zeroes can be written with deallocation; whether the node may is its user's choice. */
export function zeroesCheaply(node: BlockNode): boolean {
  return node.discardMode === 'unmap' && takesZeroes(node);
}

function takesZeroes(node: BlockNode): boolean {
  const { driver } = node;
  if (driver.formatName === 'nbd') return (driver as NbdDriver).client.canZero;
  if (driver.formatName.startsWith('null-')) return false;
  if (driver.kind === 'protocol') return true;
  if (driver.formatName === 'qcow2') return driver.describe?.().specific['compat'] !== '0.10';
  const below = driver.children?.find(({ role }) => role !== 'backing');
  return below !== undefined && takesZeroes(below.node);
}

async function zeroTarget(state: MirrorState, context: JobContext): Promise<void> {
  const step = alignDown(STEP_BYTES - 1, state.granularity);
  for (let at = 0; at < state.length; at += step) {
    await context.pausePoint();
    state.throwIfFailed();
    const bytes = Math.min(step, state.length - at);
    try {
      await state.parts.target.send('write-zeroes', at, bytes, null, state.parts.zeroFlags + RequestFlag.MAY_UNMAP);
    } catch (error) {
      state.requestFailed('write', error, at, bytes);
    }
  }
}

/** The first layer that the top one defers to; null where there is none. */
async function layerBelowTop(source: () => Promise<BlockNode>): Promise<BlockNode | null> {
  let node: BlockNode | undefined = await source();
  while (node !== undefined && node.driver.kind === 'filter') node = node.children.find(({ role }) => role === 'filtered')?.node;
  return node?.backing ?? null;
}

/** Marks what the layers of the source above `base` hold. */
async function markAllocated(state: MirrorState, source: () => Promise<BlockNode>, base: BlockNode | null, context: JobContext): Promise<void> {
  for (let at = 0; at < state.length;) {
    await context.pausePoint();
    const { allocated, bytes } = await allocatedAbove(await source(), base, at, Math.min(STEP_BYTES, state.length - at));
    if (allocated) state.bitmap.set(at, bytes);
    at += bytes;
  }
}

/** Whether a layer from `top` down to `base`, which does not count, holds the range; the answer is good for `bytes`. */
async function allocatedAbove(top: BlockNode, base: BlockNode | null, offset: number, limit: number): Promise<{ allocated: boolean; bytes: number }> {
  let bytes = limit;
  for (let node: BlockNode | null = top; node !== null && node !== base;) {
    // a shorter layer hides by its end what lies below
    if (offset >= node.length()) return { allocated: true, bytes };
    const status = await node.blockStatus(offset, Math.min(bytes, node.length() - offset));
    bytes = status.bytes;
    if (status.kind !== 'unallocated') return { allocated: true, bytes };
    const below: BlockNode | null = node.driver.backing?.node ?? node.children.find(({ role }) => role === 'filtered')?.node ?? null;
    if (below !== null) while (below.draining) await below.resumed();
    node = below;
  }
  return { allocated: false, bytes };
}
