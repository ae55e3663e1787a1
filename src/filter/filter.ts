/** What all filters share that show the node below as it is: each of them overrides what it is there for. */
import { BlockError } from '../base/errors.js';
import { BlockChild } from '../block/child.js';
import { NO_LIMITS, type BlockDriver, type BlockLimits, type BlockStatus, type Preallocation, type SnapshotTable, type VmStateArea } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { makePart, type BlockRequest } from '../block/request.js';

export abstract class FilterDriver implements BlockDriver {
  readonly kind = 'filter';
  readonly passesWrites = true;
  abstract readonly formatName: string;
  readonly children: readonly BlockChild[];
  readonly file: BlockChild;

  constructor(child: BlockNode, edge = 'file') {
    this.file = new BlockChild(edge, 'filtered', child);
    this.children = [this.file];
  }

  get limits(): BlockLimits { return NO_LIMITS; }
  get growable(): boolean { return this.file.growable; }

  length(): number { return this.file.length(); }

  submit(request: BlockRequest): Promise<void> {
    return this.forward(request);
  }

  /** Sends it on as a request of its own. */
  protected forward(request: BlockRequest): Promise<void> {
    const { op, offset, bytes, buffer, flags, ioClass } = request;
    if (op === 'flush') this.file.debugEvent('flush_to_disk');
    return this.file.submit(makePart(request, op, offset, bytes, buffer, flags, ioClass));
  }

  /** A filter has no layer of its own: what the node below says holds, and what that defers to its backing node does too. */
  blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    return this.file.blockStatus(offset, bytes);
  }

  /** Those of the node below, as in QEMU: it is drained for each verb, since it may have other users. */
  get snapshots(): SnapshotTable | undefined {
    const { node } = this.file;
    const table = node.driver.snapshots;
    if (table === undefined) return undefined;
    return {
      list: () => table.list(),
      checkNew: (name) => table.checkNew(name),
      create: (snapshot) => node.drained(() => table.create(snapshot)),
      apply: (id) => node.drained(() => table.apply(id)),
      delete: (id) => node.drained(() => table.delete(id)),
      isActive: (id) => node.drained(() => table.isActive(id)),
      openVmState: (id) => table.openVmState(id),
    };
  }

  get vmState(): VmStateArea | undefined { return this.file.node.driver.vmState; }

  readonly resize = async (bytes: number, preallocation?: Preallocation): Promise<void> => {
    const { node } = this.file;
    const { driver } = node;
    if (driver.resize === undefined) throw new BlockError('NOT_SUPPORTED', `'${node.name}' cannot be resized`, { node: node.name, errno: 'ENOTSUP' });
    await node.drained(() => driver.resize!(bytes, preallocation));
  };

  async close(): Promise<void> {}
}
