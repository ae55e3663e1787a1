/** A virtual machine's view of its disk: what it wrote, what was acknowledged, and what a power cut may leave of it. */
import type { Random } from '../../src/base/clock.js';
import { BlockError } from '../../src/base/errors.js';
import type { BlockNode } from '../../src/block/node.js';
import { RequestFlag } from '../../src/block/request.js';
import type { Qcow2Driver } from '../../src/format/qcow2/qcow2.js';
import { SECTOR_BYTES, SectorHistory, type Write } from '../support/sector-history.js';
import { GuestBitmaps } from './guest-bitmaps.js';

export interface Saved {
  readonly disk: Uint8Array;
  readonly state: Uint8Array;
}

/** A verb that was called and not acknowledged: after a power cut it happened, or it did not. */
export type Pending =
  | { readonly kind: 'create'; readonly name: string; readonly saved: Saved }
  | { readonly kind: 'apply'; readonly name: string }
  | { readonly kind: 'delete'; readonly name: string }
  | { readonly kind: 'resize'; readonly size: number }
  | { readonly kind: 'rename backing'; readonly name: string };

const ZEROS = new Uint8Array(SECTOR_BYTES);

export class Guest {
  readonly history: SectorHistory;
  readonly snapshots = new Map<string, Saved>();
  readonly bitmaps = new GuestBitmaps();
  pending: Pending | null = null;
  /** What the image calls its backing file; null = it has none. */
  backingName: string | null = null;
  node!: BlockNode;
  driver!: Qcow2Driver;
  #tick = 0;
  #flushes = 0;

  constructor(disk: Uint8Array) {
    this.history = new SectorHistory(disk);
  }

  get size(): number { return this.history.length; }

  attach(node: BlockNode, driver: Qcow2Driver): void {
    this.node = node;
    this.driver = driver;
  }

  async write(offset: number, data: Uint8Array): Promise<void> {
    this.bitmaps.writing(offset, data.byteLength);
    const write: Write = { completedAt: Infinity };
    this.history.write(write, offset, data);
    await this.node.write(offset, data);
    write.completedAt = ++this.#tick;
  }

  async writeZeroes(offset: number, bytes: number, unmap: boolean): Promise<void> {
    this.bitmaps.writing(offset, bytes);
    const write: Write = { completedAt: Infinity };
    this.history.zero(write, offset, bytes);
    await this.node.writeZeroes(offset, bytes, unmap ? RequestFlag.MAY_UNMAP : 0);
    write.completedAt = ++this.#tick;
  }

  /** Each sector reads as before or as zeros afterwards: the guest looks, and both may be there after a power cut. */
  async discard(offset: number, bytes: number): Promise<void> {
    this.bitmaps.writing(offset, bytes);
    const write: Write = { completedAt: Infinity };
    const first = Math.ceil(offset / SECTOR_BYTES);
    const end = Math.floor((offset + bytes) / SECTOR_BYTES);
    for (let sector = first; sector < end; sector++) this.history.mayBecome(write, sector, ZEROS);
    await this.node.discard(offset, bytes);
    const now = new Uint8Array(bytes);
    await this.node.read(offset, now);
    const before = this.history.current.slice(offset, offset + bytes);
    for (let sector = first; sector < end; sector++) {
      const at = sector * SECTOR_BYTES - offset;
      const part = now.subarray(at, at + SECTOR_BYTES);
      if (Buffer.compare(part, ZEROS) === 0) before.fill(0, at, at + SECTOR_BYTES);
    }
    expectSame(now, before, `the disk from ${offset} on, after a discard`);
    this.history.write(write, offset, now);
    write.completedAt = ++this.#tick;
  }

  async read(offset: number, bytes: number): Promise<void> {
    const expected = this.history.current.slice(offset, offset + bytes);
    const actual = new Uint8Array(bytes);
    await this.node.read(offset, actual);
    expectSame(actual, expected, `the disk from ${offset} on`);
  }

  /** A write and a discard of the same sectors at once: each sector ends as one of them left it. */
  async race(offset: number, data: Uint8Array): Promise<void> {
    this.bitmaps.writing(offset, data.byteLength);
    const write: Write = { completedAt: Infinity };
    const sectors = data.byteLength / SECTOR_BYTES;
    for (let i = 0; i < sectors; i++) this.history.mayBecome(write, offset / SECTOR_BYTES + i, ZEROS);
    this.history.write(write, offset, data);
    await Promise.all([this.node.write(offset, data), this.node.discard(offset, data.byteLength)]);
    const now = new Uint8Array(data.byteLength);
    await this.node.read(offset, now);
    for (let at = 0; at < now.byteLength; at += SECTOR_BYTES) {
      const part = now.subarray(at, at + SECTOR_BYTES);
      if (Buffer.compare(part, ZEROS) !== 0) expectSame(part, data.subarray(at, at + SECTOR_BYTES), `the sector at ${offset + at}, written and discarded at once`);
    }
    this.history.write(write, offset, now);
    write.completedAt = ++this.#tick;
  }

  /** A read beside whatever is in flight: every sector is one of its own versions, old or new. */
  async peek(sector: number, count: number): Promise<void> {
    const before = Array.from({ length: count }, (_, i) => this.history.versionsNow(sector + i));
    const flushes = this.#flushes;
    const actual = new Uint8Array(count * SECTOR_BYTES);
    await this.node.read(sector * SECTOR_BYTES, actual);
    if (this.#flushes !== flushes) return; // a version that came and went meanwhile is not known any more
    for (let i = 0; i < count; i++) {
      const part = actual.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES);
      const known = [...before[i]!, ...this.history.versionsNow(sector + i)];
      if (!known.some((version) => Buffer.compare(version, part) === 0)) throw new Error(`a read of sector ${sector + i} beside other requests gave none of its versions`);
    }
  }

  /** After failed requests: every sector holds a version it may hold, and this one is it from now on. */
  async lookAgain(): Promise<void> {
    const disk = new Uint8Array(this.size);
    await this.node.read(0, disk);
    for (const sector of [...this.history.volatileSectors]) {
      const bytes = disk.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
      if (!this.history.allows(sector, bytes)) throw new Error(`sector ${sector} holds none of its possible versions after a failure`);
      if (!this.history.isCurrent(sector, bytes)) this.history.write({ completedAt: ++this.#tick }, sector * SECTOR_BYTES, bytes);
    }
    expectSame(disk, this.history.current, 'the disk after a failure');
  }

  async flush(): Promise<void> {
    const submitted = ++this.#tick;
    await this.node.flush();
    this.#flushes++;
    this.history.flush(submitted);
  }

  async saveState(state: Uint8Array, random: Random): Promise<void> {
    const area = this.driver.vmState!;
    const chunk = area.clusterSize * (1 + random.below(8));
    const starts: number[] = [];
    for (let at = 0; at < state.byteLength; at += chunk) starts.push(at);
    if (random.chance(0.3)) starts.sort(() => random.below(3) - 1);
    while (starts.length > 0) {
      await Promise.all(starts.splice(0, 1 + random.below(8)).map((at) => area.save(at, state.slice(at, at + chunk))));
    }
  }

  /** Returns false where the image refused it: no more references fit in its refcounts. */
  async create(name: string, state: Uint8Array): Promise<boolean> {
    const saved = { disk: this.history.current.slice(), state };
    this.pending = { kind: 'create', name, saved };
    try {
      await this.node.drained(() => this.driver.snapshots.create({
        name, vmStateSize: state.byteLength, dateSeconds: 1, dateNanoseconds: 2,
      }));
    } catch (error) {
      if (this.driver.geometry.refcountBits > 2 || !(error instanceof BlockError) || error.code !== 'NO_SPACE') throw error;
      this.pending = null;
      return false;
    }
    this.snapshots.set(name, saved);
    this.pending = null;
    this.history.reset(saved.disk); // making it durable made the disk durable
    return true;
  }

  async apply(name: string): Promise<boolean> {
    if (this.node.bitmaps.size > 0) return this.#refused('BUSY', () => this.driver.snapshots.apply(this.idOf(name)));
    this.pending = { kind: 'apply', name };
    try {
      await this.node.drained(() => this.driver.snapshots.apply(this.idOf(name)));
    } catch (error) {
      if (this.driver.geometry.refcountBits > 2 || !(error instanceof BlockError) || error.code !== 'NO_SPACE') throw error;
      this.pending = null;
      return false;
    }
    this.pending = null;
    this.history.reset(this.snapshots.get(name)!.disk);
    return true;
  }

  async delete(name: string): Promise<void> {
    this.pending = { kind: 'delete', name };
    await this.node.drained(() => this.driver.snapshots.delete(this.idOf(name)));
    this.pending = null;
    this.snapshots.delete(name);
  }

  async resize(size: number): Promise<void> {
    // nothing to refuse
    if (size === this.size) return;
    if (this.bitmaps.anyInconsistent) {
      await this.#refused('CORRUPT', () => this.driver.resize(size));
      return;
    }
    if (this.snapshots.size > 0 && this.driver.header.version < 3) {
      await this.#refused('NOT_SUPPORTED', () => this.driver.resize(size));
      return;
    }
    this.pending = { kind: 'resize', size };
    await this.node.drained(() => this.driver.resize(size));
    this.pending = null;
    this.bitmaps.resized(size);
    if (size < this.size) this.history.forgetFrom(size);
    else this.history.extendTo(size);
  }

  /** Another name for the backing file in the image. Returns false where the header has no room for it. */
  async renameBacking(name: string): Promise<boolean> {
    this.pending = { kind: 'rename backing', name };
    try {
      await this.node.drained(() => this.driver.changeBackingFile(name, 'raw'));
      this.backingName = name;
    } catch (error) {
      if (!(error instanceof BlockError) || error.code !== 'NO_SPACE') throw error;
    }
    this.pending = null;
    return this.backingName === name;
  }

  async #refused(code: string, verb: () => Promise<void>): Promise<false> {
    const answer = await this.node.drained(verb).then(() => 'done', (error: unknown) => (error instanceof BlockError ? error.code : String(error)));
    if (answer !== code) throw new Error(`it should be refused, but: ${answer}`);
    return false;
  }

  async close(): Promise<void> {
    this.bitmaps.closing = true;
    await this.node.close();
    this.bitmaps.closed();
  }

  idOf(name: string): string {
    return idIn(this.driver, name);
  }

  /** The power was cut and the disk was found to be `disk`: that is the truth from now on. */
  adopt(disk: Uint8Array, names: readonly string[]): void {
    const { pending } = this;
    if (pending?.kind === 'create' && names.includes(pending.name)) this.snapshots.set(pending.name, pending.saved);
    if (pending?.kind === 'delete' && !names.includes(pending.name)) this.snapshots.delete(pending.name);
    this.pending = null;
    this.backingName = this.driver.header.backingFile;
    this.history.reset(disk);
  }
}

export function idIn(driver: Qcow2Driver, name: string): string {
  return driver.snapshots.list().find((snapshot) => snapshot.name === name)!.id;
}

export function expectSame(actual: Uint8Array, expected: Uint8Array, what: string): void {
  if (Buffer.compare(actual, expected) === 0) return;
  let at = 0;
  while (at < expected.byteLength && actual[at] === expected[at]) at++;
  throw new Error(`${what} (${actual.byteLength} bytes) differs at byte ${at} of ${expected.byteLength}: ${actual[at]} instead of ${expected[at]}`);
}
