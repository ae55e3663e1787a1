/** Shows what a copy-before-write filter keeps: the content of its node as it was. Nobody can write here. */
import { BlockError } from '../base/errors.js';
import { rejected } from '../base/done.js';
import { BlockChild } from '../block/child.js';
import { NO_LIMITS, type BlockDriver, type BlockLimits, type BlockStatus } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { NO_USE, type EdgeUse } from '../block/permissions.js';
import type { BlockRequest } from '../block/request.js';
import { CopyBeforeWriteFilter, type SnapshotAccess } from './copy-before-write.js';

export class SnapshotAccessDriver implements BlockDriver {
  readonly kind = 'format';
  readonly formatName = 'snapshot-access';
  readonly growable = false;
  readonly limits: BlockLimits = NO_LIMITS;
  readonly children: readonly BlockChild[];
  readonly #file: BlockChild;

  constructor({ child }: { readonly child: BlockNode }) {
    this.#file = new BlockChild('file', 'data', child);
    this.children = [this.#file];
  }

  length(): number { return this.#file.length(); }

  submit(request: BlockRequest): Promise<void> {
    switch (request.op) {
      case 'read': return this.#snapshot().readSnapshot(request);
      case 'discard': return this.#snapshot().discardSnapshot(request);
      case 'flush': return Promise.resolve();
      case 'write':
      case 'write-zeroes':
        return rejected(new BlockError('READ_ONLY', `'${this.#file.name}' is shown as it was: nobody can write there`, { node: this.#file.name, errno: 'ENOTSUP' }));
    }
  }

  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    return this.#snapshot().snapshotStatus(offset, bytes);
  }

  /** What is below keeps what it needs by itself. */
  readonly childUse = (): EdgeUse => NO_USE;

  async close(): Promise<void> {}

  #snapshot(): SnapshotAccess {
    const { driver, name } = this.#file.node;
    if (driver instanceof CopyBeforeWriteFilter) return driver;
    throw new BlockError('NOT_SUPPORTED', `'${name}' keeps no content of earlier times`, { node: name, errno: 'ENOTSUP' });
  }
}
