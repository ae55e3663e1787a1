import { systemClock, type Clock } from '../base/clock.js';
import { GiB } from '../base/bytes.js';
import { NO_LIMITS, type BlockDriver, type BlockStatus } from '../block/driver.js';
import type { BlockRequest } from '../block/request.js';

interface NullOptions {
  readonly bytes?: number;
  readonly formatName?: 'null-co' | 'null-aio';
  /** Each request takes as long. */
  readonly latencyMs?: number;
  /** False (QEMU's default) promises nothing about what is read. Zeros come anyway: a pooled buffer may hold another disk's data. Default true. */
  readonly readZeroes?: boolean;
  readonly clock?: Clock;
}

/** QEMU's null-co and null-aio: drops writes, reads zeros. For measuring what lies above it. */
export class NullDriver implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName: 'null-co' | 'null-aio';
  readonly limits = NO_LIMITS;
  readonly growable = false;
  readonly #length: number;
  readonly #latencyMs: number;
  readonly #readZeroes: boolean;
  readonly #clock: Clock;

  constructor(options: NullOptions = {}) {
    this.#length = options.bytes ?? GiB;
    this.formatName = options.formatName ?? 'null-co';
    this.#latencyMs = options.latencyMs ?? 0;
    this.#readZeroes = options.readZeroes ?? true;
    this.#clock = options.clock ?? systemClock;
  }

  length(): number { return this.#length; }

  async submit(request: BlockRequest): Promise<void> {
    if (this.#latencyMs > 0) await this.#clock.sleep(this.#latencyMs);
    if (request.op === 'read') request.buffer!.fill(0);
  }

  async blockStatus(_offset: number, bytes: number): Promise<BlockStatus> {
    return { kind: this.#readZeroes ? 'zero' : 'data', bytes };
  }

  async allocatedBytes(): Promise<number> {
    return 0;
  }

  async close(): Promise<void> {}
}
