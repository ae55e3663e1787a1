/** Walks along a backing chain, through the filters that lie in it, as QEMU walks: what is below what, and under which name. */
import { realpathSync } from 'node:fs';
import path from 'node:path';
import type { BlockChild } from '../block/child.js';
import type { BlockNode } from '../block/node.js';
import { nodeFilename } from './filename.js';

/** What a filter filters; null for what is no filter. */
export function filteredNode(node: BlockNode): BlockNode | null {
  return node.driver.kind === 'filter' ? node.children.find(({ role }) => role === 'filtered')?.node ?? null : null;
}

export function skipFilters(node: BlockNode): BlockNode {
  let layer = node;
  for (let below = filteredNode(layer); below !== null; below = filteredNode(layer)) layer = below;
  return layer;
}

/** What the node filters or overlays. */
export function nodeBelow(node: BlockNode): BlockNode | null {
  return filteredNode(node) ?? node.backing;
}

/** From the node itself down to the end. */
export function* chainFrom(top: BlockNode): Generator<BlockNode> {
  for (let node: BlockNode | null = top; node !== null; node = nodeBelow(node)) yield node;
}

/** No command can change what lies below the nodes from `top` down to `bottom`, which does not count, until the function returned is called. */
export function freezeChain(top: BlockNode, bottom: BlockNode | null): () => void {
  const edges: BlockChild[] = [];
  for (const node of chainFrom(top)) {
    if (node === bottom) break;
    const below = nodeBelow(node);
    edges.push(...node.children.filter((child) => child.node === below));
  }
  for (const edge of edges) edge.frozen++;
  return () => { for (const edge of edges.splice(0)) edge.frozen--; };
}

export function chainContains(top: BlockNode, base: BlockNode): boolean {
  return [...chainFrom(top)].includes(base);
}

/** The next image below the image that `node` is, or filters. */
export function nextImage(node: BlockNode): BlockNode | null {
  const { backing } = skipFilters(node);
  return backing === null ? null : skipFilters(backing);
}

/** The image in the chain of `active` that lies on `below`, or on a filter of it; with null the last one. */
export function findOverlay(active: BlockNode, below: BlockNode | null): BlockNode | null {
  const wanted = below === null ? null : skipFilters(below);
  for (let layer: BlockNode | null = skipFilters(active); layer !== null; layer = nextImage(layer)) if (nextImage(layer) === wanted) return layer;
  return null;
}

/** The image below `top` that `name` means: as an overlay names it, or as a path to the same file. */
export function findBackingImage(top: BlockNode, name: string): BlockNode | null {
  for (let layer = skipFilters(top), below = nextImage(layer); below !== null; layer = below, below = nextImage(layer)) {
    if (namesImage(name, layer, below)) return below;
  }
  return null;
}

function namesImage(name: string, overlay: BlockNode, below: BlockNode): boolean {
  const filename = nodeFilename(below);
  const recorded = overlay.driver.describe?.().backingFile ?? null;
  if (recorded === null || filename !== (overlay.origin?.autoBacking ?? null)) return name === filename;
  if (hasProtocol(name) || hasProtocol(recorded)) return name === recorded || name === filename;
  const place = path.dirname(nodeFilename(overlay));
  const [wanted, present] = [name, recorded].map((one) => realPath(path.resolve(place, one)));
  return wanted !== null && wanted === present;
}

function hasProtocol(name: string): boolean {
  return /^[^/]*:/.test(name);
}

function realPath(name: string): string | null {
  try {
    return realpathSync(name);
  } catch {
    return null;
  }
}

/** A server may not answer for as long as it likes. */
export function usesNetwork(node: BlockNode): boolean {
  return node.driver.formatName === 'nbd' || node.children.some((child) => usesNetwork(child.node));
}
