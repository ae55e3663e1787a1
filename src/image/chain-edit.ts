/**
 * Takes images out of a backing chain: whoever lay on them lies on what is below afterwards, in the graph and in the
 * images' headers. A crash at any moment leaves an overlay that names the old chain or the new one, and both are whole.
 */
import path from 'node:path';
import { BlockError } from '../base/errors.js';
import { BlockChild } from '../block/child.js';
import type { BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import type { NodeUser } from '../block/permissions.js';
import { nodeBelow, skipFilters } from './chain.js';
import { nodeFilename, plainName } from './filename.js';
import { setReadOnly } from './read-only.js';

/** What an image is to say of its backing file; null where it is to have none. */
export interface BackingRecord {
  readonly name: string;
  readonly format: string;
}

/** How `overlay` names `below`: as QEMU names it, or relative to the overlay where that name would lead elsewhere. */
export function backingRecord(overlay: BlockNode, below: BlockNode, name?: string): BackingRecord {
  const image = skipFilters(below);
  return { name: name ?? nameFrom(overlay, image), format: image.driver.formatName };
}

function nameFrom(overlay: BlockNode, below: BlockNode): string {
  const name = nodeFilename(below);
  const from = plainName(overlay);
  if (from === null || plainName(below) === null || path.isAbsolute(name) || /^[^/]*:/.test(name) || path.dirname(from) === '.') return name;
  return path.relative(path.dirname(path.resolve(from)), path.resolve(name));
}

/** Writes it into the image. On a drained node. */
export async function recordBacking(overlay: BlockNode, record: BackingRecord | null): Promise<void> {
  const change = overlay.driver.changeBackingFile;
  if (change === undefined) {
    throw new BlockError('NOT_SUPPORTED', `'${overlay.name}' cannot name another backing file`, { node: overlay.name, errno: 'ENOTSUP' });
  }
  await change(record?.name ?? null, record?.format ?? null);
  if (overlay.origin !== null) overlay.origin.autoBacking = record?.name ?? null;
}

/**
 * Everybody who holds `top` holds `base`, which lies below it, afterwards. Images on top of it are told; those that are
 * read-only become writable for that while. All or nothing.
 */
export async function dropIntermediate(graph: BlockGraph, top: BlockNode, base: BlockNode, backingFile?: string): Promise<void> {
  const overlays = [...top.parents].filter((user) => user instanceof BlockChild && user.role === 'backing').map((user) => (user as BlockChild).parent!);
  const reopened = overlays.filter((overlay) => overlay.readOnly);
  for (const overlay of reopened) await setReadOnly(graph, overlay, false);
  try {
    await drainAll([...overlays, top], async () => {
      const links = new Map<NodeUser, BlockNode>([...top.parents].filter((user) => user.staysAtNode !== true).map((user) => [user, base]));
      await graph.change([top, base], { links });
      const back = new Map([...links.keys()].map((user): [NodeUser, BlockNode] => [user, top]));
      await tellOverlays(overlays, base, backingFile).catch(async (error: unknown) => {
        await graph.change([top, base], { links: back });
        throw error;
      });
    });
  } finally {
    for (const overlay of reopened) await setReadOnly(graph, overlay, true);
  }
  inheritFromAbove(top, base);
}

/** In the order given: those that were told already are told the old name where one cannot be. */
async function tellOverlays(overlays: readonly BlockNode[], base: BlockNode, backingFile: string | undefined): Promise<void> {
  const told: [BlockNode, BackingRecord][] = [];
  try {
    for (const overlay of overlays) {
      const { backingFile: name = null, backingFormat = null } = overlay.driver.describe?.() ?? {};
      await recordBacking(overlay, backingRecord(overlay, base, backingFile));
      if (name !== null && backingFormat !== null) told.push([overlay, { name, format: backingFormat }]);
    }
  } catch (error) {
    for (const [overlay, record] of told) await recordBacking(overlay, record).catch(() => {});
    throw error;
  }
}

/** What was defined in place below the images that went is now as if it had been defined below what lies above them. */
function inheritFromAbove(top: BlockNode, base: BlockNode): void {
  const gone = new Set<BlockNode>();
  for (let node: BlockNode | null = top; node !== null && node !== base; node = nodeBelow(node)) gone.add(node);
  const { origin } = base;
  while (origin?.inheritsFrom !== undefined && gone.has(origin.inheritsFrom)) origin.inheritsFrom = origin.inheritsFrom.origin?.inheritsFrom;
}

/**
 * Puts `base` (or nothing) below `node`, in the graph and in its header. What the node has taken over from the images
 * between must be in it: it is flushed before the header says so.
 */
export async function replaceBacking(graph: BlockGraph, node: BlockNode, base: BlockNode | null, record: BackingRecord | null): Promise<void> {
  const old = node.driver.backing;
  if (old === null || old === undefined || node.driver.setBacking === undefined) return;
  await node.flush();
  const before = old.node;
  await node.drained(async () => {
    await graph.change([node, before], base === null ? { edit: () => cut(node, old) } : { links: new Map([[old, base]]) });
    try {
      await recordBacking(node, record);
    } catch (error) {
      await graph.change([node, before], base === null ? { edit: () => mend(node, old, before) } : { links: new Map([[old, before]]) });
      throw error;
    }
  });
  if (base !== null) inheritFromAbove(before, base);
  if (before.parents.size === 0 && !before.pinned) await before.close();
  else await graph.refresh([before]);
}

function cut(node: BlockNode, edge: BlockChild): () => void {
  edge.node.parents.delete(edge);
  node.driver.setBacking!(null);
  return () => { mend(node, edge, edge.node); };
}

function mend(node: BlockNode, edge: BlockChild, below: BlockNode): () => void {
  below.parents.add(edge);
  node.driver.setBacking!(edge);
  return () => {};
}

function drainAll<T>(nodes: readonly BlockNode[], section: () => Promise<T>): Promise<T> {
  const [first, ...rest] = nodes;
  return first === undefined ? section() : first.drained(() => drainAll(rest, section));
}
