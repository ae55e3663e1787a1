/** The copy-on-read filter: what is read from below the top layer is written into it on the way, whole clusters at a time. */
import { BufferPool } from '../base/buffer-pool.js';
import { alignDown, alignUp, isZero, MiB } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import { RangeLock } from '../base/range-lock.js';
import type { BlockChild } from '../block/child.js';
import type { BlockNode } from '../block/node.js';
import { Permission, type EdgeUse } from '../block/permissions.js';
import { makePart, RequestFlag, type BlockRequest } from '../block/request.js';
import { FilterDriver } from './filter.js';
import { events } from '../trace/events.js';

/** A copied piece is held in memory, once per request. */
const MAX_PIECE_BYTES = 2 * MiB;
/** Of all pieces under way; a cluster has 2 MiB at most. */
const MEMORY_BYTES = 8 * MiB;

interface CopyOnReadOptions {
  readonly child: BlockNode;
  /** Copy only what lies in the backing chain down to this node, inclusive. Default: all of it, and what no layer has. */
  readonly bottom?: BlockNode | null;
}

export class CopyOnReadFilter extends FilterDriver {
  readonly formatName = 'copy-on-read';
  readonly bottom: BlockNode | null;
  /** Copies hold their clusters alone, writes share: a copy never undoes what was written after it had read. */
  readonly #ranges = new RangeLock();
  #memory: BufferPool | null = null;

  /** Throws INVALID_ARGUMENT where `bottom` is a filter or not below `child`. */
  constructor({ child, bottom = null }: CopyOnReadOptions) {
    if (bottom !== null) refuseBottom(child, bottom);
    super(child);
    this.bottom = bottom;
  }

  override async submit(request: BlockRequest): Promise<void> {
    if (request.op === 'flush') return this.forward(request);
    if ((request.flags & RequestFlag.PREFETCH) !== 0) return this.#prefetch(request);
    if (request.op === 'read') return this.file.readOnly ? this.forward(request) : this.#read(request);
    const end = request.offset + request.bytes;
    const hold = this.#ranges.tryAcquire(request.offset, end, false) ?? await this.#ranges.acquire(request.offset, end, false);
    try {
      await this.forward(request);
    } finally {
      this.#ranges.release(hold);
    }
  }

  readonly childUse = (_child: BlockChild, { used, shared }: EdgeUse): EdgeUse =>
    ({ used: used | Permission.WRITE_UNCHANGED, shared: shared | Permission.WRITE_UNCHANGED });

  async #read(request: BlockRequest): Promise<void> {
    const end = request.offset + request.bytes;
    for (let at = request.offset; at < end;) {
      const inside = Math.min(end, this.length()) - at;
      const status = inside > 0 ? await this.file.blockStatus(at, inside) : { kind: 'data', bytes: end - at };
      let bytes = status.bytes;
      let copy = status.kind === 'unallocated';
      if (copy && this.bottom !== null) {
        const below = await this.#statusBelow(at, bytes);
        copy = below.allocated;
        bytes = below.bytes;
      }
      const into = request.buffer!.subarray(at - request.offset, at - request.offset + bytes);
      at += copy ? await this.#readCopying(at, bytes, into, request) : await this.#readPlain(at, into, request);
    }
  }

  async #prefetch(request: BlockRequest): Promise<void> {
    const end = request.offset + request.bytes;
    for (let at = request.offset; at < end;) {
      const status = await this.file.blockStatus(at, end - at);
      if (status.kind === 'unallocated') at += await this.#readCopying(at, status.bytes, null, request);
      else at += status.bytes;
    }
  }

  async #readPlain(offset: number, into: Uint8Array, request: BlockRequest): Promise<number> {
    await this.file.submit(makePart(request, 'read', offset, into.byteLength, into, 0, request.ioClass));
    return into.byteLength;
  }

  /** Reads a first part of the range by whole clusters, and writes those that the top layer lacks; returns how many bytes of the range it dealt with. */
  async #readCopying(offset: number, bytes: number, into: Uint8Array | null, request: BlockRequest): Promise<number> {
    const clusterSize = topLayer(this.file.node).driver.describe?.().clusterSize ?? 1;
    const start = alignDown(offset, clusterSize);
    events.log?.emit('bdrv_co_do_copy_on_readv', this.file.node, offset, bytes, start, clusterSize);
    const wanted = Math.min(offset + bytes, start + Math.max(MAX_PIECE_BYTES, clusterSize));
    const end = Math.min(alignUp(wanted, clusterSize), this.length());
    const hold = this.#ranges.tryAcquire(start, end) ?? await this.#ranges.acquire(start, end);
    try {
      // Looked up anew: a write may have come first
      const status = await this.file.blockStatus(start, end - start);
      const filled = Math.max(0, Math.min(bytes, start + status.bytes - offset)); // 0: the clusters before the wanted byte are another extent now
      if (status.kind !== 'unallocated') {
        if (into !== null && filled > 0) await this.#readPlain(offset, into.subarray(0, filled), request);
        return filled;
      }
      await this.#copyCluster(start, status.bytes, request, (whole) => into?.set(whole.subarray(offset - start, offset - start + filled)));
      return filled;
    } finally {
      this.#ranges.release(hold);
    }
  }

  async #copyCluster(offset: number, bytes: number, request: BlockRequest, use: (data: Uint8Array) => void): Promise<void> {
    this.#memory ??= new BufferPool(MEMORY_BYTES);
    const lease = await this.#memory.lease(bytes);
    try {
      await this.#readPlain(offset, lease.buffer, request);
      await this.#copy(offset, lease.buffer, request);
      use(lease.buffer);
    } finally {
      lease.release();
    }
  }

  async #copy(offset: number, data: Uint8Array, request: BlockRequest): Promise<void> {
    this.file.debugEvent('cor_write');
    const zero = isZero(data);
    const write = makePart(request, zero ? 'write-zeroes' : 'write', offset, data.byteLength, zero ? null : data, RequestFlag.IF_UNALLOCATED, request.ioClass);
    write.cause = 'copy-on-read';
    await this.file.submit(write);
  }

  /** Whether a layer below the top one, down to `bottom`, has the range; the answer holds for `bytes`. */
  async #statusBelow(offset: number, limit: number): Promise<{ readonly allocated: boolean; readonly bytes: number }> {
    let bytes = limit;
    const { backing } = topLayer(this.file.node);
    const first = backing === null ? null : topLayer(backing);
    for (let node = backing; node !== null; node = topLayer(node).backing) {
      const layer = topLayer(node);
      const inside = Math.min(bytes, layer.length() - offset);
      // a layer that ends before it hides what is below: zeros, which need a copy only where something else comes below
      if (inside <= 0) return { allocated: layer !== first, bytes };
      while (layer.draining) await layer.resumed();
      const status = await layer.blockStatus(offset, inside);
      bytes = status.bytes;
      if (status.kind !== 'unallocated') return { allocated: true, bytes };
      if (layer === this.bottom) break;
    }
    return { allocated: false, bytes };
  }
}

/** The first node from `node` down that is no filter. */
function topLayer(node: BlockNode): BlockNode {
  let layer = node;
  while (layer.driver.kind === 'filter' && layer.children[0] !== undefined) layer = layer.children[0].node;
  return layer;
}

function refuseBottom(child: BlockNode, bottom: BlockNode): void {
  const refuse = (why: string): never => { throw new BlockError('INVALID_ARGUMENT', `Bottom node '${bottom.name}' ${why}`, { node: bottom.name }); };
  if (bottom.driver.kind === 'filter') refuse('is a filter');
  let layer: BlockNode | null = topLayer(child).backing;
  while (layer !== null && topLayer(layer) !== bottom) layer = topLayer(layer).backing;
  if (layer === null) refuse(`is not in the backing chain of '${child.name}'`);
}
