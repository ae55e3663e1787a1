/**
 * Random guests, faults, pauses, limits, changes of mode, drained sections and ends against one job of a kind, all from a
 * seed and in virtual time. What it promises is checked when it ends, whatever end it comes to: guests read what they
 * wrote, copies are equal byte for byte, backups show their instant, and nothing of the job is left.
 */
import {
  addBitmap, startActiveCommit, startBackup, startCommit, startMirror, startStream, type BlockJob, type BlockNode, type Mirror, type OnError,
} from '../../src/index.js';
import type { CopyMode } from '../../src/job/mirror/state.js';
import { turn } from './job-lab.js';
import { ModelGuests } from './model-guests.js';
import { contentOf, ModelWorld, type ModelDisk } from './model-world.js';

export type ModelKind = 'mirror' | 'active commit' | 'commit' | 'stream' | 'backup';
export const MODEL_KINDS: readonly ModelKind[] = ['mirror', 'active commit', 'commit', 'stream', 'backup'];

export type ModelEnd = 'completed' | 'kept up to the end' | 'cancelled' | 'failed';

interface Scene {
  /** What guests write to, and what the disk holds when they begin. */
  readonly source: ModelDisk;
  readonly disk: Buffer;
  /** Guests have nothing to do with the target before the end. */
  readonly apart?: boolean;
  start(guests: ModelGuests): Promise<{ readonly blockJob: BlockJob; readonly mirror?: Mirror }>;
  /** All is copied, and the source stands still. */
  inspect?(): Promise<void>;
  /** The job is over; guests go on. */
  ended(end: ModelEnd, guests: ModelGuests): Promise<void>;
  /** The image that holds the disk then; null where none does by name. */
  holder(end: ModelEnd): string | null;
}

const ON_ERROR: readonly OnError[] = ['report', 'ignore', 'stop', 'enospc', 'auto'];
const COPY_MODES: readonly (CopyMode | 'auto')[] = ['background', 'write-blocking', 'auto'];
const KiB = 1024;

function common({ random }: ModelWorld) {
  return { speed: random.pick([0, 0, 0, 1, 500_000, 20_000_000]), autoFinalize: random.chance(0.4) };
}

function equal(what: string, found: Buffer, wanted: Buffer, bytes = wanted.byteLength): void {
  if (found.subarray(0, bytes).equals(wanted.subarray(0, bytes))) return;
  const at = found.subarray(0, bytes).findIndex((byte, index) => byte !== wanted[index]);
  throw new Error(`${what}: byte ${at} of ${bytes} is ${found[at]}, not ${wanted[at]}`);
}

async function makePair(world: ModelWorld): Promise<{ readonly source: ModelDisk; readonly target: ModelDisk }> {
  const { random } = world;
  const format = random.pick(['raw', 'raw', 'qcow2'] as const);
  const targetFormat = format === 'raw' ? random.pick(['raw', 'raw', 'qcow2'] as const) : random.pick(['raw', 'qcow2'] as const);
  const bytes = world.size(format === 'qcow2' || targetFormat === 'qcow2' ? 'qcow2' : 'raw');
  const source = await world.disk('source', { bytes, format });
  const target = await world.disk('target', { bytes, format: targetFormat, discard: random.pick(['ignore', 'unmap'] as const) });
  await world.fill(source, random.below(12));
  return { source, target };
}

async function copyAll(from: BlockNode, to: BlockNode): Promise<void> {
  await to.write(0, await contentOf(from));
}

async function mirrorScene(world: ModelWorld): Promise<Scene> {
  const { random, lab } = world;
  const { source, target } = await makePair(world);
  const sync = random.pick(['full', 'full', 'full', 'top', 'none', 'bitmap', 'incremental'] as const);
  const byBitmap = sync === 'bitmap' || sync === 'incremental';
  const targetIsZero = sync === 'full' && random.chance(0.2);
  if (!targetIsZero) await world.fill(target, random.below(6));
  world.break(source, 'source');
  world.break(target, 'target');
  const both = async (): Promise<void> => equal('the target', await contentOf(target.node), await contentOf(source.node));
  const atEnd: { target: Buffer | null; source: Buffer | null } = { target: null, source: null };
  if (source.format === 'raw' && target.format === 'raw') {
    lab.onStatus = (id, status) => { if (id === 'j' && status === 'waiting') Object.assign(atEnd, { target: target.storage.content(), source: source.storage.content() }); };
  }
  return {
    source, disk: await contentOf(source.node), apart: true, inspect: both, holder: () => null,
    ended: async (end, guests) => {
      if (atEnd.target !== null) equal('the target, at the end', atEnd.target, atEnd.source!);
      if (end === 'completed') return; // the source is nobody's any more
      // no bit was lost, however it ended; and what it sent last does not overtake what comes now
      const options = byBitmap ? { sync: 'incremental', bitmap: 'b' } as const : { sync: 'full' } as const;
      if (byBitmap || random.chance(0.5)) await world.until(guests.hold());
      let instant: Buffer | null = null;
      watchInstant(source.node, (content) => { instant = content; });
      const { job } = await startBackup(lab.graph, lab.jobs, { ...options, jobId: 'k', source: source.node, target: target.node });
      await world.until(job.ended);
      if (job.error !== null) throw new Error(`the backup that followed failed: ${job.error}`);
      equal('the backup that followed', await contentOf(target.node), instant!);
      guests.held = false;
    },
    start: async (guests) => {
      if (sync === 'none' || byBitmap) {
        await world.until(guests.hold());
        await copyAll(source.node, target.node);
        if (byBitmap) await addBitmap(source.node, { name: 'b', granularity: random.pick([512, 4096, 65_536]) });
        guests.held = false;
        for (let left = random.below(60); byBitmap && left > 0; left--) await turn();
        // from here on until the job has begun its own record
        if (sync === 'none') await world.until(guests.hold());
      }
      const options = {
        ...common(world), sync, bitmap: byBitmap ? 'b' : undefined, targetIsZero, verify: sync !== 'top' && sync !== 'none' && random.chance(0.3),
        copyMode: random.pick(COPY_MODES), granularity: random.pick([undefined, 512, 4096, 65_536, 2 ** 20]), bufSize: random.pick([undefined, 64 * KiB, 2 ** 20]),
        operations: random.pick([undefined, 1, 3]), unmap: random.chance(0.7), onSourceError: random.pick(ON_ERROR), onTargetError: random.pick(ON_ERROR),
      };
      lab.seen.push(`${source.format} to ${target.format} ${JSON.stringify(options)}`);
      const mirror = await startMirror(lab.graph, lab.jobs, { ...options, jobId: 'j', source: source.node, target: target.node });
      for (let left = 4; sync === 'none' && left > 0; left--) await turn();
      guests.held = false;
      return { blockJob: mirror.blockJob, mirror };
    },
  };
}

interface ModelChain {
  readonly disks: readonly ModelDisk[];
  readonly disk: Buffer;
}

async function makeChain(world: ModelWorld, count: number): Promise<ModelChain> {
  const disks: ModelDisk[] = [];
  let disk: Buffer = Buffer.alloc(0);
  for (let index = 0; index < count; index++) {
    const made = await world.disk(`n${index}`, { bytes: world.size('qcow2'), format: 'qcow2', below: disks.at(-1) ?? null });
    await world.fill(made, world.random.below(6));
    disks.push(made);
    disk = await contentOf(made.node);
  }
  await world.lab.graph.refresh([disks.at(-1)!.node]);
  return { disks, disk };
}

async function activeCommitScene(world: ModelWorld): Promise<Scene> {
  const { random, lab } = world;
  const { disks, disk } = await makeChain(world, 2 + random.below(3));
  const source = disks.at(-1)!;
  const base = disks[random.below(disks.length - 1)]!;
  const size = disk.byteLength;
  return {
    source, disk, ended: async () => undefined,
    inspect: async () => equal('the base', await contentOf(base.node), await contentOf(source.node), size),
    holder: (end) => (end === 'completed' ? base : source).node.nodeName,
    start: async () => {
      for (const one of disks) if (one !== base) world.break(one, 'source');
      world.break(base, 'target');
      const mirror = await startActiveCommit(lab.graph, lab.jobs, { ...common(world), jobId: 'j', top: source.node, base: base.node, onError: random.pick(ON_ERROR) });
      return { blockJob: mirror.blockJob, mirror };
    },
  };
}

async function commitScene(world: ModelWorld): Promise<Scene> {
  const { random, lab } = world;
  const { disks, disk } = await makeChain(world, 3 + random.below(2));
  const top = 1 + random.below(disks.length - 2);
  const base = disks[random.below(top)]!;
  const source = disks.at(-1)!;
  return {
    source, disk, ended: async () => undefined, holder: () => source.node.nodeName,
    start: async () => {
      for (const one of disks) if (one !== base) world.break(one, 'source');
      world.break(base, 'target');
      return { blockJob: await startCommit(lab.graph, lab.jobs, {
        ...common(world), jobId: 'j', active: source.node, top: disks[top]!.node, base: base.node, backingFile: base.node.nodeName, onError: random.pick(ON_ERROR),
      }) };
    },
  };
}

async function streamScene(world: ModelWorld): Promise<Scene> {
  const { random, lab } = world;
  const { disks, disk } = await makeChain(world, 2 + random.below(3));
  const source = disks.at(-1)!;
  const base = random.chance(0.4) ? null : disks[random.below(disks.length - 1)]!;
  return {
    source, disk, ended: async () => undefined, holder: () => source.node.nodeName,
    start: async () => {
      for (const one of disks) if (one !== source) world.break(one, 'source');
      world.break(source, 'target');
      const backingFile = base?.node.nodeName;
      return { blockJob: await startStream(lab.graph, lab.jobs, { ...common(world), jobId: 'j', node: source.node, base: base?.node ?? null, backingFile, onError: random.pick(ON_ERROR) }) };
    },
  };
}

async function backupScene(world: ModelWorld): Promise<Scene> {
  const { random, lab } = world;
  const { source, target } = await makePair(world);
  let instant: Buffer | null = null;
  const incremental = async (): Promise<void> => {
    const { job } = await startBackup(lab.graph, lab.jobs, { jobId: 'k', source: source.node, target: target.node, sync: 'incremental', bitmap: 'b' });
    await world.until(job.ended);
    if (job.error !== null) throw new Error(`the last backup failed: ${job.error}`);
  };
  return {
    source, disk: await contentOf(source.node), holder: () => null,
    start: async (guests) => {
      await world.until(guests.hold());
      await copyAll(source.node, target.node);
      await addBitmap(source.node, { name: 'b', granularity: random.pick([4096, 65_536, 2 ** 18]) });
      guests.held = false;
      for (let left = random.below(60); left > 0; left--) await turn();
      world.break(source, 'source');
      world.break(target, 'target');
      watchInstant(source.node, (content) => { instant = content; });
      const sync = random.pick(['full', 'top', 'bitmap', 'incremental'] as const);
      const bitmapMode = sync === 'incremental' ? 'on-success' : random.pick(sync === 'bitmap' ? ['on-success', 'never', 'always'] as const : ['on-success', 'always'] as const);
      return { blockJob: await startBackup(lab.graph, lab.jobs, {
        ...common(world), jobId: 'j', source: source.node, target: target.node, sync, bitmap: 'b', bitmapMode, maxWorkers: random.pick([undefined, 1, 4]),
        onSourceError: random.pick(ON_ERROR), onTargetError: random.pick(ON_ERROR),
      }) };
    },
    ended: async (end, guests) => {
      if (end === 'completed') equal('the backup', await contentOf(target.node), instant!);
      await world.until(guests.hold());
      // no bit was lost, however it ended
      await incremental();
      equal('the next backup', await contentOf(target.node), await contentOf(source.node));
      guests.held = false;
    },
  };
}

/** What the node holds at the end of the next drained section; in later ones, reads may fail. */
function watchInstant(node: BlockNode, tell: (content: Buffer) => void): void {
  const drained = node.drained.bind(node);
  node.drained = (section) => {
    node.drained = drained;
    return drained(async () => {
      const result = await section();
      tell(await contentOf(node));
      return result;
    });
  };
}

const SCENES: Readonly<Record<ModelKind, (world: ModelWorld) => Promise<Scene>>> = {
  mirror: mirrorScene, 'active commit': activeCommitScene, commit: commitScene, stream: streamScene, backup: backupScene,
};

/** Throws an error that says what was wrong; the same seed gives the same run. */
export async function runJobModel(kind: ModelKind, seed: number): Promise<ModelEnd> {
  const world = new ModelWorld(seed * 5 + MODEL_KINDS.indexOf(kind));
  let model: JobModel | null = null;
  try {
    model = new JobModel(world, await SCENES[kind](world));
    return await model.run();
  } catch (error) {
    throw new Error(`${kind}, seed ${seed}: ${error instanceof Error ? error.message : String(error)}\n${[...world.lab.seen.slice(0, 3), '…', ...world.lab.seen.slice(-30)].join('\n')}`, { cause: error });
  } finally {
    model?.abandon();
  }
}

class JobModel {
  readonly #world: ModelWorld;
  readonly #scene: Scene;
  readonly #calmAt: number;
  #blockJob!: BlockJob;
  #mirror: Mirror | undefined;
  #guests!: ModelGuests;
  #told: 'nothing' | 'complete' | 'cancel' | 'cancel softly' = 'nothing';

  constructor(world: ModelWorld, scene: Scene) {
    this.#world = world;
    this.#scene = scene;
    this.#calmAt = world.random.below(world.random.pick([20, 200, 600]));
  }

  async run(): Promise<ModelEnd> {
    const { random, lab } = this.#world;
    const { source, disk } = this.#scene;
    const names = lab.graph.nodes().map(({ nodeName }) => nodeName);
    const door = await lab.guest(source.node);
    this.#guests = new ModelGuests(door, disk, random);
    for (let left = random.below(20); left > 0; left--) await turn();
    const started = await this.#world.until(this.#scene.start(this.#guests));
    this.#blockJob = started.blockJob;
    this.#mirror = started.mirror;
    await this.#direct();
    this.#world.mend();
    const end = this.#end();
    await this.#scene.ended(end, this.#guests);
    await this.#world.until(this.#guests.stop());
    await this.#finish(end, names);
    return end;
  }

  /** Whatever still runs after a failure ends by itself. */
  abandon(): void {
    void (this.#guests as ModelGuests | undefined)?.stop().catch(() => undefined);
  }

  #end(): ModelEnd {
    const { error, cancelled } = this.#blockJob.job;
    if (cancelled) return 'cancelled';
    if (error === null) return this.#told === 'cancel softly' ? 'kept up to the end' : 'completed';
    if (this.#world.faultsMet === 0) throw new Error(`it failed without a reason: ${error}`);
    return 'failed';
  }

  async #finish(end: ModelEnd, names: readonly string[]): Promise<void> {
    const { lab, faultsMet, faults } = this.#world;
    const { source } = this.#scene;
    const { errors, known } = this.#guests;
    // only the target of a mirror, which nobody looks at before the end, is no guest's concern
    const mayFail = this.#scene.apart === true && end !== 'completed' ? faults.source.met : faultsMet;
    if (errors > 0 && mayFail === 0) throw new Error(`${errors} requests of guests failed`);
    const shown = await this.#world.until(this.#guests.check());
    const left = lab.graph.nodes().map(({ nodeName }) => nodeName);
    if (left.join() !== names.join()) throw new Error(`nodes are left over: ${left.join()} instead of ${names.join()}`);
    if (lab.graph.nodes().some(({ blockers }) => blockers.size > 0)) throw new Error('a node is still called busy');
    const holder = this.#scene.holder(end);
    if (holder !== null) equal('what the images hold', await this.#world.reopened(holder), shown, known);
    else if (source.node.draining) throw new Error('the source is still drained');
  }

  async #direct(): Promise<void> {
    const { random } = this.#world;
    const { job } = this.#blockJob;
    let over = false;
    void job.ended.then(() => { over = true; });
    for (let step = 0; !over; step++) {
      if (step > 30_000) throw new Error(`it does not end: ${job.status}, ${JSON.stringify(this.#blockJob.info())}`);
      await this.#world.step();
      if (step === this.#calmAt) this.#calmDown();
      if (step > this.#calmAt + 400) this.#guests.held = true; // in the background it cannot keep up
      if (random.chance(0.04)) await this.#disturb(step < this.#calmAt);
      if (job.userPaused && random.chance(0.1)) this.#try(() => job.resume());
      if (job.isReady && this.#told === 'nothing' && random.chance(0.05)) this.#tellToEnd();
      if (job.status === 'pending' && !job.autoFinalize) await this.#finalize();
    }
    this.#guests.held = false;
  }

  #calmDown(): void {
    this.#world.mend();
    this.#guests.idleTurns = 20;
    this.#try(() => this.#blockJob.setSpeed(0));
  }

  /** What the job's state does not take is refused. */
  #try(verb: () => void): boolean {
    try {
      verb();
      return true;
    } catch (error) {
      if (!/cannot|Can't|already/.test(String(error))) throw error;
      return false;
    }
  }

  async #disturb(wild: boolean): Promise<void> {
    const { random, lab, faults } = this.#world;
    const { job } = this.#blockJob;
    const kind = random.below(wild ? 10 : 4);
    if (kind === 0) this.#try(() => job.pause());
    else if (kind === 1) this.#mirror?.setCopyMode(random.pick(COPY_MODES));
    else if (kind === 2) {
      const node = random.pick(lab.graph.nodes());
      await this.#world.until(node.drained(async () => { for (let left = random.below(6); left > 0; left--) await turn(); }));
    } else if (kind === 3 && random.chance(0.1)) this.#cancel(true);
    else if (kind < 6) this.#try(() => this.#blockJob.setSpeed(random.pick([0, 0, 1, 300_000, 10_000_000])));
    else if (kind < 8) {
      const broken = random.pick([faults.source, faults.target]);
      broken.chance = random.pick([0, 0, 0.02, 0.1, 0.5]);
      broken.errno = random.pick(['EIO', 'ENOSPC'] as const);
    }
  }

  #cancel(force: boolean): void {
    const before = this.#told;
    this.#told = force ? 'cancel' : 'cancel softly';
    if (!this.#try(() => this.#blockJob.job.cancel(force))) this.#told = before;
  }

  #tellToEnd(): void {
    const { random } = this.#world;
    const kind = random.below(6);
    if (kind === 0) this.#cancel(true);
    else if (kind === 1) this.#cancel(false);
    else if (this.#try(() => this.#blockJob.job.complete())) this.#told = 'complete';
  }

  async #finalize(): Promise<void> {
    this.#world.mend(); // what is read now is read by the test
    await this.#scene.inspect?.();
    if (this.#world.random.chance(0.15)) this.#cancel(true);
    else this.#blockJob.job.finalize();
    await this.#world.until(this.#blockJob.job.ended);
  }
}
