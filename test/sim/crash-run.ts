/** One seed of the crash simulator: random work on a simulated disk, the power cut, the survivor verified, and again. */
import { Random } from '../../src/base/clock.js';
import { BlockNode } from '../../src/block/node.js';
import { createQcow2 } from '../../src/format/qcow2/create.js';
import type { Qcow2OpenOptions } from '../../src/format/qcow2/options.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { KeptOpen } from '../support/image-model.js';
import { SimDisk } from '../support/sim-disk.js';
import { fileBytes, memoryOf } from '../support/storage.js';
import { Guest } from './guest.js';
import { GuestBitmaps } from './guest-bitmaps.js';
import { openOn, verifyClosed, verifySurvivor } from './oracle.js';
import { makeScenario, type Scenario } from './scenario.js';
import { Workload } from './workload.js';

export interface CrashHooks {
  /** Called with each image as a power cut left it, before anything opened it. */
  readonly onSurvivor?: (image: Uint8Array, scenario: Scenario) => Promise<void>;
  /** Called with each image after its verification and the repair of leaks. */
  readonly onVerified?: (image: Uint8Array, scenario: Scenario, guest: Guest) => Promise<void>;
}

export class CrashRun {
  readonly #seed: number;
  readonly #random: Random;
  readonly #scenario: Scenario;
  readonly #hooks: CrashHooks;
  readonly #log: string[] = [];
  #backing: BlockNode | null = null;

  constructor(seed: number, hooks: CrashHooks = {}) {
    this.#seed = seed;
    this.#random = new Random(seed);
    this.#scenario = makeScenario(this.#random);
    this.#hooks = hooks;
  }

  /** Throws an error that names the seed and the steps before the failure. */
  async run(): Promise<void> {
    try {
      await this.#run();
    } catch (error) {
      const { create, open, backing, depth, alignment } = this.#scenario;
      const setting = JSON.stringify({ ...create, ...open, depth, alignment, backing: backing?.byteLength });
      const message = error instanceof Error ? error.message : String(error);
      throw new Error(`seed ${this.#seed}, step ${this.#log.length}: ${message}\n${setting}\n${this.#log.slice(-60).join('\n')}`, { cause: error });
    }
  }

  async #run(): Promise<void> {
    const { create, backing, rounds } = this.#scenario;
    if (backing !== null) this.#backing = new BlockNode({ name: 'backing', driver: new KeptOpen(await memoryOf(backing)), pinned: true });
    let storage = new MemoryDriver();
    await createQcow2(new BlockNode({ name: 'image', driver: new KeptOpen(storage) }), create);
    const disk = new Uint8Array(create.size);
    disk.set((backing ?? disk).subarray(0, create.size));
    const guest = new Guest(disk);
    guest.backingName = create.backingFile ?? null;
    for (let round = 1; round <= rounds; round++) {
      const survivor = await this.#untilPowerCut(await fileBytes(storage), guest);
      await this.#hooks.onSurvivor?.(survivor, this.#scenario);
      storage = await memoryOf(survivor);
      const repairLeaks = round === rounds || this.#random.chance(0.5);
      await verifySurvivor(storage, guest, this.#openOptions(), repairLeaks);
      if (repairLeaks) await this.#hooks.onVerified?.(await fileBytes(storage), this.#scenario, guest);
    }
    await this.#goOn(storage, guest);
  }

  #openOptions(): Qcow2OpenOptions {
    return { ...this.#scenario.open, openBacking: async () => this.#backing };
  }

  /** Returns what the disk holds after the cut. Work that ended before ends in a cut without a flush, or a clean close. */
  async #untilPowerCut(content: Uint8Array, guest: Guest): Promise<Uint8Array> {
    const cutAfter = Math.floor(2 ** (this.#random.below(1100) / 100)) + this.#random.below(20);
    const disk = new SimDisk({
      content, cutAfter, alignment: this.#scenario.alignment, random: new Random(this.#random.next32()),
    });
    this.#log.push(`open, power cut after ${cutAfter} steps`);
    const work = this.#work(disk, guest);
    const failed = await Promise.race([work.then(() => null, (error: unknown) => ({ error })), disk.powerCut.then(() => null)]);
    if (failed !== null) throw failed.error;
    disk.kill();
    // What had completed when the power went reaches those who wait for it
    await new Promise((resolve) => { setImmediate(resolve); });
    this.#log.push(`power cut at step ${disk.steps}`);
    return disk.survivors(this.#random);
  }

  async #work(disk: SimDisk, guest: Guest): Promise<void> {
    const random = this.#random;
    if (!this.#scenario.bitmaps) return this.#session(disk, guest, 20 + random.below(80), random.chance(0.2), false);
    // Bitmaps reach the disk when an image is closed, and are taken back by the first change after an open
    for (let left = 1 + random.below(4); left > 0; left--) {
      await this.#session(disk, guest, 1 + random.below(25), left > 1 || random.chance(0.7), left === 1 && random.chance(0.4));
    }
  }

  async #session(disk: SimDisk, guest: Guest, steps: number, close: boolean, short: boolean): Promise<void> {
    const file = new BlockNode({ name: 'image', driver: disk });
    const { node, driver } = await openOn(file, this.#openOptions());
    guest.attach(node, driver);
    if (short) disk.cutIn(this.#random.below(40));
    const workload = new Workload(guest, this.#scenario, new Random(this.#random.next32()), (line) => this.#log.push(line));
    if (this.#scenario.bitmaps && guest.bitmaps.models.size === 0) await workload.addBitmap();
    await workload.run(steps);
    if (!close) return;
    if (this.#scenario.bitmaps && this.#random.chance(0.3)) disk.cutIn(this.#random.below(80));
    this.#log.push('close');
    await guest.close();
  }

  /** The image is as good as new: it takes more work, and an orderly close leaves it in order. */
  async #goOn(storage: MemoryDriver, guest: Guest): Promise<void> {
    this.#log.push('go on');
    const { node, driver } = await openOn(storage, this.#openOptions());
    guest.attach(node, driver);
    await new Workload(guest, this.#scenario, this.#random, (line) => this.#log.push(line)).run(12);
    await guest.flush();
    const sums = GuestBitmaps.sums(node);
    await guest.close();
    await verifyClosed(storage, guest, this.#openOptions(), sums);
  }
}
