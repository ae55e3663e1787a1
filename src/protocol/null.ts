import { GiB } from '../base/bytes.js';
import { NO_LIMITS, type BlockDriver, type BlockStatus } from '../block/driver.js';
import type { BlockRequest } from '../block/request.js';

/** QEMU's null-co with read-zeroes=on: reads zeros, drops writes. For measuring what lies above it. */
export class NullDriver implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName = 'null-co';
  readonly limits = NO_LIMITS;
  readonly growable = false;
  readonly #length: number;

  constructor(options: { readonly bytes?: number } = {}) {
    this.#length = options.bytes ?? GiB;
  }

  length(): number { return this.#length; }

  async submit(request: BlockRequest): Promise<void> {
    if (request.op === 'read') request.buffer!.fill(0);
  }

  async blockStatus(_offset: number, bytes: number): Promise<BlockStatus> {
    return { kind: 'zero', bytes };
  }

  async allocatedBytes(): Promise<number> {
    return 0;
  }

  async close(): Promise<void> {}
}
