/** Writes that were confirmed and may be gone all the same: a server that was lost, and found again, may be another process. */
import { BlockError } from '../base/errors.js';
import type { BlockNode } from './node.js';

/** Another number than before: what was written since the last flush may not be there any more. */
export function lostWrites(node: BlockNode): number {
  return dataNodes(node).reduce((sum, { driver }) => sum + (driver.lostWrites ?? 0), 0);
}

/** All that may be lost is written again, by the only one who wrote: a flush may succeed. */
export function forgiveLosses(node: BlockNode): void {
  for (const { driver } of dataNodes(node)) driver.forgiveLoss?.();
}

/** Null where writing the same again makes it good; a format's own structures would have to be written again too. */
export function refuseLoss(node: BlockNode): BlockError | null {
  const format = dataNodes(node).find(({ driver }) => driver.kind === 'format' && driver.formatName !== 'raw');
  return format === undefined ? null : new BlockError('IO', `the server of '${node.name}' was lost with writes on it that were not flushed, and the ${format.driver.formatName} image there may be damaged`, { node: node.name });
}

function dataNodes(node: BlockNode): BlockNode[] {
  return [node, ...node.children.filter(({ role }) => role !== 'backing').flatMap((child) => dataNodes(child.node))];
}
