/**
 * The fixed work again on a disk that is full for a while, or whose writes fail now and then: what could not be written is
 * written later, and when the power goes at any moment nothing flushed is lost.
 */
import { describe, expect, test } from '@jest/globals';
import { Random } from '../../src/base/clock.js';
import { BlockError } from '../../src/base/errors.js';
import type { BlockDriver, BlockLimits, BlockStatus } from '../../src/block/driver.js';
import type { BlockRequest } from '../../src/block/request.js';
import type { SimDisk } from '../support/sim-disk.js';
import { FAULT_SETTINGS, FaultBase, runFaulty } from './fault-run.js';

const SEEDS = Number(process.env['SEEDS'] ?? 12);

/** Within a run of requests, writes fail with a chance; some of them have reached the disk all the same. */
class Outage implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName = 'memory';
  readonly growable = true;
  hit: string | null = null;
  /** Writes that succeeded since the last one that failed. */
  since = 0;
  readonly #disk: SimDisk;
  readonly #random: Random;
  readonly #from: number;
  readonly #to: number;
  readonly #chance: number;
  readonly #full: boolean;
  #count = 0;

  constructor(disk: SimDisk, seed: number) {
    const random = new Random(seed);
    this.#disk = disk;
    this.#random = random;
    this.#from = random.below(150);
    this.#to = this.#from + 1 + random.below(random.pick([3, 10, 60]));
    this.#chance = random.pick([1, 0.5, 0.2]);
    this.#full = random.chance(0.5);
  }

  get limits(): BlockLimits { return this.#disk.limits; }
  length(): number { return this.#disk.length(); }
  blockStatus(offset: number, bytes: number): Promise<BlockStatus> { return this.#disk.blockStatus(offset, bytes); }

  async submit(request: BlockRequest): Promise<void> {
    const { op, offset, bytes } = request;
    if (op !== 'write' && op !== 'write-zeroes') return this.#disk.submit(request);
    const inside = this.#count >= this.#from && this.#count < this.#to;
    this.#count++;
    if (!inside || !this.#random.chance(this.#chance)) {
      await this.#disk.submit(request);
      this.since++;
      return;
    }
    this.hit ??= `${op} ${offset} ${bytes}`;
    this.since = 0;
    if (!this.#full && this.#random.chance(0.5)) await this.#disk.submit(request);
    throw new BlockError(this.#full ? 'NO_SPACE' : 'IO', `the ${op} at ${offset} failed`, { errno: this.#full ? 'ENOSPC' : 'EIO', offset, bytes });
  }

  async close(): Promise<void> {}
}

describe.each(['plain', 'tiny-caches', 'lazy', 'version-2', 'bitmaps'])('%s', (name) => {
  test.each([['after all', false], ['at any moment', true]])('the power goes %s', async (_, cut) => {
    const base = await FaultBase.make(FAULT_SETTINGS.find((setting) => setting.name === name)!);
    let recovered = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      let outage: Outage | null = null;
      const hit = await runFaulty(base, seed, `outage ${seed}`, (disk) => (outage = new Outage(disk, seed)), cut ? new Random(seed).below(900) : undefined);
      if (hit !== null && outage!.since > 10) recovered++;
    }
    // once a write of the header is lost nothing more is written
    expect(recovered).toBeGreaterThan(SEEDS / 40);
  }, 300_000);
});
