/** A driver whose n-th request of a kind fails, once. */
import { BlockError } from '../../src/base/errors.js';
import type { BlockDriver, BlockLimits, BlockStatus } from '../../src/block/driver.js';
import type { BlockRequest } from '../../src/block/request.js';

export type FaultErrno = 'EIO' | 'ENOSPC';

export interface Fault {
  /** Counts requests from 1 on. */
  readonly at: number;
  readonly errno: FaultErrno;
  /** The request took effect all the same, and only its answer was lost. */
  readonly applied: boolean;
}

export class FaultDriver implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName = 'memory';
  readonly growable = true;
  readonly #driver: BlockDriver;
  readonly #fault: Fault;
  #count = 0;
  /** The request that failed. */
  hit: string | null = null;

  constructor(driver: BlockDriver, fault: Fault) {
    this.#driver = driver;
    this.#fault = fault;
  }

  get limits(): BlockLimits { return this.#driver.limits; }

  length(): number { return this.#driver.length(); }

  async submit(request: BlockRequest): Promise<void> {
    const { at, errno, applied } = this.#fault;
    const fails = ++this.#count === at && (errno === 'EIO' || request.op !== 'read');
    if (!fails) return this.#driver.submit(request);
    this.hit = `${request.op} ${request.offset} ${request.bytes}`;
    if (applied) await this.#driver.submit(request);
    throw new BlockError(errno === 'EIO' ? 'IO' : 'NO_SPACE', `the ${request.op} at ${request.offset} failed`, { errno, offset: request.offset, bytes: request.bytes });
  }

  blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    return this.#driver.blockStatus(offset, bytes);
  }

  async close(): Promise<void> {}
}
