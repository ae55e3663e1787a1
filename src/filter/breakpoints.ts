/**
 * Requests that stop on purpose, for tests of what others do meanwhile: QEMU's bdrv_debug_breakpoint and its fellows, under
 * qemu-io's `break`, `resume`, `remove_break` and `wait_break`. The blkdebug node may lie anywhere below the node that is
 * named. QEMU stops at the event itself, ours at the first request that reaches the blkdebug node after it, which is the
 * request that the event announces.
 */
import { BlockError } from '../base/errors.js';
import type { BlockNode } from '../block/node.js';
import { BlkdebugDriver } from './blkdebug.js';

/** One request stops after `event`, once. Throws NOT_FOUND for an event that there is not, NOT_SUPPORTED without a blkdebug node. */
export function setBreakpoint(node: BlockNode, event: string, tag: string): void {
  if (!blkdebugOf(node, 'set breakpoint').addBreakpoint(event, tag)) throw missing('set breakpoint');
}

/** Takes the breakpoints of this tag away, and lets what waits at them go on. Throws NOT_FOUND where none was still to be reached. */
export function removeBreakpoint(node: BlockNode, tag: string): void {
  if (!blkdebugOf(node, `remove breakpoint ${tag}`).removeBreakpoint(tag)) throw missing(`remove breakpoint ${tag}`);
}

/** Lets one request that stopped at a breakpoint of this tag go on. Throws NOT_FOUND where none waits. */
export function resumeRequest(node: BlockNode, tag: string): void {
  if (!blkdebugOf(node, 'resume request').resume(tag)) throw missing('resume request');
}

export function isSuspended(node: BlockNode, tag: string): boolean {
  return find(node)?.isSuspended(tag) ?? false;
}

/** Resolves once a request waits at a breakpoint of this tag. */
export function whenSuspended(node: BlockNode, tag: string): Promise<void> {
  return blkdebugOf(node, 'wait for a request').whenSuspended(tag);
}

function find(node: BlockNode): BlkdebugDriver | null {
  for (let at: BlockNode | undefined = node; at !== undefined;) {
    if (at.driver instanceof BlkdebugDriver) return at.driver;
    at = at.children.find(({ role }) => role === 'file' || role === 'filtered')?.node;
  }
  return null;
}

function blkdebugOf(node: BlockNode, what: string): BlkdebugDriver {
  const found = find(node);
  if (found === null) throw new BlockError('NOT_SUPPORTED', `Could not ${what}: Operation not supported`, { node: node.name, errno: 'ENOTSUP' });
  return found;
}

function missing(what: string): BlockError {
  return new BlockError('NOT_FOUND', `Could not ${what}: No such file or directory`, { errno: 'ENOENT' });
}
