/**
 * A simulated disk with a volatile write cache. Requests take effect and complete in a random order, a flush makes what
 * had completed before it durable, and a power cut at any step leaves a random subset of the other sectors. Everything
 * follows from the seed: the only clock is the order of events.
 */
import type { Random } from '../../src/base/clock.js';
import { NO_LIMITS, type BlockDriver, type BlockLimits, type BlockStatus } from '../../src/block/driver.js';
import { RequestFlag, type BlockRequest } from '../../src/block/request.js';
import { SECTOR_BYTES, SectorHistory, type Write } from './sector-history.js';

export interface SimDiskOptions {
  readonly random: Random;
  readonly content?: Uint8Array;
  /** 1: a file in the page cache; 512: a device, or O_DIRECT. */
  readonly alignment?: 1 | 512;
  /** The power goes after this many steps (submissions, effects and completions); default never. */
  readonly cutAfter?: number;
}

interface PendingWrite extends Write {
  readonly request: BlockRequest;
}

interface Turn {
  readonly take: () => void;
  /** How often it is still passed over: some requests are slow. */
  lag: number;
}

/** How much of what was not flushed survives: nothing, everything, or each sector with a chance of its own. */
const SURVIVAL = [0, 0.05, 0.3, 0.5, 0.7, 0.95, 1] as const;

export class SimDisk implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName = 'memory';
  readonly growable = true;
  readonly fuaBytes = 64 * 1024;
  readonly limits: BlockLimits;
  /** Resolves when the power is cut. Requests in flight then, and later ones, never settle. */
  readonly powerCut: Promise<void>;
  readonly #random: Random;
  readonly #history: SectorHistory;
  readonly #unapplied = new Set<PendingWrite>();
  #events: Turn[] = [];
  #ticking = false;
  #tick = 0;
  #steps = 0;
  #cutAfter: number;
  #dead = false;
  #cut: () => void = () => {};
  /** Ends of writes since the last flush: how long the file may be after a cut. */
  #ends: { write: Write; end: number; cut: boolean }[] = [];
  #durableLength: number;

  constructor(options: SimDiskOptions) {
    this.#random = options.random;
    this.#history = new SectorHistory(options.content ?? new Uint8Array(0));
    this.#durableLength = this.#history.length;
    this.#cutAfter = options.cutAfter ?? Infinity;
    const requestAlignment = options.alignment ?? 1;
    this.limits = requestAlignment === 1 ? NO_LIMITS : { ...NO_LIMITS, requestAlignment };
    this.powerCut = new Promise((resolve) => { this.#cut = resolve; });
  }

  get steps(): number { return this.#steps; }
  get isDead(): boolean { return this.#dead; }

  length(): number { return this.#history.length; }

  async submit(request: BlockRequest): Promise<void> {
    if (this.#step()) return new Promise<void>(() => {});
    switch (request.op) {
      case 'read':
        await this.#later();
        return this.#history.read(request.offset, request.buffer!);
      case 'flush': return this.#flushLater();
      case 'write':
        await this.#change(request);
        if ((request.flags & RequestFlag.FUA) !== 0) await this.#flushLater();
        return;
      case 'write-zeroes':
      case 'discard':
        return this.#change(request);
    }
  }

  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    return { kind: 'data', bytes, hostOffset: offset };
  }

  /** Shorter, on a drained node: until a flush the cut may be undone, whole or in part. */
  async resize(bytes: number): Promise<void> {
    if (this.#step()) return new Promise<void>(() => {});
    await this.#later();
    const write: Write = { completedAt: Infinity };
    const cut = bytes < this.length();
    if (cut) this.#history.cutTo(write, bytes);
    else this.#history.extendTo(bytes);
    this.#ends.push({ write, end: bytes, cut });
    if (this.#random.chance(0.5)) await this.#later();
    write.completedAt = ++this.#tick;
  }

  async close(): Promise<void> {}

  /** Lets the power go after so many steps from now, if not earlier. */
  cutIn(steps: number): void {
    this.#cutAfter = Math.min(this.#cutAfter, this.#steps + steps);
  }

  /** Cuts the power now, if it is still on. */
  kill(): void {
    this.#dead = true;
    this.#events = [];
    this.#cut();
  }

  /** What an orderly read of the whole disk gives now. */
  content(): Uint8Array {
    return this.#history.current.slice();
  }

  /** What is left after a power cut. */
  survivors(random: Random): Uint8Array {
    for (const write of this.#unapplied) if (random.chance(0.5)) this.#apply(write);
    const chance = random.pick(SURVIVAL);
    const wholeWrites = random.chance(0.3);
    const fate = new Map<Write, boolean>();
    const survives = (write: Write): boolean => {
      if (!wholeWrites) return random.chance(chance);
      if (!fate.has(write)) fate.set(write, random.chance(chance));
      return fate.get(write)!;
    };
    const longest = Math.max(this.#history.length, this.#durableLength);
    const left = new Uint8Array(Math.ceil(longest / SECTOR_BYTES) * SECTOR_BYTES);
    let length = this.#survivingLength(random);
    for (let sector = 0; sector * SECTOR_BYTES < left.byteLength; sector++) {
      const version = this.#history.versions(sector).findLast(({ write }) => survives(write));
      left.set(version?.bytes ?? this.#history.durable(sector), sector * SECTOR_BYTES);
      if (version !== undefined) length = Math.max(length, Math.min((sector + 1) * SECTOR_BYTES, this.#history.length));
    }
    return left.slice(0, length);
  }

  #survivingLength(random: Random): number {
    let length = this.#durableLength;
    for (const { end, cut } of this.#ends) if (random.chance(0.5)) length = cut ? end : Math.max(length, end);
    return length;
  }

  async #change(request: BlockRequest): Promise<void> {
    const write: PendingWrite = { request, completedAt: Infinity };
    this.#unapplied.add(write);
    await this.#later();
    this.#apply(write);
    this.#unapplied.delete(write);
    if (this.#random.chance(0.5)) await this.#later();
    write.completedAt = ++this.#tick;
  }

  #apply(write: PendingWrite): void {
    const { op, offset, buffer } = write.request;
    let { bytes } = write.request;
    if (op === 'discard') bytes = Math.max(0, Math.min(bytes, this.#history.length - offset));
    if (bytes === 0) return;
    if (op === 'write') this.#history.write(write, offset, buffer!);
    else this.#history.zero(write, offset, bytes);
    this.#ends.push({ write, end: offset + bytes, cut: false });
  }

  async #flushLater(): Promise<void> {
    const submitted = ++this.#tick;
    await this.#later();
    this.#flush(submitted);
  }

  #flush(submitted: number): void {
    this.#history.flush(submitted);
    for (const { write, end, cut } of this.#ends) {
      if (write.completedAt < submitted) this.#durableLength = cut ? end : Math.max(this.#durableLength, end);
    }
    this.#ends = this.#ends.filter(({ write }) => write.completedAt >= submitted);
  }

  /** Waits for this request's turn; requests in flight take turns in random order. */
  async #later(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#events.push({ take: resolve, lag: this.#random.chance(0.05) ? this.#random.below(40) : 0 });
      if (this.#ticking) return;
      this.#ticking = true;
      setImmediate(() => this.#turn());
    });
  }

  #turn(): void {
    this.#ticking = false;
    for (let burst = 1 + this.#random.below(3); burst > 0 && this.#events.length > 0; burst--) {
      if (this.#step()) return;
      const index = this.#random.below(this.#events.length);
      const event = this.#events[index]!;
      if (event.lag-- > 0) continue;
      this.#events[index] = this.#events.at(-1)!;
      this.#events.pop();
      event.take();
    }
    if (this.#events.length === 0) return;
    this.#ticking = true;
    setImmediate(() => this.#turn());
  }

  /** Counts a step; true where the power is gone. */
  #step(): boolean {
    if (this.#dead) return true;
    if (this.#steps++ < this.#cutAfter) return false;
    this.kill();
    return true;
  }
}
