/** The raw format: the disk is the file, byte for byte. */
import { BlockError } from '../base/errors.js';
import { NO_LIMITS, type BlockDriver, type BlockLimits, type BlockStatus } from '../block/driver.js';
import { BlockChild } from '../block/child.js';
import type { BlockNode } from '../block/node.js';
import { makeRequest, type BlockRequest } from '../block/request.js';

export class RawDriver implements BlockDriver {
  readonly kind = 'format';
  readonly formatName = 'raw';
  readonly limits: BlockLimits = NO_LIMITS;
  readonly growable = false;
  readonly children: readonly BlockChild[];
  readonly #file: BlockChild;
  #bytes: number;

  constructor(file: BlockNode) {
    this.#file = new BlockChild('file', 'file', file);
    this.children = [this.#file];
    this.#bytes = file.length();
  }

  length(): number {
    return this.#bytes;
  }

  submit(request: BlockRequest): Promise<void> {
    if (request.op === 'flush') this.#file.debugEvent('flush_to_disk');
    const { op, offset, bytes, buffer, flags, ioClass } = request;
    return this.#file.submit(makeRequest(op, offset, bytes, buffer, flags, ioClass));
  }

  readonly debugEvent = (event: string): void => this.#file.debugEvent(event);

  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    return this.#file.blockStatus(offset, bytes);
  }

  readonly resize = async (bytes: number): Promise<void> => {
    const { resize } = this.#file.node.driver;
    if (resize === undefined) throw new BlockError('NOT_SUPPORTED', `'${this.#file.name}' cannot be resized`, { node: this.#file.name });
    await resize.call(this.#file.node.driver, bytes);
    this.#bytes = bytes;
  };

  /** O_DIRECT writes whole blocks: the last one may have made the file longer than the disk. */
  async close(): Promise<void> {
    const { driver, readOnly } = this.#file.node;
    if (!readOnly && driver.growable && this.#file.length() > this.#bytes) await driver.resize?.(this.#bytes);
  }
}
