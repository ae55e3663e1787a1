/** NBD_CMD_CACHE as QEMU has it: what an exported node lacks itself is copied into it from below. */
import { alignDown, alignUp, isZero, MiB } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import type { BlockBackend } from '../block/backend.js';
import type { BlockNode } from '../block/node.js';
import { makeRequest, RequestFlag } from '../block/request.js';
import type { MemoryShare } from './memory-share.js';

const STEP_BYTES = MiB;

/** Throws READ_ONLY where something would have to be copied through a read-only export. */
export async function prefetch(backend: BlockBackend, memory: MemoryShare, readOnly: boolean, offset: number, bytes: number): Promise<void> {
  const clusterSize = clusterSizeOf(backend.node);
  for (let at = offset; at < offset + bytes;) {
    const lacking = await lackingAt(backend, at, offset + bytes - at);
    if (lacking.here) {
      if (readOnly && !isCopying(backend.node)) throw new BlockError('READ_ONLY', 'what is not there cannot be copied through a read-only export');
      const start = alignDown(at, clusterSize);
      const wanted = Math.min(at + lacking.bytes, start + Math.max(STEP_BYTES, clusterSize));
      const end = Math.min(alignUp(wanted, clusterSize), backend.node.length());
      await copy(backend, memory, readOnly, start, end - start);
      at = Math.min(end, at + lacking.bytes);
    } else {
      at += lacking.bytes;
    }
  }
}

async function lackingAt({ node }: BlockBackend, offset: number, bytes: number): Promise<{ readonly here: boolean; readonly bytes: number }> {
  while (node.draining) await node.resumed();
  const status = await node.blockStatus(offset, bytes);
  return { here: status.kind === 'unallocated', bytes: Math.min(bytes, status.bytes) };
}

async function copy(backend: BlockBackend, memory: MemoryShare, readOnly: boolean, offset: number, bytes: number): Promise<void> {
  const lease = await memory.lease(bytes);
  try {
    const data = lease.buffer.subarray(0, bytes);
    await backend.submit(makeRequest('read', offset, bytes, data));
    // a copy-on-read filter has it now
    if (readOnly) return;
    // zeros over nothing need no mapping of their own, and get none
    const zero = isZero(data);
    await backend.submit(makeRequest(zero ? 'write-zeroes' : 'write', offset, bytes, zero ? null : data, RequestFlag.IF_UNALLOCATED));
  } finally {
    lease.release();
  }
}

function isCopying(node: BlockNode): boolean {
  return layers(node).some(({ driver }) => driver.formatName === 'copy-on-read');
}

function clusterSizeOf(node: BlockNode): number {
  return layers(node).at(-1)!.driver.describe?.().clusterSize ?? 1;
}

/** The node, and what it filters, down to the first that is no filter. */
function layers(node: BlockNode): BlockNode[] {
  const found = [node];
  for (let layer = node; layer.driver.kind === 'filter' && layer.children[0] !== undefined; found.push(layer)) layer = layer.children[0].node;
  return found;
}
