/** A qcow2 image next to a flat array: random operations on both, then they must agree. */
import type { Random } from '../../src/base/clock.js';
import { BlockNode } from '../../src/block/node.js';
import { RequestFlag } from '../../src/block/request.js';
import { createQcow2 } from '../../src/format/qcow2/create.js';
import type { Qcow2CreateOptions } from '../../src/format/qcow2/options.js';
import { openQcow2, type Qcow2Driver } from '../../src/format/qcow2/qcow2.js';
import type { Qcow2OpenOptions } from '../../src/format/qcow2/options.js';
import type { BlockDriver } from '../../src/block/driver.js';

/** A driver whose storage outlives its nodes, so that an image can be closed and opened again. */
export class KeptOpen implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName = 'memory';
  readonly growable = true;
  readonly #driver: BlockDriver;
  constructor(driver: BlockDriver) { this.#driver = driver; }
  get limits() { return this.#driver.limits; }
  length() { return this.#driver.length(); }
  submit(request: Parameters<BlockDriver['submit']>[0]) { return this.#driver.submit(request); }
  blockStatus(offset: number, bytes: number) { return this.#driver.blockStatus(offset, bytes); }
  async resize(bytes: number) { await this.#driver.resize!(bytes); }
  async close() {}
}

export class ImageModel {
  readonly storage: BlockDriver;
  readonly openOptions: Qcow2OpenOptions;
  node!: BlockNode;
  driver!: Qcow2Driver;
  disk: Uint8Array;
  readonly saved = new Map<string, { disk: Uint8Array; state: Uint8Array }>();

  private constructor(storage: BlockDriver, size: number, backing: Uint8Array | null, openOptions: Qcow2OpenOptions) {
    this.storage = storage;
    this.openOptions = openOptions;
    this.disk = new Uint8Array(size);
    if (backing !== null) this.disk.set(backing.subarray(0, size));
  }

  static async make(storage: BlockDriver, create: Qcow2CreateOptions, open: Qcow2OpenOptions = {}, backing: Uint8Array | null = null): Promise<ImageModel> {
    const file = new BlockNode({ name: 'image', driver: new KeptOpen(storage) });
    await createQcow2(file, create);
    await file.close();
    const model = new ImageModel(storage, create.size, backing, open);
    await model.open();
    return model;
  }

  async open(): Promise<void> {
    const file = new BlockNode({ name: 'image', driver: new KeptOpen(this.storage) });
    this.driver = await openQcow2(file, this.openOptions);
    this.node = new BlockNode({ name: 'qcow2', driver: this.driver });
  }

  async reopen(): Promise<void> {
    await this.node.close();
    await this.open();
  }

  async write(offset: number, data: Uint8Array): Promise<void> {
    this.disk.set(data, offset);
    await this.node.write(offset, data);
  }

  async writeZeroes(offset: number, bytes: number, unmap: boolean): Promise<void> {
    this.disk.fill(0, offset, offset + bytes);
    await this.node.writeZeroes(offset, bytes, unmap ? RequestFlag.MAY_UNMAP : 0);
  }

  /** Discarded clusters read as before or as zeros; the model adopts what the image says after checking that. */
  async discard(offset: number, bytes: number): Promise<void> {
    await this.node.discard(offset, bytes);
    const now = new Uint8Array(bytes);
    await this.node.read(offset, now);
    for (let i = 0; i < bytes; i++) {
      if (now[i] !== 0 && now[i] !== this.disk[offset + i]) throw new Error(`discarded byte ${offset + i} reads as something else`);
    }
    this.disk.set(now, offset);
  }

  async createSnapshot(name: string, state: Uint8Array): Promise<void> {
    if (state.byteLength > 0) await this.driver.vmState!.save(0, state);
    await this.node.drained(() => this.driver.snapshots.create({
      name, vmStateSize: state.byteLength, dateSeconds: 1, dateNanoseconds: 2,
    }));
    this.saved.set(name, { disk: this.disk.slice(), state });
  }

  async applySnapshot(name: string): Promise<void> {
    await this.node.drained(() => this.driver.snapshots.apply(this.#id(name)));
    this.disk = this.saved.get(name)!.disk.slice();
  }

  async deleteSnapshot(name: string): Promise<void> {
    await this.node.drained(() => this.driver.snapshots.delete(this.#id(name)));
    this.saved.delete(name);
  }

  #id(name: string): string {
    return this.driver.snapshots.list().find((snapshot) => snapshot.name === name)!.id;
  }

  /** Throws where the image differs from the model, or its check finds anything. */
  async verify(): Promise<void> {
    const all = new Uint8Array(this.disk.byteLength);
    await this.node.read(0, all);
    assertSame(all, this.disk, 'the disk');
    const names = this.driver.snapshots.list().map(({ name }) => name);
    if (names.join() !== [...this.saved.keys()].join()) throw new Error(`snapshots are ${names.join()}, expected ${[...this.saved.keys()].join()}`);
    for (const { id, name } of this.driver.snapshots.list()) {
      const source = await this.driver.snapshots.openVmState(id);
      const state = new Uint8Array(source.size);
      await source.load(0, state);
      assertSame(state, this.saved.get(name)!.state, `the state of ${name}`);
    }
  }

  async check(): Promise<void> {
    await this.node.flush();
    const result = await this.driver.check({});
    if (result.corruptions + result.leaks + result.checkErrors > 0) throw new Error(`check: ${result.messages.slice(0, 5).join('; ')}`);
  }
}

export function assertSame(actual: Uint8Array, expected: Uint8Array, what: string): void {
  if (Buffer.compare(actual, expected) === 0) return;
  let at = 0;
  while (actual[at] === expected[at] && at < expected.byteLength) at++;
  throw new Error(`${what} differs at byte ${at} of ${expected.byteLength}: ${actual[at]} instead of ${expected[at]}`);
}

/** One random step; all of them keep the model in step. */
export async function randomStep(model: ImageModel, random: Random): Promise<string> {
  const size = model.disk.byteLength;
  const offset = random.chance(0.5) ? random.below(size) : Math.floor(random.below(size) / 4096) * 4096;
  const bytes = Math.min(size - offset, random.chance(0.3) ? random.below(size / 2) + 1 : random.below(20000) + 1);
  const kind = random.below(100);
  if (kind < 50) {
    const data = new Uint8Array(bytes);
    random.fill(data);
    await model.write(offset, data);
    return `write ${offset} ${bytes}`;
  }
  if (kind < 62) {
    const unmap = random.chance(0.5);
    await model.writeZeroes(offset, bytes, unmap);
    return `zero ${offset} ${bytes} ${unmap}`;
  }
  if (kind < 72) {
    await model.discard(offset, bytes);
    return `discard ${offset} ${bytes}`;
  }
  if (kind < 78) {
    await model.node.flush();
    return 'flush';
  }
  if (kind < 82) {
    await model.reopen();
    return 'reopen';
  }
  return snapshotStep(model, random, kind);
}

async function snapshotStep(model: ImageModel, random: Random, kind: number): Promise<string> {
  const names = [...model.saved.keys()];
  if (kind < 89 && names.length < 5) {
    const state = new Uint8Array(random.chance(0.5) ? 0 : random.below(300_000));
    random.fill(state);
    const name = `s${random.next32()}`;
    await model.createSnapshot(name, state);
    return `create ${name} ${state.byteLength}`;
  }
  if (names.length === 0) return 'nothing';
  const name = random.pick(names);
  if (kind < 95) {
    await model.applySnapshot(name);
    return `apply ${name}`;
  }
  await model.deleteSnapshot(name);
  return `delete ${name}`;
}
