/**
 * blockdev-backup: copies a disk as it was when the job began, while it is written. A filter over the source copies what
 * guests are about to change; the job copies the rest.
 */
import { MiB } from '../../base/bytes.js';
import { BlockError, messageOf } from '../../base/errors.js';
import type { BlockGraph } from '../../block/graph.js';
import type { DirtyBitmap } from '../../block/dirty-bitmap.js';
import { BlockNode } from '../../block/node.js';
import { Permission } from '../../block/permissions.js';
import { makeRequest } from '../../block/request.js';
import { writeOutEarly } from '../../block/write-out.js';
import { attempt, type CopyCall, type CopyFailure } from '../../filter/block-copy.js';
import { CopyBeforeWriteFilter } from '../../filter/copy-before-write.js';
import { usesNetwork } from '../../image/chain.js';
import { nodeFilename } from '../../image/filename.js';
import { insertFilter, removeFilter } from '../../image/graph-edit.js';
import type { BlockJob, BlockJobs, OnError } from '../block-job.js';
import { jobFailure } from '../failure.js';
import type { JobContext, JobWork } from '../job.js';
import type { JobTransaction } from '../job-transaction.js';
import type { JournaledJob } from '../journal/journaled-job.js';
import { planBackup, refuseChunk, refuseLengths, type BackupPlan } from './checks.js';

/** `top`: only what the first layer of the source holds; `none`: only what guests are about to change, until the job is cancelled. */
export type BackupSync = 'full' | 'top' | 'none' | 'bitmap' | 'incremental';
/** When what was copied is taken off the bitmap. */
export type BitmapMode = 'on-success' | 'never' | 'always';

export interface BackupOptions {
  readonly jobId: string;
  readonly source: BlockNode;
  /** As long as the source. */
  readonly target: BlockNode;
  readonly sync: BackupSync;
  /** The name of a bitmap of the source: what is to be copied, or, with other sync modes, what this backup brings up to date. */
  readonly bitmap?: string | undefined;
  readonly bitmapMode?: BitmapMode | undefined;
  /** Not there yet: refused. */
  readonly compress?: boolean | undefined;
  /** Bytes per second; 0 = no limit. */
  readonly speed?: number | undefined;
  readonly onSourceError?: OnError | undefined;
  readonly onTargetError?: OnError | undefined;
  readonly filterNodeName?: string | undefined;
  /** Pieces in flight. Default 64; memory has a bound of its own. */
  readonly maxWorkers?: number | undefined;
  /** Largest piece; 0 = as large as is good. */
  readonly maxChunk?: number | undefined;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
  readonly transaction?: JobTransaction | undefined;
  /** Survives the end of the process: by `prepareJournaledBackup`. */
  readonly journal?: JournaledJob | undefined;
}

/** A backup whose instant is now; it copies nothing in the background until it is started. */
export interface PreparedBackup {
  readonly blockJob: BlockJob;
  /** Resolves when it runs. It stands still until `goOn` is called. */
  start(): Promise<void>;
  goOn(): Promise<void>;
  /** Resolves when what there is to do without copying anything is done: for an empty bitmap, that is all. */
  settled(): Promise<void>;
  /** Nothing was started: nothing has happened. */
  giveUp(): Promise<void>;
}

/** Refuses as QEMU does, in its words. */
export async function startBackup(graph: BlockGraph, jobs: BlockJobs, options: BackupOptions): Promise<BlockJob> {
  const backup = await prepareBackup(graph, jobs, options);
  await backup.start();
  await backup.goOn();
  return backup.blockJob;
}

/** The instant that the backup shows is within this call. */
export function prepareBackup(graph: BlockGraph, jobs: BlockJobs, options: BackupOptions): Promise<PreparedBackup> {
  return Backup.create(graph, jobs, options);
}

class Backup implements JobWork, PreparedBackup {
  readonly completable = false;
  readonly abortsAtOnce = true;
  blockJob!: BlockJob;
  readonly #graph: BlockGraph;
  readonly #options: BackupOptions;
  readonly #plan: BackupPlan;
  #filter: BlockNode | null = null;
  #driver!: CopyBeforeWriteFilter;
  #call: CopyCall | null = null;
  /** A successor records in place of the bitmap. */
  #frozen = false;
  #empty = false;

  private constructor(graph: BlockGraph, options: BackupOptions) {
    this.#graph = graph;
    this.#options = options;
    this.#plan = planBackup(options);
  }

  static async create(graph: BlockGraph, jobs: BlockJobs, options: BackupOptions): Promise<Backup> {
    const backup = new Backup(graph, options);
    const { bitmap } = backup.#plan;
    try {
      await options.source.drained(async () => {
        if (bitmap !== null) {
          bitmap.createSuccessor();
          backup.#frozen = true;
        }
        refuseLengths(options);
        await backup.#insertFilter();
        options.journal?.guard(options.source, options.target);
      });
      refuseChunk(options, backup.#driver.copying.clusterSize);
      await backup.#makeJob(jobs);
    } catch (error) {
      await backup.#undo();
      throw error;
    }
    return backup;
  }

  async #insertFilter(): Promise<void> {
    const { source, target, filterNodeName } = this.#options;
    const nodeName = couldCreate(() => this.#graph.takeName(filterNodeName));
    this.#driver = new CopyBeforeWriteFilter({ child: source, target });
    this.#takeBits();
    const filter = new BlockNode({ name: source.name, nodeName, driver: this.#driver, origin: { strong: {}, get plainName() { return nodeFilename(source); } } });
    this.#graph.add(filter);
    try {
      await this.#graph.refresh([filter]).catch((error: unknown) => couldCreate(() => { throw error; }));
      await insertFilter(this.#graph, source, filter);
    } catch (error) {
      await filter.close();
      throw error;
    }
    this.#filter = filter;
  }

  /** What is to be copied. */
  #takeBits(): void {
    const { copying } = this.#driver;
    const { sync, bitmap } = this.#plan;
    const { journal } = this.#options;
    copying.skipUnallocated = sync === 'top';
    if (journal?.resumed !== true && sync !== 'bitmap') return;
    copying.bitmap.clearAll();
    if (journal?.mark(copying.bitmap) !== true) copying.bitmap.merge(bitmap!);
    this.#empty = copying.bitmap.count === 0;
  }

  async #makeJob(jobs: BlockJobs): Promise<void> {
    const { jobId, speed, autoFinalize, autoDismiss, transaction, target } = this.#options;
    this.blockJob = jobs.create({ id: jobId, type: 'backup', speed, autoFinalize, autoDismiss, transaction }, () => this);
    this.#driver.file.task = this.#driver.target.task = this.blockJob.task;
    try {
      await this.blockJob.addNode(this.#graph, 'main node', this.#filter!, ANY_USE);
      await this.blockJob.addNode(this.#graph, 'target', target, ANY_USE);
    } catch (error) {
      this.blockJob.job.failEarly();
      throw error;
    }
  }

  async #undo(): Promise<void> {
    if (this.#frozen) this.#plan.bitmap!.reclaim();
    await this.clean();
  }

  async start(): Promise<void> {
    const { job } = this.blockJob;
    job.holdPaused();
    job.start();
    while (job.status === 'running') await Promise.resolve();
  }

  async goOn(): Promise<void> {
    const { job } = this.blockJob;
    job.releasePaused();
    while (job.status === 'paused' && !job.paused) await Promise.resolve();
  }

  async settled(): Promise<void> {
    if (this.#empty) await this.blockJob.job.rests;
  }

  async giveUp(): Promise<void> {
    this.blockJob.job.cancel(true);
    await this.blockJob.job.ended;
  }

  async run(context: JobContext): Promise<void> {
    const { copying } = this.#driver;
    const tell = (): void => context.progress(copying.copied, copying.copied + copying.remaining);
    copying.onProgress = tell;
    tell();
    // whoever started it hears of that before all that comes now
    await new Promise<void>((resolve) => { setImmediate(resolve); });
    if (this.#plan.sync === 'none') for (;;) await context.sleep(Infinity);
    if (this.#plan.sync === 'top') await this.#resetUnallocated(context);
    this.#options.journal?.begun({ differing: () => this.#differing(), flush: () => this.#flushBoth() }, this.blockJob.clock);
    const writtenOut = writeOutEarly(this.#options.target);
    try {
      do await this.#copy(context);
      while (!await this.#flush(context));
    } finally {
      writtenOut();
    }
  }

  /** From what the source holds now: a backup that goes on later shows that. */
  #differing(): DirtyBitmap {
    const differing = this.#driver.copying.uncopied();
    differing.merge(this.#driver.done);
    return differing;
  }

  async #flushBoth(): Promise<void> {
    await this.#driver.file.submit(makeRequest('flush', 0, 0, null, 0, 'background'));
    await this.#driver.copying.flush(this.#driver.done);
  }

  async #resetUnallocated(context: JobContext): Promise<void> {
    const { copying } = this.#driver;
    for (let at = 0; at < copying.length;) {
      await context.pausePoint();
      at += await copying.resetUnallocated(at);
    }
    copying.skipUnallocated = false;
  }

  async #copy(context: JobContext): Promise<void> {
    for (;;) {
      const call = this.#begin();
      try {
        while (!call.finished) await context.sleep(Infinity);
      } catch (error) {
        call.cancel();
        await call.ended;
        throw error;
      }
      const failure = await call.ended;
      if (failure !== null) await this.#failed(failure, context);
      else if (!call.cancelled) return;
    }
  }

  #begin(): CopyCall {
    const { copying } = this.#driver;
    const { maxWorkers, maxChunk } = this.#options;
    const { blockJob } = this;
    const call = copying.start({
      offset: 0, bytes: copying.length, maxWorkers, maxChunk, zeroChunk: blockJob.speed === 0 && !maxChunk ? zeroChunkOf(this.#options.target) : undefined, ioClass: 'background', clock: blockJob.clock, spend: (bytes) => blockJob.spend(bytes),
    });
    this.#call = call;
    void call.ended.then(() => blockJob.job.kick());
    return call;
  }

  async #failed({ operation, error }: CopyFailure, context: JobContext): Promise<void> {
    const { onSourceError = 'report', onTargetError = 'report' } = this.#options;
    if (context.cancelled) return context.pausePoint();
    if (this.blockJob.onError(operation === 'read' ? onSourceError : onTargetError, operation, error) === 'report') throw jobFailure(error);
    await context.pausePoint();
  }

  /** What was copied lasts before anybody is told that it was. False where there is more to be copied, or again. */
  async #flush(context: JobContext): Promise<boolean> {
    const { source, target } = this.#options;
    const edge = this.#driver.target;
    for (;;) {
      const failure = await attempt('write', async () => {
        // the last sector of the source may be a part of one
        if (target.length() > source.length()) await edge.writeZeroes(source.length(), target.length() - source.length());
        await this.#driver.copying.flush(this.#driver.done);
      });
      if (failure === null) return this.#driver.copying.remaining === 0;
      const { error } = failure;
      if (error instanceof BlockError && error.code === 'CORRUPT') throw error;
      await this.#failed(failure, context);
      if (this.#driver.copying.remaining > 0) return false;
    }
  }

  cancel(): boolean {
    if (usesNetwork(this.#options.source) || usesNetwork(this.#options.target)) void this.#giveUpSoon();
    return true;
  }

  /** A server that does not answer keeps nobody. Until it has, nobody else may use what it may still write to. */
  async #giveUpSoon(): Promise<void> {
    const { job, clock } = this.blockJob;
    const ended = new AbortController();
    void job.ended.then(() => ended.abort());
    await clock.sleep(NETWORK_GRACE_MS, ended.signal);
    if (ended.signal.aborted) return;
    const { blockers } = this.#options.target;
    blockers.add(STILL_WRITTEN);
    this.#driver.end();
    await this.#driver.copying.settled();
    blockers.delete(STILL_WRITTEN);
  }

  idle(): boolean { return this.#driver.copying.idle; }

  speedChanged(): void {
    this.#call?.wake();
  }

  async beforePause(): Promise<void> {
    this.#call?.cancel();
    await this.#call?.ended;
  }

  async commit(): Promise<void> {
    this.#settleBitmap(true);
  }

  async abort(): Promise<void> {
    this.#settleBitmap(false);
  }

  /** What was copied is taken off the bitmap, or nothing is. No write that came meanwhile is lost. */
  #settleBitmap(succeeded: boolean): void {
    const { bitmap, bitmapMode } = this.#plan;
    if (bitmap === null) return;
    if (bitmapMode === 'never' || (bitmapMode === 'on-success' && !succeeded)) return bitmap.reclaim();
    bitmap.abdicate();
    if (!succeeded) bitmap.merge(this.#driver.copying.bitmap);
  }

  async clean(): Promise<void> {
    const filter = this.#filter;
    this.#filter = null;
    await this.blockJob?.releaseNodes(this.#graph).catch(() => undefined);
    if (filter === null) return;
    await removeFilter(this.#graph, filter);
    await this.#graph.refresh([this.#options.target]);
    await this.#endJournal();
  }

  /** Nobody writes while it goes: nothing is lost where the process ends before it is forgotten. */
  async #endJournal(): Promise<void> {
    const { journal, source } = this.#options;
    if (journal === undefined) return;
    await source.drained(async () => {
      await journal.forget();
      journal.unguard();
    });
  }
}

/** Who writes where zeros are being copied waits until that is done: a server may write them out. */
function zeroChunkOf(target: BlockNode): number {
  return usesNetwork(target) ? 16 * MiB : 256 * MiB;
}

/** For how long a cancelled backup waits for a server. */
const NETWORK_GRACE_MS = 500;
const STILL_WRITTEN = { reason: 'block device is in use by block job: backup' };

/** In QEMU's words. */
function couldCreate<T>(make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw new BlockError(error instanceof BlockError ? error.code : 'IO', `Could not create node: ${messageOf(error)}`, { cause: error });
  }
}

const ANY_USE = { used: 0, shared: Permission.ALL };
