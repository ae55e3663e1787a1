/** What a mirror or a backup does for its journal: it begins in it or goes on from it, is guarded by it, and tells it from time to time what it has done. */
import { randomBytes } from 'node:crypto';
import type { Clock } from '../../base/clock.js';
import { BlockError } from '../../base/errors.js';
import { BitArray } from '../../block/bit-array.js';
import { DirtyBitmap } from '../../block/dirty-bitmap.js';
import type { ChangeGuard } from '../../block/change-guard.js';
import type { BlockGraph } from '../../block/graph.js';
import type { BlockNode } from '../../block/node.js';
import { endOf, findOther } from './ends.js';
import type { FoundJob, JobJournal, RunningJob } from './journal.js';
import { KeptBitmap } from './kept-bitmap.js';
import type { JobRecord } from './record.js';
import { regionBytesFor, regionCount } from './region-file.js';
import type { CheckpointJob, WriteIntent } from './write-intent.js';

/** Soon after a flush of the target, but not after each of many. */
const SOON_MS = 1000;

/** A job as its journal sees it. */
export interface JournaledWork {
  /** A bitmap of the caller's own: where the disks differ, or may until what is under way has ended. */
  differing(): DirtyBitmap;
  /** What both disks were told before lasts when it resolves. */
  flush(): Promise<void>;
}

/** What a job begins with, if it is one that survives. */
export interface JournaledOptions {
  readonly jobId: string;
  readonly type: JobRecord['type'];
  readonly source: BlockNode;
  readonly target: BlockNode;
  /** Those that a record can hold are kept, but for the id. */
  readonly options: object;
}

/** What an interrupted job left to be copied. */
interface Left {
  readonly regions: BitArray;
  readonly bits: DirtyBitmap | null;
}

export interface Resumed {
  /** Why all of it is copied again; null where that is not so. */
  readonly distrust: string | null;
  /** To be copied again. */
  readonly bytes: number;
}

interface GoingOn extends Resumed {
  readonly job: JournaledJob;
  readonly source: BlockNode;
  readonly target: BlockNode;
}

export class JournaledJob {
  readonly #intent: WriteIntent;
  readonly #guards = new Map<BlockNode, ChangeGuard>();
  #started: boolean;
  readonly #running: RunningJob;
  readonly #record: JobRecord;
  readonly #checkpointMs: number;
  readonly #resumed: Left | null;
  readonly #stop = new AbortController();
  #kept: KeptBitmap | null;
  #wake: AbortController | null = null;
  #soon = false;
  #forgetting: Promise<void> | null = null;

  private constructor(running: RunningJob, record: JobRecord, checkpointMs: number, kept: KeptBitmap | null, resumed: Left | null) {
    this.#intent = running.intent;
    this.#started = resumed === null;
    this.#running = running;
    this.#record = record;
    this.#checkpointMs = checkpointMs;
    this.#kept = kept;
    this.#resumed = resumed;
  }

  static async begin(journal: JobJournal, { jobId, type, source, target, options }: JournaledOptions): Promise<JournaledJob> {
    const length = source.length();
    const nonce = randomBytes(4).readUInt32BE();
    const kept = await KeptBitmap.make(`quiesce-${jobId}-${nonce.toString(16)}`, source);
    const record: JobRecord = {
      jobId, type, state: 'running', source: await endOf(source), target: await endOf(target), options: scalarsOf(options),
      length, regionBytes: regionBytesFor(length), nonce, ...kept === null ? {} : { bitmap: kept.name },
    };
    return new JournaledJob(await journal.begin(record, allOf(record)), record, journal.checkpointMs, kept, null);
  }

  /** While nobody can write to the source. Throws where a node is not there. */
  static async goOn(journal: JobJournal, graph: BlockGraph, found: FoundJob): Promise<GoingOn> {
    const { record } = found;
    const [source, target] = [graph.get(record.source.nodeName), graph.get(record.target.nodeName)];
    if (source.length() !== record.length) {
      throw new BlockError('INVALID_ARGUMENT', `node '${source.nodeName}' had ${record.length} bytes when ${record.type} '${record.jobId}' was interrupted, and has ${source.length()}`);
    }
    const [sourceEnd, targetEnd] = [await endOf(source), await endOf(target)];
    const kept = record.bitmap === undefined ? null : await KeptBitmap.find(record.bitmap, source);
    const distrust = findOther(record.source, sourceEnd) ?? findOther(record.target, targetEnd) ?? found.distrust
      ?? (record.bitmap !== undefined && kept === null ? 'its bitmap could not be read' : null);
    const regions = distrust === null ? found.dirty : allOf(record);
    const bits = distrust === null ? kept?.bits ?? null : null;
    const again: JobRecord = { ...record, source: sourceEnd, target: targetEnd, bitmap: kept?.kept.name };
    const running = await journal.begin(again, regionsOf(record, regions, bits));
    const job = new JournaledJob(running, again, journal.checkpointMs, kept?.kept ?? null, { regions, bits });
    const left = new DirtyBitmap({ name: '', granularity: bits?.granularity ?? record.regionBytes, size: record.length });
    job.mark(left);
    return { job, source, target, distrust, bytes: Math.min(left.count, record.length) };
  }

  get resumed(): boolean { return this.#resumed !== null; }

  /** Marks what an interrupted job left to be copied; false where this one was not interrupted. */
  mark(bitmap: DirtyBitmap): boolean {
    if (this.#resumed === null) return false;
    const { regions, bits } = this.#resumed;
    const { regionBytes, length } = this.#record;
    for (let at = regions.nextSet(0, regions.length); at < regions.length; at = regions.nextSet(at + 1, regions.length)) {
      bitmap.set(at * regionBytes, Math.min(regionBytes, length - at * regionBytes));
    }
    if (bits !== null) bitmap.merge(bits);
    return true;
  }

  /** Hears of the changes of both nodes from now on. In a drained section of the source, before users write through the job. */
  guard(source: BlockNode, target: BlockNode): void {
    const intent = this.#intent;
    this.#guards.set(source, intent);
    // all of the target's are the job's own
    this.#guards.set(target, { begin: () => intent.begin(0, 0), ended: () => intent.ended(0, 0) });
    for (const [node, guard] of this.#guards) node.changeGuards.add(guard);
  }

  /** In a drained section of the source. */
  unguard(): void {
    for (const [node, guard] of this.#guards) node.changeGuards.delete(guard);
    this.#guards.clear();
  }

  /** It was interrupted, and goes on now. */
  started(): void {
    this.#started = true;
  }

  /** From now on the work knows all that is to be copied. */
  begun(work: JournaledWork, clock: Clock): void {
    void this.#checkpoints(work, clock);
  }

  /** The target was flushed: what it has need not be copied again. */
  checkpointSoon(): void {
    this.#soon = true;
    this.#wake?.abort();
  }

  /** The target is whole and about to take the source's place. */
  async complete(): Promise<void> {
    this.#stop.abort();
    await this.#running.complete();
    await this.#dropBitmap();
  }

  /**
   * The job ended without that, or nobody needs to know any more that it completed. One that was interrupted, and could
   * not even be started again, is found another time. Idempotent.
   */
  forget(): Promise<void> {
    this.#stop.abort();
    this.#forgetting ??= !this.#started ? this.#intent.close() : this.#running.forget().then((forgotten) => (forgotten ? this.#dropBitmap() : undefined));
    return this.#forgetting;
  }

  /** What is left of it is of no use to anybody, and in nobody's way. */
  async #dropBitmap(): Promise<void> {
    const kept = this.#kept;
    this.#kept = null;
    await kept?.remove().catch(() => undefined);
  }

  async #checkpoints(work: JournaledWork, clock: Clock): Promise<void> {
    const { signal } = this.#stop;
    for (;;) {
      await this.#sleep(clock);
      if (signal.aborted) return;
      // where it fails nothing became clean; the job itself will meet the same error
      await this.#intent.checkpoint(this.#kept === null ? inMarks(work) : this.#inBitmap(work, this.#kept)).catch(() => undefined);
    }
  }

  async #sleep(clock: Clock): Promise<void> {
    const { signal } = this.#stop;
    await clock.sleep(Math.min(SOON_MS, this.#checkpointMs), signal);
    if (!this.#soon && !signal.aborted) {
      const wake = new AbortController();
      this.#wake = wake;
      await clock.sleep(Math.max(0, this.#checkpointMs - SOON_MS), AbortSignal.any([signal, wake.signal]));
      this.#wake = null;
    }
    this.#soon = false;
  }

  /** What differs lies in the bitmap, and the marks tell only what was changed since. */
  #inBitmap(work: JournaledWork, kept: KeptBitmap): CheckpointJob {
    return {
      always: true,
      isCovered: () => true,
      flush: async () => {
        const differing = work.differing();
        await work.flush();
        await kept.put(differing);
      },
    };
  }
}

/** A region stays marked until all of it is the same. */
function inMarks(work: JournaledWork): CheckpointJob {
  let differing = work.differing();
  return {
    isCovered: (offset, bytes) => differing.nextDirty(offset, offset + bytes) === offset + bytes,
    flush: async () => {
      await work.flush();
      differing = work.differing();
    },
  };
}

function allOf(record: JobRecord): BitArray {
  const all = new BitArray(regionCount(record));
  all.set(0, all.length);
  return all;
}

/** With the regions of what is dirty in `bits`. */
function regionsOf({ regionBytes }: JobRecord, regions: BitArray, bits: DirtyBitmap | null): BitArray {
  const all = regions.copy();
  if (bits === null) return all;
  for (let at = bits.nextDirty(0); at < bits.size; at = bits.nextDirty(Math.ceil((at + 1) / regionBytes) * regionBytes)) all.set(Math.floor(at / regionBytes), Math.floor(at / regionBytes) + 1);
  return all;
}

/** Options that a record can hold, those of `convergence` among them; the others are what the record itself says. */
function scalarsOf({ convergence, ...options }: object & { readonly convergence?: object | undefined }): JobRecord['options'] {
  const nested = Object.entries(convergence ?? {}).map(([name, value]) => [`${CONVERGENCE}${name}`, value as unknown] as const);
  return Object.fromEntries([...Object.entries(options), ...nested].filter(([name, value]) => name !== 'jobId' && ['string', 'number', 'boolean'].includes(typeof value))) as JobRecord['options'];
}

/** What the job was started with. */
export function optionsOf({ options }: JobRecord): Readonly<Record<string, unknown>> {
  const entries = Object.entries(options);
  const nested = entries.filter(([name]) => name.startsWith(CONVERGENCE)).map(([name, value]) => [name.slice(CONVERGENCE.length), value] as const);
  return { ...Object.fromEntries(entries.filter(([name]) => !name.startsWith(CONVERGENCE))), convergence: Object.fromEntries(nested) };
}

const CONVERGENCE = 'convergence.';

/** The record of a job that had completed before its process ended is of no use any more. */
export async function forgetCompleted(journal: JobJournal, graph: BlockGraph, { jobId, source, bitmap }: JobRecord): Promise<void> {
  await journal.forget(jobId);
  const node = graph.find(source.nodeName);
  if (bitmap === undefined || node === undefined) return;
  await (await KeptBitmap.find(bitmap, node))?.kept.remove().catch(() => undefined);
}
