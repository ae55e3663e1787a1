/** Starts mirrors: the checks, the filter over the source, the job, and the change of places at the end. */
import { alignUp, MiB } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import { defaultGranularity } from '../../block/bitmap-verbs.js';
import type { BlockBackend } from '../../block/backend.js';
import { DirtyBitmap } from '../../block/dirty-bitmap.js';
import type { BlockGraph } from '../../block/graph.js';
import { BlockNode } from '../../block/node.js';
import { LatencyMeter } from '../../block/latency.js';
import { NO_USE, Permission, type EdgeUse, type NodeUser } from '../../block/permissions.js';
import { RequestFlag } from '../../block/request.js';
import { writeOutEarly } from '../../block/write-out.js';
import { InterceptFilter } from '../../filter/intercept.js';
import { WriteGate } from '../../filter/write-gate.js';
import { freezeChain, nodeBelow, skipFilters } from '../../image/chain.js';
import { nodeFilename } from '../../image/filename.js';
import { backingEdit, insertFilter, linksTo } from '../../image/graph-edit.js';
import type { BlockJob, BlockJobs, OnError } from '../block-job.js';
import type { JobContext, JobWork } from '../job.js';
import type { JobTransaction } from '../job-transaction.js';
import type { JournaledJob } from '../journal/journaled-job.js';
import { ActiveWrites } from './active-writes.js';
import { begin, zeroesCheaply, type MirrorSync } from './begin.js';
import type { ControllerOptions } from './controller.js';
import { checkMirror, refuseFilterOnChain, shows } from './checks.js';
import { Copier, type CopierLimits } from './copier.js';
import { differentSizes, drainAll, MirrorEngine } from './engine.js';
import { MirrorPilot, phaseData, type Convergence } from './pilot.js';
import { SourceMap } from './source-map.js';
import { MirrorState, type CopyMode } from './state.js';
import { MirrorTarget } from './target.js';
import { MirrorVerifier } from './verify.js';
import { WantedBitmap } from './wanted-bitmap.js';

export interface MirrorOptions {
  readonly jobId: string;
  readonly source: BlockNode;
  readonly target: BlockNode;
  readonly sync: MirrorSync;
  /**
   * With the sync modes `bitmap` and `incremental`: the name of a bitmap of the source, which nobody else can change
   * meanwhile. `incremental` clears it in the moment in which both disks are equal; a job that fails leaves all its bits.
   */
  readonly bitmap?: string | undefined;
  /** `commit`: the target is a node of the source's own backing chain; it is grown where it is smaller. Default `mirror`. */
  readonly kind?: 'mirror' | 'commit' | undefined;
  /** The node whose users get the target at the end. Default: the source. */
  readonly replaces?: string | undefined;
  /** Bytes per second; 0 = no limit. */
  readonly speed?: number | undefined;
  /** A power of two, 512 … 64 MiB. Default: the target's cluster size within 4 … 64 KiB. */
  readonly granularity?: number | undefined;
  /** Memory for what is in flight. Default 16 MiB. */
  readonly bufSize?: number | undefined;
  /** Background operations in flight. Default 16. */
  readonly operations?: number | undefined;
  readonly onSourceError?: OnError | undefined;
  readonly onTargetError?: OnError | undefined;
  /** Zeros may be deallocated in the target. Default true. */
  readonly unmap?: boolean | undefined;
  /** The target reads as zeros all over, so that zeros need not be written. */
  readonly targetIsZero?: boolean | undefined;
  readonly filterNodeName?: string | undefined;
  /** Default `background`. `auto` changes it as it needs to, and slows guests down where that alone does not do. */
  readonly copyMode?: CopyMode | 'auto' | undefined;
  /** Both disks are compared before the target takes the source's place, or the job ends; where they differ, it fails and tells where first. With the sync modes that copy all. */
  readonly verify?: boolean | undefined;
  /** For the copy mode `auto`. */
  readonly convergence?: ControllerOptions | undefined;
  /** Does not wait to be completed. */
  readonly autoComplete?: boolean | undefined;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
  readonly transaction?: JobTransaction | undefined;
  /** Survives the end of the process: by `startJournaledMirror`. */
  readonly journal?: JournaledJob | undefined;
  /** The node that is to lie below the target from the moment in which that takes the source's place; null: none does. */
  readonly backingAtEnd?: (() => Promise<BlockNode | null>) | undefined;
}

/** A running mirror, for those who steer it. */
export interface Mirror {
  readonly blockJob: BlockJob;
  readonly filter: BlockNode;
  /** The present one: never `auto`. */
  readonly copyMode: CopyMode;
  /** How it is getting on in copy mode `auto`; null in the others, and before it has begun. */
  readonly convergence: Convergence | null;
  /** All ways, at once; requests under way go where it was decided before, but nobody waits for the target any more in `background`. */
  setCopyMode(mode: CopyMode | 'auto'): void;
  /** Users who wait for the target are answered now; what they wrote is copied later. */
  letGuestsGo(): void;
  /** Bytes per second that users may write; Infinity = no limit. */
  limitGuest(bytesPerSecond: number): void;
  /** How much the background may have in flight, from the next operation on. */
  limitBackground(limits: Partial<CopierLimits>): void;
  figures(): MirrorFigures;
  /** Slowest write of a user since the last call, milliseconds; only writes that went to the target too are measured. */
  takeGuestLatencyMs(): number;
  /** Slowest request to the target since the last call, milliseconds. */
  takeTargetLatencyMs(): number;
}

export interface MirrorFigures {
  /** Bytes of the source. */
  readonly length: number;
  /** Bytes that differ or are on their way. */
  readonly dirty: number;
  /** Bytes in flight, in the background and by users' writes. */
  readonly inFlight: number;
  /** Bytes that the target took. */
  readonly written: number;
  /** Clean bytes that users made dirty, and bytes that they wrote through to the target. */
  readonly dirtied: number;
  /** Milliseconds for which the oldest request to the target has been under way. */
  readonly targetSilentMs: number;
  readonly activelySynced: boolean;
  /** 99 of 100 writes of users took no longer than so many milliseconds, lately; null where there were none. */
  readonly guestP99Ms: number | null;
  /** Bytes that are still to be compared; null where that has not begun. */
  readonly unverified: number | null;
}

const DEFAULT_BUF_SIZE = 16 * MiB;
const DEFAULT_OPERATIONS = 16;

const mirrors = new WeakMap<BlockJob, Mirror>();

/** The mirror that a job is, if it is one. */
export function mirrorOf(blockJob: BlockJob): Mirror | undefined {
  return mirrors.get(blockJob);
}

/** Refuses as QEMU does, in its words. */
export async function startMirror(graph: BlockGraph, jobs: BlockJobs, options: MirrorOptions): Promise<Mirror> {
  checkMirror(graph, options);
  const run = await MirrorRun.create(graph, jobs, options);
  mirrors.set(run.blockJob, run);
  run.blockJob.job.start();
  return run;
}

class MirrorRun implements Mirror, JobWork {
  readonly completable = true;
  readonly abortsAtOnce = true;
  readonly filter: BlockNode;
  blockJob!: BlockJob;
  readonly #graph: BlockGraph;
  readonly #options: MirrorOptions;
  readonly #driver: InterceptFilter;
  readonly #gate: WriteGate;
  readonly #latency: LatencyMeter;
  #door: BlockBackend | null = null;
  #state!: MirrorState;
  #active!: ActiveWrites;
  #engine: MirrorEngine | null = null;
  #verifier: MirrorVerifier | undefined;
  #pilot: MirrorPilot | null = null;
  /** Users' writes come through the job. */
  #begun = false;
  #auto = false;
  #toReplace: BlockNode | null = null;
  #thaw: () => void = () => undefined;
  #wanted: WantedBitmap | null = null;
  #left = false;

  private constructor(graph: BlockGraph, jobs: BlockJobs, options: MirrorOptions) {
    const { source, kind = 'mirror' } = options;
    this.#graph = graph;
    this.#options = options;
    const nodeName = graph.takeName(options.filterNodeName);
    this.#gate = new WriteGate(jobs.clock);
    this.#latency = new LatencyMeter(jobs.clock);
    this.#driver = new InterceptFilter({
      child: source, formatName: 'mirror_top', gate: this.#gate, latency: this.#latency, cost: (request) => this.#state.costOf(request),
      childUse: kind === 'commit' ? commitUse : undefined,
    });
    this.filter = new BlockNode({ name: source.name, nodeName, driver: this.#driver, origin: { strong: {}, get plainName() { return nodeFilename(source); } } });
    graph.add(this.filter);
  }

  static async create(graph: BlockGraph, jobs: BlockJobs, options: MirrorOptions): Promise<MirrorRun> {
    const { source } = options;
    const run = new MirrorRun(graph, jobs, options);
    try {
      await source.drained(async () => {
        await insertFilter(graph, source, run.filter);
        options.journal?.guard(source, options.target);
      });
    } catch (error) {
      await run.filter.close();
      throw error;
    }
    try {
      await run.#takeNodes(jobs);
    } catch (error) {
      await run.#leave(false);
      throw error;
    }
    return run;
  }

  async #takeNodes(jobs: BlockJobs): Promise<void> {
    const graph = this.#graph;
    const { jobId, source, target, kind = 'mirror', speed, autoFinalize, autoDismiss, transaction } = this.#options;
    const blockJob = jobs.create({ id: jobId, type: kind, speed, autoFinalize, autoDismiss, transaction }, () => this);
    this.blockJob = blockJob;
    try {
      await blockJob.addNode(graph, 'main node', this.filter, { used: Permission.CONSISTENT_READ, shared: READ_AND_WRITES });
      if (kind === 'mirror') refuseFilterOnChain(source, target);
      this.#door = await graph.attach(target, targetUse(this.#options));
      this.#door.task = this.#driver.file.task = blockJob.task;
      this.#setUp(this.#door);
      source.bitmaps.anonymous.add(this.#state.bitmap);
      source.writeObservers.add(this.#state);
      this.#wanted?.freeze();
      if (this.#verifier !== undefined) source.writeObservers.add(this.#verifier);
      await blockJob.addNode(graph, 'source', source, { used: 0, shared: READ_AND_WRITES });
      await blockJob.addNode(graph, 'target', target, { used: 0, shared: Permission.ALL });
      if (kind === 'commit') await this.#holdIntermediates();
    } catch (error) {
      blockJob.job.failEarly();
      throw error;
    }
  }

  /** What lies between the source and the base: nobody needs it to be whole, but for filters of the base. */
  async #holdIntermediates(): Promise<void> {
    const { source, target } = this.#options;
    for (let node = nodeBelow(source); node !== null && node !== target; node = nodeBelow(node)) {
      const whole = skipFilters(node) === target ? Permission.CONSISTENT_READ : 0;
      await this.blockJob.addNode(this.#graph, 'intermediate node', node, { used: 0, shared: Permission.WRITE_UNCHANGED | Permission.WRITE | whole });
    }
    this.#thaw = freezeChain(this.filter, target);
  }

  #setUp(door: BlockBackend): void {
    const { source, target, sync, copyMode = 'background', unmap = true, targetIsZero = false } = this.#options;
    const { granularity, wholeGranules } = granularityOf(this.#options);
    const edge = this.#driver.file;
    const settled = (): Promise<BlockNode> => edge.settled();
    this.#state = new MirrorState({
      source: edge, target: this.#makeTarget(door, granularity), map: new SourceMap(settled), blockJob: this.blockJob, wholeGranules,
      zeroFlags: sync !== 'full' || namesBacking(target) ? RequestFlag.OWN_ZEROES : 0,
      bitmap: new DirtyBitmap({ name: '', granularity, size: source.length() }),
      onSourceError: this.#options.onSourceError ?? 'report', onTargetError: this.#options.onTargetError ?? 'report',
    });
    this.#active = new ActiveWrites(this.#state);
    const copier = new Copier(this.#state, {
      bufferBytes: alignUp(this.#options.bufSize || DEFAULT_BUF_SIZE, granularity), operations: this.#options.operations ?? DEFAULT_OPERATIONS,
      unmap, cheapZeroes: zeroesCheaply(target), targetUnit: clusterSizeOf(target),
    });
    // what an interrupted one left to do is in its journal
    this.#wanted = this.#options.journal?.resumed === true ? null : WantedBitmap.of(this.#options);
    const base = this.#options.kind === 'commit' ? target : null;
    if (this.#options.verify === true) this.#verifier = new MirrorVerifier(this.#state, copier.limits);
    this.#engine = new MirrorEngine(this.#state, copier, {
      drained: [this.filter, source], verifier: this.#verifier,
      begin: async (context) => this.#options.journal?.mark(this.#state.bitmap) === true ? undefined : begin(this.#state, settled, { sync, targetIsZero, wanted: this.#wanted?.bitmap ?? null, base }, context),
      onFlushed: () => this.#options.journal?.checkpointSoon(),
      onBegun: () => {
        this.#driver.intercept = this.#active.intercept;
        this.#options.journal?.begun(this.#state, this.blockJob.clock);
        this.#begun = true;
        if (this.#auto) this.#pilot!.start();
      },
    });
    this.#pilot = new MirrorPilot({
      state: this.#state, copier, active: this.#active, gate: this.#gate, setCopyMode: (mode) => this.#takeCopyMode(mode), onPhase: (now) => this.blockJob.tell('BLOCK_JOB_PHASE', phaseData(this.blockJob.job.id, now)),
    }, this.#options.convergence ?? {});
    this.setCopyMode(copyMode);
    if (this.#options.autoComplete === true) this.#engine.complete();
  }

  #makeTarget(door: BlockBackend, granularity: number): MirrorTarget {
    const { source } = this.#options;
    return new MirrorTarget({
      door, clock: this.blockJob.clock, granularity, size: source.length(),
      onLost: (lost) => this.#state.lost(lost), onBroken: (error) => this.#state.fail(error),
    });
  }

  get copyMode(): CopyMode { return this.#state.copyMode; }

  get convergence(): Convergence | null { return this.#pilot!.convergence; }

  setCopyMode(mode: CopyMode | 'auto'): void {
    this.#auto = mode === 'auto';
    this.#state.givesWay = mode === 'write-blocking';
    if (mode !== 'auto') {
      this.#pilot!.stop();
      this.#takeCopyMode(mode);
      if (mode === 'background') this.#active.letGo();
    } else if (this.#begun) {
      this.#pilot!.start();
    }
  }

  #takeCopyMode(mode: CopyMode): void {
    this.#state.copyMode = mode;
    this.#state.bitmap.enabled = mode === 'background';
    if (mode === 'background') this.#state.activelySynced = false;
  }

  letGuestsGo(): void { this.#active.letGo(); }
  limitGuest(bytesPerSecond: number): void { this.#gate.bytesPerSecond = bytesPerSecond; }
  limitBackground(limits: Partial<CopierLimits>): void { Object.assign(this.#engine!.copier.limits, limits); }
  takeGuestLatencyMs(): number { return this.#active.takeSlowestMs(); }
  takeTargetLatencyMs(): number { return this.#state.parts.target.takeSlowestMs(); }

  figures(): MirrorFigures {
    const { length, remaining, backgroundBytes, activeBytes, written, dirtied, activelySynced, parts } = this.#state;
    return { length, dirty: remaining, inFlight: backgroundBytes + activeBytes, written, dirtied, targetSilentMs: parts.target.silentMs, activelySynced, guestP99Ms: this.#latency.p99(), unverified: this.#verifier?.left ?? null };
  }

  async run(context: JobContext): Promise<void> {
    const { source, target, kind = 'mirror' } = this.#options;
    this.#state.length = source.length();
    if (kind === 'commit') await growTo(target, source.length());
    else if (alignUp(source.length(), SECTOR) !== alignUp(target.length(), SECTOR)) throw differentSizes();
    const ended = writeOutEarly(target);
    try {
      await this.#engine!.run(context);
    } finally {
      ended();
      this.#endSteering();
    }
  }

  /** No guest waits any more for the sake of what is over. */
  #endSteering(): void {
    this.#begun = false;
    this.#pilot!.stop();
  }

  beforePause(): Promise<void> { return this.#engine!.copier.idle(); }

  complete(): void {
    const { replaces } = this.#options;
    if (replaces !== undefined) {
      const node = this.#graph.find(replaces);
      if (node === undefined) throw new BlockError('NOT_FOUND', `Node name '${replaces}' not found`);
      node.blockers.add(REPLACE_BLOCKER);
      this.#toReplace = node;
    }
    this.#engine!.complete();
  }

  cancel(force: boolean): boolean {
    const forGood = force || !this.blockJob.job.isReady;
    if (forGood) {
      this.#state.parts.target.abandon();
      this.#endSteering();
    }
    return forGood;
  }

  async prepare(): Promise<void> {
    await this.#leave(this.#engine!.completing, true);
  }

  async dismissed(): Promise<void> { await this.#options.journal?.forget(); }

  async abort(): Promise<void> {
    if (this.#left) return;
    this.#state.parts.target.abandon();
    await this.#leave(false);
  }

  /** Takes the filter out; with `pivot`, the users of the source get the target. `equal`: the target is what it was to be. */
  async #leave(pivot: boolean, equal = false): Promise<void> {
    this.#left = true;
    const { source, target } = this.#options;
    const toReplace = this.#toReplace ?? source;
    const letGo = this.#engine?.drained ? () => this.#engine!.letGo() : await drainAll([this.filter, source]);
    this.#driver.intercept = null;
    this.#options.journal?.unguard();
    if (this.#engine !== null) {
      source.bitmaps.anonymous.delete(this.#state.bitmap);
      source.writeObservers.delete(this.#state);
      if (this.#verifier !== undefined) source.writeObservers.delete(this.#verifier);
    }
    toReplace.blockers.delete(REPLACE_BLOCKER);
    this.#thaw();
    try {
      if (pivot) await this.#pivotKnown(toReplace, target).catch(async (error: unknown) => {
        await this.#unhook(source, new Map());
        await this.#options.journal?.forget();
        throw new BlockError('IO', 'Operation not permitted', { errno: 'EPERM', cause: error });
      });
      else await this.#unhook(source, new Map());
      this.#wanted?.settle(equal);
      if (!pivot) await this.#options.journal?.forget();
    } finally {
      this.#wanted?.settle(false);
      await this.blockJob?.releaseNodes(this.#graph).catch(() => undefined);
      if (this.filter.parents.size === 0) await this.filter.close();
      // users do not wait for what is abandoned
      if (this.#abandoned) letGo();
      await this.#letGoOfTarget();
      letGo();
    }
  }

  get #abandoned(): boolean { return this.#door !== null && this.#state.parts.target.abandoned; }

  /** From now on nobody may take the old source for the disk, whenever the power goes. */
  async #pivotKnown(toReplace: BlockNode, target: BlockNode): Promise<void> {
    await this.#options.journal?.complete();
    await this.#pivot(toReplace, target);
  }

  async #pivot(toReplace: BlockNode, target: BlockNode): Promise<void> {
    const { source } = this.#options;
    if (!shows(source, toReplace)) {
      throw new BlockError('BUSY', `Can no longer replace '${toReplace.nodeName}' by '${target.nodeName}', because it can no longer be guaranteed that doing so would not lead to an abrupt change of visible data`);
    }
    const links = linksTo(toReplace, target);
    links.delete(this.#driver.file);
    const backing = await this.#options.backingAtEnd?.() ?? null;
    const edit = backing === null ? undefined : backingEdit(target, backing);
    const change = (): Promise<void> => this.#unhook(toReplace === source ? target : source, links, edit);
    await (toReplace === source ? change() : toReplace.drained(change));
  }

  /** Gives the users of the filter another node, together with `links`; nothing of the job counts any more. */
  #unhook(instead: BlockNode, links: ReadonlyMap<NodeUser, BlockNode>, edit?: () => () => void): Promise<void> {
    const { source, target } = this.#options;
    const ours: NodeUser[] = [...this.blockJob?.nodes ?? [], ...this.#door === null || this.#abandoned ? [] : [this.#door]];
    return this.#graph.change([this.filter, source, target], {
      links: new Map([...linksTo(this.filter, instead), ...links]),
      uses: new Map(ours.map((user) => [user, NO_USE])), edit,
    });
  }

  /** Nothing that was sent may arrive when the target is somebody else's, who would be overtaken: it is kept until the last answer. */
  async #letGoOfTarget(): Promise<void> {
    const door = this.#door;
    if (door === null) return;
    const { target } = this.#state.parts;
    const left = target.settled().then(() => this.#graph.detach(door));
    left.catch(() => undefined);
    if (await target.answers()) await left;
  }
}

const SECTOR = 512;
const READ_AND_WRITES = Permission.CONSISTENT_READ | Permission.WRITE_UNCHANGED | Permission.WRITE;
const REPLACE_BLOCKER = { reason: 'block device is in use by block-job-complete' };

/** What lies between top and base is not consistent while the base is written, and writes come from both ends. */
function commitUse({ used, shared }: EdgeUse): EdgeUse {
  return { used: used & ~Permission.CONSISTENT_READ, shared: shared | Permission.WRITE };
}

/** While it is made, nobody else reads or writes the target; the base of a commit is in use. */
function targetUse({ kind = 'mirror', source, target }: MirrorOptions): EdgeUse {
  if (kind === 'mirror') return { used: Permission.WRITE, shared: Permission.WRITE_UNCHANGED };
  return { used: Permission.WRITE | (target.length() < source.length() ? Permission.RESIZE : 0), shared: READ_AND_WRITES };
}

async function growTo(target: BlockNode, bytes: number): Promise<void> {
  if (target.length() >= bytes) return;
  const { driver } = target;
  if (driver.resize === undefined) throw new BlockError('NOT_SUPPORTED', 'Image format driver does not support resize', { errno: 'ENOTSUP' });
  await target.drained(() => driver.resize!(bytes));
  target.bitmaps.resize(target.length());
}

/** The granule to copy by, and whether the target must get each as a whole. */
function granularityOf({ target, sync, granularity: asked }: MirrorOptions): { readonly granularity: number; readonly wholeGranules: boolean } {
  const granularity = asked || defaultGranularity(target);
  const wholeGranules = fillsClusters(target, sync);
  return { granularity: wholeGranules ? Math.max(granularity, clusterSizeOf(target)) : granularity, wholeGranules };
}

function clusterSizeOf({ driver }: BlockNode): number {
  return driver.describe?.().clusterSize ?? 1;
}

/** A cluster that is written in part gets its rest from an image below, which is not there yet. */
function fillsClusters(target: BlockNode, sync: MirrorSync): boolean {
  const overlay = sync === 'top' || sync === 'none';
  return target.backing === null && (namesBacking(target) || (overlay && target.driver.setBacking !== undefined));
}

function namesBacking({ driver }: BlockNode): boolean {
  return (driver.describe?.().backingFile ?? null) !== null;
}
