/**
 * A mirror under guests that write, with a journal, whose power is cut or whose process is killed at any step, several
 * times over: whatever the journal then calls equal must be equal. All disks have volatile caches, and everything
 * follows from the seed.
 */
import { Random, type Clock } from '../../src/base/clock.js';
import { RangeLock } from '../../src/base/range-lock.js';
import { BitArray } from '../../src/block/bit-array.js';
import type { JournalFiles, JournalSector, SectorFile } from '../../src/job/journal/files.js';
import type { FileIdentity } from '../../src/job/journal/identity.js';
import type { CheckpointJob } from '../../src/job/journal/write-intent.js';
import { JobJournal, type FoundJob, type RunningJob } from '../../src/job/journal/journal.js';
import type { JobEnd, JobRecord } from '../../src/job/journal/record.js';

const GRANULE = 1024;
const GRANULES = 24;
const PER_REGION = 2;
const SECTOR = 512;

type Cut = 'power' | 'kill';

/** Whoever waits here goes on in a random order, and nobody after the cut. */
class World implements Clock {
  now = 1_000_000;
  boot = 1;
  bootedMs = 0;
  dead = false;
  #steps = 0;
  #cutAfter = Infinity;
  #waiting: { readonly at: number; readonly go: () => void }[] = [];
  readonly random: Random;

  constructor(random: Random) {
    this.random = random;
  }

  wallMs(): number { return this.now; }
  monotonicMs(): number { return this.now; }
  sleep(ms: number): Promise<void> { return this.step(this.now + ms); }
  step(at = 0): Promise<void> { return new Promise((go) => { this.#waiting.push({ at, go }); }); }

  /** All that can go on without a step has gone on. */
  async #settled(): Promise<void> {
    for (let turn = 0; turn < 40; turn++) await Promise.resolve();
    if (this.#waiting.length === 0) await new Promise((resolve) => { setImmediate(resolve); });
  }

  /** What takes its time. */
  async steps(most: number): Promise<void> {
    for (let left = 1 + this.random.below(this.random.chance(0.3) ? most : 2); left > 0; left--) await this.step();
  }

  /** Runs until `done` or the cut; returns whether it was done. */
  async run(done: Promise<unknown>, cutAfter: number): Promise<boolean> {
    let over = false;
    void done.then(() => { over = true; });
    this.#cutAfter = this.#steps + cutAfter;
    for (;;) {
      await this.#settled();
      if (over) return true;
      if (this.#steps++ >= this.#cutAfter) {
        this.#waiting = [];
        return false;
      }
      this.now += this.random.below(3);
      let awake = this.#waiting.filter(({ at }) => at <= this.now);
      if (awake.length === 0) {
        if (this.#waiting.length === 0) throw new Error('everybody waits for somebody');
        this.now = Math.min(...this.#waiting.map(({ at }) => at));
        awake = this.#waiting.filter(({ at }) => at <= this.now);
      }
      const next = this.random.pick(awake);
      this.#waiting.splice(this.#waiting.indexOf(next), 1);
      next.go();
    }
  }
}

/** Values by granule. What was not flushed may be lost, or any of what was written since may be there. */
class CachedDisk {
  modifiedMs = 0;
  readonly current: number[];
  readonly #durable: number[];
  readonly #since: { readonly granule: number; readonly value: number }[] = [];
  readonly #submitted = new Set<{ readonly granule: number; readonly value: number }>();
  readonly #world: World;

  constructor(world: World, fill: (granule: number) => number) {
    this.#world = world;
    this.current = Array.from({ length: GRANULES }, (_, granule) => fill(granule));
    this.#durable = [...this.current];
  }

  async write(granules: readonly number[], values: readonly number[]): Promise<void> {
    await Promise.all(granules.map(async (granule, index) => {
      const write = { granule, value: values[index]! };
      this.#submitted.add(write);
      this.modifiedMs = this.#world.now;
      await this.#world.steps(8);
      this.#submitted.delete(write);
      this.current[granule] = write.value;
      this.#since.push(write);
      await this.#world.steps(20);
    }));
  }

  async read(granule: number): Promise<number> {
    await this.#world.step();
    const value = this.current[granule]!;
    await this.#world.step();
    return value;
  }

  async flush(): Promise<void> {
    const before = this.#since.length === 0 ? null : this.#since.at(-1)!;
    await this.#world.steps(200);
    const upTo = before === null ? -1 : this.#since.indexOf(before);
    for (const { granule, value } of this.#since.splice(0, upTo + 1)) this.#durable[granule] = value;
    await this.#world.step();
  }

  after(cut: Cut): void {
    const { random } = this.#world;
    const survives = random.pick([0, 0.3, 0.5, 0.9, 1]);
    for (const { granule, value } of this.#submitted) if (random.chance(0.5)) this.#since.push({ granule, value });
    this.#submitted.clear();
    if (cut === 'power') for (let granule = 0; granule < GRANULES; granule++) this.current[granule] = this.#durable[granule]!;
    for (const { granule, value } of this.#since) if (cut === 'kill' || random.chance(survives)) this.current[granule] = value;
    // a process that was killed leaves the cache as it is
    if (cut === 'power') {
      this.#since.length = 0;
      for (let granule = 0; granule < GRANULES; granule++) this.#durable[granule] = this.current[granule]!;
    }
  }
}

/** Files of which a cut leaves what was on its way done or not, each sector by itself. */
class SimFiles implements JournalFiles {
  readonly #files = new Map<string, Uint8Array>();
  readonly #pending = new Set<() => void>();
  readonly #notes: { readonly name: string; readonly sector: JournalSector }[] = [];
  readonly #world: World;
  /** Chance of an error. */
  faults = 0;

  constructor(world: World) {
    this.#world = world;
  }

  after(cut: Cut): void {
    for (const effect of this.#pending) if (this.#world.random.chance(0.5)) effect();
    this.#pending.clear();
    if (cut === 'kill') for (const { name, sector } of this.#notes) this.#put(name, sector);
    this.#notes.length = 0;
  }

  async list(): Promise<string[]> { return [...this.#files.keys()]; }

  async read(name: string): Promise<Uint8Array | null> {
    await this.#world.step();
    const file = this.#files.get(name);
    if (file === undefined) return null;
    const seen = Uint8Array.from(file);
    for (const note of this.#notes) if (note.name === name) seen.set(note.sector.bytes, note.sector.index * SECTOR);
    return seen;
  }

  replace(name: string, content: Uint8Array): Promise<void> {
    return this.#change([() => {
      this.#files.set(name, Uint8Array.from(content));
      this.#forgetNotes(name);
    }]);
  }

  remove(name: string): Promise<void> {
    return this.#change([() => {
      this.#files.delete(name);
      this.#forgetNotes(name);
    }]);
  }

  async openSectors(name: string): Promise<SectorFile> {
    await this.#world.step();
    return {
      write: async (sectors) => {
        await this.#change(sectors.map((sector) => () => this.#put(name, sector)));
        if (this.#world.random.chance(this.faults)) throw new Error('the state directory is broken');
      },
      note: (sector) => void this.#notes.push({ name, sector }),
      close: () => this.#world.step(),
    };
  }

  async #change(effects: readonly (() => void)[]): Promise<void> {
    for (const effect of effects) this.#pending.add(effect);
    for (const effect of effects) {
      await this.#world.steps(20);
      if (this.#pending.delete(effect)) effect();
    }
    await this.#world.step();
  }

  #put(name: string, { index, bytes }: JournalSector): void {
    this.#files.get(name)?.set(bytes, index * SECTOR);
  }

  #forgetNotes(name: string): void {
    for (let at = this.#notes.length - 1; at >= 0; at--) if (this.#notes[at]!.name === name) this.#notes.splice(at, 1);
  }
}

/** A bitmap in an image: the old one or the new one. */
class KeptGranules {
  durable = new Set<number>();
  #putting: Set<number> | null = null;
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  async put(granules: Set<number>): Promise<void> {
    this.#putting = granules;
    await this.#world.steps(100);
    this.durable = granules;
    await this.#world.steps(20);
    this.#putting = null;
  }

  after(_cut: Cut): void {
    if (this.#putting !== null && this.#world.random.chance(0.5)) this.durable = this.#putting;
    this.#putting = null;
  }
}

export interface JournalRun {
  readonly cuts: number;
  /** Lives that began with less than everything to copy. */
  readonly resumed: number;
  /** Foreign writes between two lives. */
  readonly foreign: number;
}

export async function runJournal(seed: number): Promise<JournalRun> {
  return new Simulation(new Random(seed)).run();
}

class Simulation {
  readonly #random: Random;
  readonly #world: World;
  readonly #source: CachedDisk;
  readonly #target: CachedDisk;
  readonly #files: SimFiles;
  readonly #record: JobRecord;
  #same: boolean;
  #kept: KeptGranules | null = null;
  #value = 1000;
  #cuts = 0;
  #resumed = 0;
  #foreign = 0;

  constructor(random: Random) {
    this.#random = random;
    this.#world = new World(random);
    this.#source = new CachedDisk(this.#world, (granule) => granule + 1);
    // a copy that begins with nothing to do has to mark all that changes
    this.#same = random.chance(0.6);
    this.#target = new CachedDisk(this.#world, (granule) => (this.#same ? granule + 1 : 0));
    this.#files = new SimFiles(this.#world);
    const end = (nodeName: string): JobEnd => ({ nodeName, shape: '', files: [this.#identity(nodeName)] });
    // what differs may lie in the image of the source
    if (random.chance(0.5)) this.#kept = new KeptGranules(this.#world);
    this.#record = {
      jobId: 'job', type: 'mirror', state: 'running', source: end('source'), target: end('target'),
      options: {}, length: GRANULES * GRANULE, regionBytes: PER_REGION * GRANULE, nonce: random.next32(),
    };
  }

  async run(): Promise<JournalRun> {
    const random = this.#random;
    for (let life = 0; ; life++) {
      const last = life === 4;
      const found = await this.#find();
      this.#check(found);
      if (found?.record.state === 'completed') break;
      if (found?.distrust === null && this.#left(found).size < GRANULES) this.#resumed++;
      this.#files.faults = random.chance(0.1) ? 0.02 : 0;
      const done = await this.#world.run(this.#live(found), last ? Infinity : random.below(random.pick([30, 200, 1500])));
      if (done) break;
      this.#crash();
    }
    const found = await this.#find();
    if (found?.record.state !== 'completed') throw new Error('the job did not complete');
    this.#check(found);
    return { cuts: this.#cuts, resumed: this.#resumed, foreign: this.#foreign };
  }

  #crash(): void {
    const random = this.#random;
    const world = this.#world;
    const cut: Cut = random.chance(0.5) ? 'power' : 'kill';
    this.#cuts++;
    for (const part of [this.#source, this.#target, this.#files, this.#kept]) part?.after(cut);
    world.now += random.below(20);
    if (cut === 'power') {
      world.boot++;
      world.now += 2500;
      world.bootedMs = world.now;
    }
    if (!random.chance(0.15)) return;
    this.#foreign++;
    this.#same = false;
    world.now += 11;
    const disk = random.pick([this.#source, this.#target]);
    disk.current[random.below(GRANULES)] = ++this.#value;
    disk.modifiedMs = world.now;
  }

  /** Looks with a journal of its own, as a process that starts does. */
  async #find(): Promise<FoundJob | null> {
    const foreign = this.#foreign;
    const looking = this.#journal().find((message) => { throw new Error(message); });
    await this.#world.run(looking, Infinity);
    const [found] = await looking;
    if (found !== undefined && foreign > this.#foreign) throw new Error('unreachable');
    return found ?? null;
  }

  #check(found: FoundJob | null): void {
    if (found === null) return;
    const completed = found.record.state === 'completed';
    for (let granule = 0; granule < GRANULES; granule++) {
      const dirty = !completed && this.#left(found).has(granule);
      const [source, target] = [this.#source.current[granule], this.#target.current[granule]];
      // after the completion others may write what they like
      if (completed && found.distrust !== null) continue;
      if (!dirty && source !== target) throw new Error(`granule ${granule} is called equal, and is ${source} and ${target}`);
    }
  }

  /** Granules that a resumed job copies. */
  #left({ dirty, distrust }: FoundJob): Set<number> {
    const left = new Set<number>(distrust === null ? this.#kept?.durable : []);
    for (let granule = 0; granule < GRANULES; granule++) if (dirty.get(Math.floor(granule / PER_REGION))) left.add(granule);
    return left;
  }

  #journal(): JobJournal {
    return new JobJournal({ files: this.#files, clock: this.#world, boot: String(this.#world.boot), bootedMs: this.#world.bootedMs, identify: async (filename) => this.#identity(filename) });
  }

  #identity(filename: string): FileIdentity {
    const { modifiedMs } = filename === 'source' ? this.#source : this.#target;
    return { filename, inode: '1', size: GRANULES * GRANULE, modifiedMs, changedMs: modifiedMs, writable: true };
  }

  /** One life of the job. */
  async #live(found: FoundJob | null): Promise<void> {
    const regions = new BitArray(GRANULES / PER_REGION);
    if (found === null) regions.set(0, this.#same ? 0 : regions.length);
    const dirty = new Set(found === null ? [] : this.#left(found));
    for (const granule of dirty) regions.set(Math.floor(granule / PER_REGION), Math.floor(granule / PER_REGION) + 1);
    if (found === null) for (let granule = 0; granule < GRANULES; granule++) if (regions.get(Math.floor(granule / PER_REGION))) dirty.add(granule);
    if (found === null) this.#kept?.durable.clear();
    const job = await this.#journal().begin(this.#record, regions);
    const claims = new RangeLock();
    let guests = 3;
    const equal = (offset: number, bytes: number): boolean => {
      for (let granule = offset / GRANULE; granule < (offset + bytes) / GRANULE; granule++) if (dirty.has(granule)) return false;
      return claims.freeUntil(offset, offset + bytes) === offset + bytes;
    };
    const flush = async (): Promise<void> => { await Promise.all([this.#source.flush(), this.#target.flush()]); };
    const guestLife = async (): Promise<void> => {
      for (let left = this.#random.below(30); left > 0; left--) await this.#guestWrite(job, dirty, claims);
      guests--;
    };
    const copierLife = async (): Promise<void> => {
      while (guests > 0 || dirty.size > 0) {
        if (dirty.size > 0) await this.#copy(job, dirty, claims);
        else await this.#world.sleep(20);
      }
    };
    const checkpoints = async (): Promise<void> => {
      while (guests > 0 || dirty.size > 0) {
        await this.#world.sleep(this.#random.below(this.#random.pick([3, 100])));
        await job.intent.checkpoint(this.#kept === null ? { isCovered: equal, flush } : this.#inBitmap(this.#kept, job, dirty, claims, flush));
      }
    };
    await Promise.all([guestLife(), guestLife(), guestLife(), copierLife(), copierLife(), checkpoints()]);
    await flush();
    await job.complete();
  }

  #inBitmap(kept: KeptGranules, { intent }: RunningJob, dirty: ReadonlySet<number>, claims: RangeLock, flush: () => Promise<void>): CheckpointJob {
    return {
      always: true,
      isCovered: () => true,
      flush: async () => {
        const differing = new Set(dirty);
        for (const { start, end } of claims.held) for (let granule = start / GRANULE; granule < end / GRANULE; granule++) differing.add(granule);
        await flush();
        const ready = intent.begin(0, 0);
        if (ready !== null) await ready;
        this.#source.modifiedMs = this.#world.now;
        await kept.put(differing);
        intent.ended(0, 0);
      },
    };
  }

  async #guestWrite({ intent }: RunningJob, dirty: Set<number>, claims: RangeLock): Promise<void> {
    const random = this.#random;
    await this.#world.sleep(random.below(30));
    const first = random.below(GRANULES);
    const granules = Array.from({ length: Math.min(GRANULES - first, 1 + random.below(3)) }, (_, index) => first + index);
    const values = granules.map(() => ++this.#value);
    const range = [first * GRANULE, granules.length * GRANULE] as const;
    const ready = intent.begin(...range);
    if (ready !== null) await ready;
    const hold = random.chance(0.3) ? await claims.acquire(range[0], range[0] + range[1]) : null;
    await this.#source.write(granules, values);
    if (hold === null) {
      for (const granule of granules) dirty.add(granule);
    } else {
      // in the order in which the source took them, as the real one's writes have: read it again
      for (const granule of granules) dirty.delete(granule);
      await this.#target.write(granules, granules.map((granule) => this.#source.current[granule]!));
      claims.release(hold);
    }
    intent.ended(...range);
  }

  async #copy({ intent }: RunningJob, dirty: Set<number>, claims: RangeLock): Promise<void> {
    const granule = this.#random.pick([...dirty]);
    const hold = await claims.acquire(granule * GRANULE, (granule + 1) * GRANULE);
    if (dirty.delete(granule)) {
      const ready = intent.begin(0, 0);
      if (ready !== null) await ready;
      const value = await this.#source.read(granule);
      await this.#target.write([granule], [value]);
    }
    claims.release(hold);
  }
}
