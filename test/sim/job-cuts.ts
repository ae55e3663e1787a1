/**
 * One seed of power cuts during block jobs: guests write and flush while a job works on simulated disks with volatile
 * caches, the power goes at any step, in the change of places too, or in the moment in which the job tells that it is
 * ready or done. What is left must show all that guests flushed, and what the job has told must be true.
 */
import { BlockGraph } from '../../src/block/graph.js';
import type { BlockBackend } from '../../src/block/backend.js';
import type { BlockDriver, BlockLimits, BlockStatus } from '../../src/block/driver.js';
import { BlockNode } from '../../src/block/node.js';
import { Permission } from '../../src/block/permissions.js';
import { makeRequest, RequestFlag, type BlockRequest } from '../../src/block/request.js';
import { Random } from '../../src/base/clock.js';
import { createQcow2 } from '../../src/format/qcow2/create.js';
import { openQcow2 } from '../../src/format/qcow2/qcow2.js';
import { startBackup } from '../../src/job/backup/backup.js';
import { BlockJobs, type BlockJob } from '../../src/job/block-job.js';
import { startCommit } from '../../src/job/commit.js';
import { startActiveCommit } from '../../src/job/commit-active.js';
import { JobTable } from '../../src/job/job-table.js';
import { startMirror } from '../../src/job/mirror/mirror.js';
import { startStream } from '../../src/job/stream.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { KeptOpen } from '../support/image-model.js';
import { readReferences } from '../support/qcow2-references.js';
import { SECTOR_BYTES, SectorHistory, type Write } from '../support/sector-history.js';
import { SimDisk } from '../support/sim-disk.js';
import { fileBytes } from '../support/storage.js';
import { VirtualClock } from '../support/virtual-clock.js';

export type CutKind = 'mirror' | 'active commit' | 'commit' | 'stream' | 'backup';
export const CUT_KINDS: readonly CutKind[] = ['mirror', 'active commit', 'commit', 'stream', 'backup'];
/** The moment in which the power goes. */
type Moment = { readonly name: string; readonly steps: number } | 'never' | 'ready' | 'done';

const KiB = 1024;
const CHAIN = ['base', 'mid', 'top'] as const;
type Files = Readonly<Record<string, Uint8Array>>;

interface World {
  readonly files: Files;
  /** What guests see at first. */
  readonly disk: Uint8Array;
  /** The target is no image, but the disk itself. */
  readonly rawTarget: boolean;
}

async function makeImage(files: Record<string, Uint8Array>, name: string, size: number, below: string | null, random: Random, disk: Uint8Array): Promise<void> {
  const storage = new MemoryDriver();
  const file = new BlockNode({ name, driver: new KeptOpen(storage) });
  await createQcow2(file, { size, clusterSize: 2 ** (11 + random.below(4)), ...below === null ? {} : { backingFile: below, backingFormat: 'qcow2' } });
  const image = new BlockNode({ name, driver: await openQcow2(file) });
  for (let left = below === null ? 3 : random.below(4); left > 0; left--) {
    const unit = 16 * KiB; // whole clusters: it is opened without its backing file
    const offset = random.below(Math.ceil(size / unit)) * unit;
    const data = Buffer.alloc(Math.min((1 + random.below(4)) * unit, size - offset), random.below(256));
    await image.write(offset, data);
    disk.set(data, offset);
  }
  await image.close();
  files[name] = await fileBytes(storage);
}

async function makeWorld(kind: CutKind, random: Random): Promise<World> {
  const files: Record<string, Uint8Array> = {};
  let disk = new Uint8Array(0);
  const pair = kind === 'mirror' || kind === 'backup';
  for (const [index, name] of (pair ? ['top'] : CHAIN).entries()) {
    const size = (6 + random.below(8)) * 16 * KiB;
    const next = new Uint8Array(size);
    next.set(disk.subarray(0, size));
    disk = next;
    await makeImage(files, name, size, index === 0 ? null : CHAIN[index - 1]!, random, disk);
  }
  const rawTarget = pair && random.chance(0.3);
  if (rawTarget) files['target'] = new Uint8Array(disk.byteLength);
  else if (pair) await makeImage(files, 'target', disk.byteLength, null, random, new Uint8Array(disk.byteLength));
  return { files, disk, rawTarget };
}

/** Writes in sectors of its own, and flushes. */
class CutGuest {
  readonly history: SectorHistory;
  flushes = 0;
  #tick = 0;
  #stopped = false;
  readonly #door: BlockBackend;
  readonly #random: Random;

  constructor(door: BlockBackend, disk: Uint8Array, random: Random) {
    this.#door = door;
    this.#random = random;
    this.history = new SectorHistory(disk);
  }

  run(workers: number): Promise<void> {
    return Promise.all(Array.from({ length: workers }, (_, index) => this.#work(index, workers))).then(() => undefined);
  }

  stop(): void { this.#stopped = true; }

  async #work(index: number, workers: number): Promise<void> {
    const share = Math.floor(this.history.length / SECTOR_BYTES / workers);
    while (!this.#stopped) {
      const sector = index * share + this.#random.below(share);
      await this.#one(sector, 1 + this.#random.below(Math.min(40, (index + 1) * share - sector)));
      for (let left = this.#random.below(12); left > 0 && !this.#stopped; left--) await turn();
    }
  }

  async #one(sector: number, count: number): Promise<void> {
    const random = this.#random;
    if (random.chance(0.2)) {
      const submitted = ++this.#tick;
      await this.#door.submit(makeRequest('flush', 0, 0, null));
      this.history.flush(submitted);
      this.flushes++;
      return;
    }
    const write: Write = { completedAt: Infinity };
    const [offset, bytes] = [sector * SECTOR_BYTES, count * SECTOR_BYTES];
    if (random.chance(0.25)) {
      this.history.zero(write, offset, bytes);
      await this.#door.submit(makeRequest('write-zeroes', offset, bytes, null, random.chance(0.5) ? RequestFlag.MAY_UNMAP : 0));
    } else {
      const data = Buffer.alloc(bytes);
      random.fill(data);
      this.history.write(write, offset, data);
      await this.#door.submit(makeRequest('write', offset, bytes, data));
    }
    write.completedAt = ++this.#tick;
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => { setImmediate(resolve); });
}

async function turns(count: number): Promise<void> {
  for (; count > 0; count--) await turn();
}

interface Left {
  readonly files: Files;
  readonly steps: Readonly<Record<string, number>>;
  readonly history: SectorHistory;
  /** The image that guests wrote to when the power went. */
  readonly holder: string;
  readonly told: readonly string[];
  readonly cut: boolean;
  readonly error: string | null;
  /** What a backup promises. */
  readonly instant: Uint8Array | null;
  readonly flushes: number;
}

class CutRun {
  readonly #kind: CutKind;
  readonly #world: World;
  readonly #random: Random;
  readonly #disks: Readonly<Record<string, SimDisk>>;
  readonly #graph = new BlockGraph({ randomBelow: () => 0 });
  readonly #clock = new VirtualClock();
  readonly #told: string[] = [];
  readonly #moment: Moment;
  #dead = false;
  #instant: Uint8Array | null = null;

  constructor(kind: CutKind, world: World, seed: number, moment: Moment) {
    this.#kind = kind;
    this.#world = world;
    this.#random = new Random(seed);
    this.#moment = moment;
    this.#disks = Object.fromEntries(Object.entries(world.files).map(([name, content]) => [name, new SimDisk({
      random: new Random(this.#random.next32()), content, ...typeof moment === 'object' && moment.name === name ? { cutAfter: moment.steps } : {},
    })]));
  }

  async run(): Promise<Left> {
    const random = this.#random;
    const quiet = typeof this.#moment === 'string' && this.#moment !== 'never' && this.#kind !== 'backup';
    const door = await this.#pump(this.#openAll());
    if (door === null) return this.#left(null, null, null);
    const guest = new CutGuest(door, this.#world.disk, random);
    const working = quiet ? Promise.resolve() : guest.run(2);
    // something has been flushed, mostly
    const begun = await this.#pump(turns(quiet ? 0 : random.below(400)));
    const job = begun === null ? null : await this.#pump(this.#start());
    const steered = job === null ? null : await this.#pump(this.#steer(job, guest));
    guest.stop();
    if (steered === null || await this.#pump(working) === null) return this.#left(door, guest, job);
    const left = this.#left(door, guest, job);
    return { ...left, cut: false, files: await this.#closed() };
  }

  /** Null where the power went first. */
  async #pump<T>(work: Promise<T>): Promise<T | null> {
    let over = false;
    const end = (): void => { over = true; };
    work.then(end, end);
    const cuts = Object.values(this.#disks).map(({ powerCut }) => powerCut.then(() => this.#cut()));
    void cuts;
    for (let passed = 0; !over && !this.#dead; passed++) {
      if (passed > 30_000) throw new Error('it does not end');
      await turn();
      if (passed % 8 === 7) await this.#clock.advance(10);
    }
    return this.#dead ? null : work;
  }

  #cut(): void {
    this.#dead = true;
    for (const disk of Object.values(this.#disks)) disk.kill();
  }

  async #openAll(): Promise<BlockBackend> {
    const top = await this.#open('top');
    if (this.#disks['target'] !== undefined) await this.#open('target');
    await this.#graph.refresh([top]);
    return this.#graph.attach(top, { used: Permission.CONSISTENT_READ | Permission.WRITE, shared: Permission.ALL & ~Permission.RESIZE });
  }

  async #open(name: string): Promise<BlockNode> {
    const graph = this.#graph;
    const disk = this.#disks[name]!;
    if (name === 'target' && this.#world.rawTarget) return this.#adopt(name, new FixedDisk(disk, this.#world.disk.byteLength));
    const file = this.#adopt(`${name}-file`, disk);
    const node = this.#adopt(name, await openQcow2(file, { openBacking: (below) => this.#open(below) }));
    await graph.refresh([node]);
    return node;
  }

  #adopt(nodeName: string, driver: BlockDriver): BlockNode {
    const node = new BlockNode({ name: nodeName, nodeName: this.#graph.takeName(nodeName), driver, pinned: true });
    this.#graph.add(node);
    return node;
  }

  async #start(): Promise<BlockJob> {
    const graph = this.#graph;
    const node = (name: string): BlockNode => graph.get(name);
    const jobs = new BlockJobs(new JobTable(() => undefined), { emit: (event) => this.#tell(event) }, this.#clock);
    const copyMode = this.#random.pick(['background', 'write-blocking'] as const);
    switch (this.#kind) {
      case 'mirror':
        return (await startMirror(graph, jobs, { jobId: 'j', source: node('top'), target: node('target'), sync: 'full', copyMode, granularity: this.#random.pick([512, 4096, undefined]) })).blockJob;
      case 'active commit':
        return (await startActiveCommit(graph, jobs, { jobId: 'j', top: node('top'), base: node(this.#random.pick(['base', 'mid'])) })).blockJob;
      case 'commit':
        return startCommit(graph, jobs, { jobId: 'j', active: node('top'), top: node('mid'), base: node('base'), backingFile: 'base' });
      case 'stream': {
        const base = this.#random.chance(0.5) ? node('base') : null;
        return startStream(graph, jobs, { jobId: 'j', node: node('top'), base, backingFile: base === null ? undefined : 'base' });
      }
      case 'backup':
        watchInstant(node('top'), (content) => { this.#instant ??= content; });
        return startBackup(graph, jobs, { jobId: 'j', source: node('top'), target: node('target'), sync: 'full' });
    }
  }

  #tell(event: string): void {
    this.#told.push(event);
    const wanted = this.#moment === 'ready' ? 'BLOCK_JOB_READY' : 'BLOCK_JOB_COMPLETED';
    if (event === wanted && (this.#moment === 'ready' || this.#moment === 'done')) this.#cut();
  }

  async #steer({ job }: BlockJob, guest: CutGuest): Promise<void> {
    let over = false;
    void job.ended.then(() => { over = true; });
    for (let passed = 0; !over && !this.#dead; passed++) {
      await turn();
      if (passed === 1500) guest.stop(); // in the background nobody keeps up with it
      if (!job.isReady || job.cancelRequested) continue;
      await turns(this.#random.below(60));
      if (job.isReady) job.complete();
      while (!over && !this.#dead) await turn();
    }
    await turns(this.#random.below(60));
  }

  #left(door: BlockBackend | null, guest: CutGuest | null, blockJob: BlockJob | null): Left {
    // below the filters of jobs
    let holder = door?.node;
    while (holder?.driver.kind === 'filter') holder = holder.children[0]!.node;
    const files = Object.fromEntries(Object.entries(this.#disks).map(([name, disk]) => [name, disk.survivors(this.#random)]));
    const steps = Object.fromEntries(Object.entries(this.#disks).map(([name, disk]) => [name, disk.steps]));
    return {
      files, steps, history: guest?.history ?? new SectorHistory(this.#world.disk), holder: holder?.nodeName ?? 'top', told: this.#told, cut: true,
      error: blockJob?.job.error ?? null, instant: this.#instant, flushes: guest?.flushes ?? 0,
    };
  }

  async #closed(): Promise<Files> {
    await this.#pump(this.#graph.closeAll());
    return Object.fromEntries(Object.entries(this.#disks).map(([name, disk]) => [name, disk.content()]));
  }
}

/** A disk that is a device: it does not grow. */
class FixedDisk implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName = 'memory';
  readonly growable = false;
  readonly #disk: SimDisk;
  readonly #bytes: number;

  constructor(disk: SimDisk, bytes: number) {
    this.#disk = disk;
    this.#bytes = bytes;
  }

  get limits(): BlockLimits { return this.#disk.limits; }
  length(): number { return this.#bytes; }
  submit(request: BlockRequest): Promise<void> { return this.#disk.submit(request); }
  blockStatus(offset: number, bytes: number): Promise<BlockStatus> { return this.#disk.blockStatus(offset, bytes); }
  async close(): Promise<void> {}
}

function watchInstant(node: BlockNode, tell: (content: Uint8Array) => void): void {
  const drained = node.drained.bind(node);
  node.drained = (section) => drained(async () => {
    const result = await section();
    const content = new Uint8Array(node.length());
    await node.driver.submit(makeRequest('read', 0, content.byteLength, content));
    tell(content);
    return result;
  });
}

/** What an image shows, through the chain that its header names, each sound. */
async function shown(files: Files, name: string, used: string[] = []): Promise<Uint8Array> {
  const open = async (image: string): Promise<BlockNode> => {
    used.push(image);
    const { problems } = readReferences(files[image]!);
    if (problems.length > 0) throw new Error(`'${image}': ${problems.slice(0, 5).join('; ')}`);
    const file = new BlockNode({ name: image, driver: new SimDisk({ random: new Random(1), content: files[image]! }) });
    return new BlockNode({ name: image, driver: await openQcow2(file, { openBacking: open }) });
  };
  const node = await open(name);
  const content = new Uint8Array(node.length());
  await node.read(0, content);
  return content;
}

function expectAllowed(found: Uint8Array, history: SectorHistory, what: string): void {
  if (found.byteLength < history.length) throw new Error(`${what} has ${found.byteLength} bytes instead of ${history.length}`);
  for (let sector = 0; sector * SECTOR_BYTES < history.length; sector++) {
    const bytes = found.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
    if (!history.allows(sector, bytes)) throw new Error(`${what}: sector ${sector} holds none of its ${history.versions(sector).length + 1} possible versions, but ${bytes.subarray(0, 4).join(' ')} …`);
  }
}

function expectEqual(found: Uint8Array, wanted: Uint8Array, what: string): void {
  const at = wanted.findIndex((byte, index) => byte !== found[index]);
  if (at >= 0) throw new Error(`${what} differs at byte ${at}: ${found[at]} instead of ${wanted[at]}`);
}

async function judge(kind: CutKind, world: World, left: Left, moment: Moment): Promise<void> {
  if (left.error !== null) throw new Error(`the job failed: ${left.error}`);
  const of = (name: string): Promise<Uint8Array> => (name === 'target' && world.rawTarget ? Promise.resolve(left.files['target']!) : shown(left.files, name));
  // each image can be read, whether or not it is anybody's now
  const contents = new Map<string, Uint8Array>();
  for (const name of Object.keys(world.files)) contents.set(name, await of(name));
  expectAllowed(contents.get(left.holder)!, left.history, `'${left.holder}'`);
  if (moment === 'never') expectEqual(contents.get(left.holder)!, left.history.current, 'the disk at the end');
  const done = left.told.includes('BLOCK_JOB_COMPLETED');
  if (kind === 'backup' && done) expectEqual(contents.get('target')!, left.instant!, 'the finished backup');
  if (moment !== 'ready' && moment !== 'done') return;
  // nobody wrote: what was told lasts
  const copy = kind === 'mirror' ? 'target' : kind === 'active commit' ? null : 'top';
  if (copy !== null && kind !== 'backup') expectEqual(contents.get(copy)!, world.disk, `'${copy}', when the job was ${moment}`);
  if (kind !== 'commit' && kind !== 'stream') return;
  const used: string[] = [];
  await shown(left.files, 'top', used);
  if (used.includes('mid')) throw new Error(`the chain still names ${used.join()} when the job was done`);
}

export interface CutResult {
  readonly cut: boolean;
  readonly pivoted: boolean;
  readonly flushes: number;
}

/** Throws an error that names the seed and the moment. */
export async function runJobCut(kind: CutKind, seed: number): Promise<CutResult> {
  const random = new Random(seed * 7 + CUT_KINDS.indexOf(kind));
  const world = await makeWorld(kind, random);
  const again = random.next32();
  const attempt = async (moment: Moment): Promise<Left> => {
    try {
      const left = await new CutRun(kind, world, again, moment).run();
      await judge(kind, world, left, moment);
      return left;
    } catch (error) {
      throw new Error(`${kind}, seed ${seed}, cut ${typeof moment === 'string' ? moment : `after ${moment.steps} steps of '${moment.name}'`}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
  };
  const whole = await attempt('never');
  const name = random.pick(Object.keys(world.files).filter((one) => whole.steps[one]! > 0));
  const steps = whole.steps[name]!;
  // late cuts meet the change of places
  const moment: Moment = random.chance(0.15) ? (kind === 'mirror' && random.chance(0.5) ? 'ready' : 'done')
    : { name, steps: random.chance(0.4) ? Math.max(0, steps - random.below(80)) : random.below(steps) };
  const left = await attempt(moment);
  return { cut: left.cut, pivoted: left.holder !== 'top', flushes: left.flushes };
}
