/**
 * A fixed piece of work on an image, with one of its I/Os failing: every step ends with success or a typed error, what
 * was flushed stays, and the image has leaks at most.
 */
import { Random } from '../../src/base/clock.js';
import { BlockError } from '../../src/base/errors.js';
import { addBitmap } from '../../src/block/bitmap-verbs.js';
import type { BlockDriver } from '../../src/block/driver.js';
import { BlockNode } from '../../src/block/node.js';
import { createQcow2 } from '../../src/format/qcow2/create.js';
import type { Qcow2CreateOptions, Qcow2OpenOptions } from '../../src/format/qcow2/options.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { FaultDriver, type Fault } from '../support/fault-driver.js';
import { KeptOpen } from '../support/image-model.js';
import { SimDisk } from '../support/sim-disk.js';
import { fileBytes, memoryOf } from '../support/storage.js';
import { Guest } from './guest.js';
import { openOn, verifySurvivor } from './oracle.js';

const HANG_MS = 20_000;

export interface FaultSetting {
  readonly name: string;
  readonly create: Qcow2CreateOptions;
  readonly open: Qcow2OpenOptions;
  /** Sectors written before the faulty work begins, so that tables must grow in it. */
  readonly filled: number;
  /** A persistent bitmap is there, and the work is about it. */
  readonly bitmaps?: boolean;
}

export const FAULT_SETTINGS: readonly FaultSetting[] = [
  { name: 'plain', create: { size: 96 * 1024, clusterSize: 1024, refcountBits: 16 }, open: {}, filled: 40 },
  { name: 'tiny-caches', create: { size: 96 * 1024, clusterSize: 512, refcountBits: 16 }, open: { l2CacheSize: 1, refcountCacheSize: 1, discard: 'unmap' }, filled: 80 },
  { name: 'lazy', create: { size: 96 * 1024, clusterSize: 1024, refcountBits: 16, lazyRefcounts: true }, open: {}, filled: 40 },
  { name: 'version-2', create: { size: 96 * 1024, clusterSize: 1024, version: 2 }, open: { l2CacheSize: 1 }, filled: 40 },
  { name: 'bitmaps', create: { size: 96 * 1024, clusterSize: 512, refcountBits: 16 }, open: { l2CacheSize: 1 }, filled: 60, bitmaps: true },
  // 64-bit refcounts of 512-byte clusters: the first refcount table ends at 2 MiB
  { name: 'table-growth', create: { size: 2048 * 1024, clusterSize: 512, refcountBits: 64 }, open: { refcountCacheSize: 1 }, filled: 3730 },
];

/** The work before the fault, done once: an image, and a guest that knows it. */
export class FaultBase {
  readonly setting: FaultSetting;
  readonly image: Uint8Array;
  readonly #disk: Uint8Array;

  private constructor(setting: FaultSetting, image: Uint8Array, disk: Uint8Array) {
    this.setting = setting;
    this.image = image;
    this.#disk = disk;
  }

  static async make(setting: FaultSetting): Promise<FaultBase> {
    const storage = new MemoryDriver();
    await createQcow2(new BlockNode({ name: 'image', driver: new KeptOpen(storage) }), setting.create);
    const { node, driver } = await openOn(storage, {});
    const disk = new Uint8Array(setting.create.size);
    new Random(1).fill(disk.subarray(0, setting.filled * 512));
    await node.write(0, disk.subarray(0, setting.filled * 512));
    if (setting.name !== 'table-growth') await createBase(driver.snapshots);
    if (setting.bitmaps === true) await addBitmap(node, { name: 'kept', granularity: 512, persistent: true });
    await node.close();
    return new FaultBase(setting, await fileBytes(storage), disk);
  }

  guest(): Guest {
    const guest = new Guest(this.#disk.slice());
    if (this.setting.name !== 'table-growth') guest.snapshots.set('base', { disk: this.#disk, state: new Uint8Array(0) });
    if (this.setting.bitmaps === true) guest.bitmaps.expectKept('kept', 512, this.#disk);
    return guest;
  }
}

async function createBase(snapshots: Guest['driver']['snapshots']): Promise<void> {
  await snapshots.create({ name: 'base', vmStateSize: 0, dateSeconds: 1, dateNanoseconds: 0 });
}

/** Returns what failed, or null where the work has fewer I/Os than `fault.at`. */
export function runFault(base: FaultBase, fault: Fault): Promise<string | null> {
  const title = `I/O ${fault.at} with ${fault.errno}${fault.applied ? ' after it was done' : ''}`;
  return runFaulty(base, fault.at, title, (disk) => new FaultDriver(disk, fault));
}

/** `wrap` puts what fails on top of the disk; `hit` says which request it failed. `cutAfter`: see SimDisk; by default the power goes after all of the work. */
export async function runFaulty(
  base: FaultBase, seed: number, title: string, wrap: (disk: SimDisk) => BlockDriver & { readonly hit: string | null }, cutAfter?: number,
): Promise<string | null> {
  const disk = new SimDisk({ content: base.image, random: new Random(seed), ...(cutAfter === undefined ? {} : { cutAfter }) });
  const driver = wrap(disk);
  const guest = base.guest();
  const work = new FaultyWork(guest, base.setting);
  try {
    await withinTime(Promise.race([work.run(driver), disk.powerCut]));
    // The power goes right after: a failed flush is one that promised nothing
    disk.kill();
    await verifySurvivor(await memoryOf(disk.survivors(new Random(seed))), guest, base.setting.open, true);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new Error(`${base.setting.name}, ${title} (${driver.hit}): ${message}\n${work.log.join('\n')}`, { cause: error });
  }
  return driver.hit;
}

async function withinTime(work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => { timer = setTimeout(() => reject(new Error(`it hangs for ${HANG_MS} ms`)), HANG_MS); });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

class FaultyWork {
  readonly log: string[] = [];
  readonly #guest: Guest;
  readonly #setting: FaultSetting;
  readonly #random = new Random(7);
  #storage!: BlockDriver;

  constructor(guest: Guest, setting: FaultSetting) {
    this.#guest = guest;
    this.#setting = setting;
  }

  async run(driver: BlockDriver): Promise<void> {
    const guest = this.#guest;
    this.#storage = driver;
    if (!await this.#step('open', () => this.#open())) return;
    for (const [name, step] of this.#steps()) {
      const done = await this.#step(name, step);
      if (!done && (name === 'open' || name === 'close')) return;
      if (!done && guest.driver.image.failure === null) await this.#lookAgain();
      if (guest.driver.image.failure !== null) {
        await this.#expectReadOnly();
        break;
      }
      // Only a failed write of metadata leaves open whether a verb happened
      guest.pending = null;
    }
    await this.#step('close', () => guest.close());
  }

  async #open(): Promise<void> {
    const { node, driver } = await openOn(new BlockNode({ name: 'image', driver: this.#storage }), this.#setting.open);
    this.#guest.attach(node, driver);
    this.#guest.bitmaps.adopt(node);
  }

  #steps(): [string, () => Promise<unknown>][] {
    const guest = this.#guest;
    const state = this.#bytes(7000);
    let saved = false;
    const steps: [string, () => Promise<unknown>][] = [
      ['write in place or copied', () => guest.write(512, this.#bytes(1024))],
      ['parallel writes', () => settled([8192, 20480, 33280, 40960].map((at) => guest.write(at, this.#bytes(2560))))],
      ['flush', () => guest.flush()],
      ['write zeroes', () => guest.writeZeroes(4096, 2048, false)],
      ['write over zeroes', () => guest.write(4608, this.#bytes(512))],
      ['unmap', () => guest.writeZeroes(10240, 4096, true)],
      ['discard', () => guest.discard(20480, 8192)],
      ['flush', () => guest.flush()],
      ['save state', () => guest.saveState(state, new Random(3)).then(() => { saved = true; })],
      ['create with state', () => guest.create('state', saved ? state : new Uint8Array(0))],
      ['write after create', () => guest.write(0, this.#bytes(6144))],
      ['flush', () => guest.flush()],
      ['create', () => guest.create('two', new Uint8Array(0))],
      ['write', () => guest.write(16384, this.#bytes(4096))],
      ['apply', () => guest.apply(guest.snapshots.has('state') ? 'state' : this.#anySnapshot())],
      ['write after apply', () => guest.write(2048, this.#bytes(6144))],
      ['save state that nobody takes', () => guest.saveState(this.#bytes(3000), new Random(4))],
      ['delete', () => this.#deleteAny()],
      ['resize', () => guest.resize(guest.size + 256 * 1024)],
      ['write at the end', () => guest.write(guest.size - 4096, this.#bytes(4096))],
      ['flush', () => guest.flush()],
      ['shrink', () => guest.resize(24 * 1024)],
      ['write after shrink', () => guest.write(4096, this.#bytes(8192))],
      ['grow again', () => guest.resize(64 * 1024)],
      ['flush', () => guest.flush()],
      ['delete', () => this.#deleteAny()],
    ];
    // Where the point is that the refcount table grows: all the rest is elsewhere
    if (this.#setting.bitmaps === true) return this.#aboutBitmaps();
    return this.#setting.name === 'table-growth' ? this.#growth() : steps;
  }

  #aboutBitmaps(): [string, () => Promise<unknown>][] {
    const guest = this.#guest;
    const { bitmaps, history } = guest;
    const any = (): string => bitmaps.usable.at(-1)!;
    return [
      ['write in place or copied', () => guest.write(512, this.#bytes(1024))],
      ['flush', () => guest.flush()],
      ['add', () => bitmaps.add(guest.node, 1024, true, history.current)],
      ['add', () => bitmaps.add(guest.node, 512, false, history.current)],
      ['write zeroes', () => guest.writeZeroes(4096, 2048, false)],
      ['clear', () => bitmaps.clear(guest.node, 'kept', history.current)],
      ['write', () => guest.write(30_000, this.#bytes(5000))],
      ['merge', () => bitmaps.merge(guest.node, any(), 'kept')],
      ['enable', () => bitmaps.toggle(guest.node, any())],
      ['discard', () => guest.discard(20_480, 8192)],
      ['create', () => guest.create('two', new Uint8Array(0))],
      ['resize', () => guest.resize(guest.size + 64 * 1024)],
      ['write at the end', () => guest.write(guest.size - 4096, this.#bytes(4096))],
      ['close', () => guest.close()],
      ['open', () => this.#open()],
      ['write', () => guest.write(1024, this.#bytes(512))],
      ['remove', () => bitmaps.remove(guest.node, any())],
      ['write', () => guest.write(2048, this.#bytes(512))],
      ['flush', () => guest.flush()],
    ];
  }

  #growth(): [string, () => Promise<unknown>][] {
    const guest = this.#guest;
    const from = this.#setting.filled * 512;
    return [
      ['write', () => guest.write(from, this.#bytes(60 * 1024))],
      ['write', () => guest.write(from + 60 * 1024, this.#bytes(guest.size - from - 60 * 1024))],
      ['save state', () => guest.saveState(this.#bytes(40_000), new Random(3))],
      ['flush', () => guest.flush()],
      ['discard', () => guest.discard(0, 64 * 1024)],
      ['flush', () => guest.flush()],
      ['write', () => guest.write(0, this.#bytes(64 * 1024))],
      ['flush', () => guest.flush()],
    ];
  }

  #bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    this.#random.fill(bytes);
    return bytes;
  }

  /** There is none where so many requests failed that none was made. */
  async #deleteAny(): Promise<void> {
    if (this.#guest.snapshots.size > 0) await this.#guest.delete(this.#anySnapshot());
  }

  #anySnapshot(): string {
    return [...this.#guest.snapshots.keys()][0]!;
  }

  /** Returns false where the step failed, with a typed error. */
  async #step(name: string, work: () => Promise<unknown>): Promise<boolean> {
    try {
      await work();
      this.log.push(name);
      return true;
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.log.push(`${name}: ${error.message}`);
      return false;
    }
  }

  /** After a failed request the disk holds old or new data, which from now on is what it holds. */
  async #lookAgain(): Promise<void> {
    const guest = this.#guest;
    const actual = new Set(guest.driver.snapshots.list().map(({ name }) => name));
    for (const name of guest.snapshots.keys()) if (!actual.has(name)) throw new Error(`snapshot ${name} is gone after a failure`);
    if (actual.size !== guest.snapshots.size) throw new Error('a verb that failed left a snapshot');
    if (guest.node.length() !== guest.size) throw new Error('a verb that failed changed the size of the disk');
    await guest.lookAgain();
  }

  /** The error is sticky: nothing is written any more, and everything can be read. */
  async #expectReadOnly(): Promise<void> {
    const guest = this.#guest;
    const refused: [string, () => Promise<unknown>][] = [
      ['write', () => guest.node.write(0, new Uint8Array(512))],
      ['zeroes', () => guest.node.writeZeroes(0, 65536)],
      ['flush', () => guest.node.flush()],
      ['create', () => guest.driver.snapshots.create({ name: 'refused', vmStateSize: 0, dateSeconds: 0, dateNanoseconds: 0 })],
      ['state', () => guest.driver.vmState!.save(0, new Uint8Array(512))],
    ];
    for (const [name, verb] of refused) {
      if (await this.#step(`refused ${name}`, verb)) throw new Error(`a ${name} was accepted after a metadata write had failed`);
    }
    if (guest.pending?.kind !== 'apply' && guest.pending?.kind !== 'resize') await guest.lookAgain();
  }
}

async function settled(work: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(work);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
