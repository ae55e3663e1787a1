/**
 * Job records and their dirty regions in a state directory. A job that was running when its process or its machine went
 * down is found here, with the regions in which its two disks may differ: all others have the same for good.
 */
import type { Clock } from '../../base/clock.js';
import { BlockError, messageOf } from '../../base/errors.js';
import { BitArray } from '../../block/bit-array.js';
import type { JournalFiles } from './files.js';
import { findChange, stateOf, type FileIdentity } from './identity.js';
import { decodeRecord, encodeRecord, MAX_RECORD_BYTES, type JobRecord } from './record.js';
import { fileBytes, MAX_STATES, readRegions, regionCount, wholeFile, type Lease } from './region-file.js';
import { WriteIntent, type WriteIntentOptions } from './write-intent.js';

export interface JournalOptions {
  readonly files: JournalFiles;
  readonly clock: Clock;
  /** What tells one boot of the machine from another, and when this one began, by the wall clock. */
  readonly boot: string;
  readonly bootedMs: number;
  /** How often a running job tells what it has copied. Default 5 s. */
  readonly checkpointMs?: number | undefined;
  /** What a file is now. */
  readonly identify: (filename: string, writable: boolean) => Promise<FileIdentity | null>;
}

/** A job that was interrupted. */
export interface FoundJob {
  readonly record: JobRecord;
  readonly dirty: BitArray;
  /** Why all of it is dirty, or null where the journal knows better. */
  readonly distrust: string | null;
}

/** A journaled job that is running. */
export interface RunningJob {
  readonly intent: WriteIntent;
  /** The copy is whole and takes the disk's place: before anybody writes to it. */
  complete(): Promise<void>;
  /** The job is over and forgotten; false where it is to go on later instead. */
  forget(): Promise<boolean>;
}

const CHECKPOINT_MS = 5000;
const RECORD = '.job';
const REGIONS = '.dirty';

export class JobJournal {
  readonly #options: JournalOptions;

  /** Of jobs that are to go on later; null while jobs that end are forgotten. */
  #suspended: WriteIntent[] | null = null;

  constructor(options: JournalOptions) {
    this.#options = options;
  }

  get checkpointMs(): number { return this.#options.checkpointMs ?? CHECKPOINT_MS; }

  /** Jobs that end from now on are kept, and go on when their process starts again. */
  suspend(): void {
    this.#suspended ??= [];
  }

  /** All of them have ended, and their disks are closed. */
  async close(): Promise<void> {
    for (const intent of this.#suspended?.splice(0) ?? []) await intent.closeSealed();
  }

  /** From now on the job is found after a crash. `dirty`: what it has to copy. */
  async begin(record: JobRecord, dirty: BitArray, onLost?: WriteIntentOptions['onLost']): Promise<RunningJob> {
    const { files, boot, clock } = this.#options;
    const { jobId } = record;
    // the record last: without it the regions mean nothing; with an older one they are another job's
    const before = await files.read(`${jobId}${RECORD}`, MAX_RECORD_BYTES);
    const resumed = before !== null && decodeRecord(jobId, before).nonce === record.nonce;
    if (before !== null && !resumed) await files.remove(`${jobId}${RECORD}`);
    await files.replace(`${jobId}${REGIONS}`, wholeFile(record, dirty, { untilMs: clock.wallMs(), boot }));
    await files.replace(`${jobId}${RECORD}`, encodeRecord(record));
    const file = await files.openSectors(`${jobId}${REGIONS}`);
    const intent = new WriteIntent({ geometry: record, boot, clock, file, dirty, onLost, states: () => this.#states(record) });
    return {
      intent,
      complete: () => files.replace(`${jobId}${RECORD}`, encodeRecord({ ...record, state: 'completed' })),
      forget: async () => {
        if (this.#suspended !== null) {
          this.#suspended.push(intent);
          return false;
        }
        await files.remove(`${jobId}${RECORD}`);
        await intent.close();
        await files.remove(`${jobId}${REGIONS}`);
        return true;
      },
    };
  }

  /** The jobs that were not forgotten; `warn` is told of records that are none. */
  async find(warn: (message: string) => void): Promise<FoundJob[]> {
    const { files } = this.#options;
    const found: FoundJob[] = [];
    for (const name of await files.list()) {
      if (!name.endsWith(RECORD)) continue;
      try {
        const bytes = await files.read(name, MAX_RECORD_BYTES);
        if (bytes !== null) found.push(await this.#judge(decodeRecord(name, bytes)));
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        warn(messageOf(error));
      }
    }
    return found;
  }

  async forget(jobId: string): Promise<void> {
    await this.#options.files.remove(`${jobId}${RECORD}`);
    await this.#options.files.remove(`${jobId}${REGIONS}`);
  }

  async #judge(record: JobRecord): Promise<FoundJob> {
    const file = await this.#options.files.read(`${record.jobId}${REGIONS}`, fileBytes(record));
    const regions = file === null ? null : readRegions(record, file);
    const lease = regions === null ? null : this.#lease(regions.durable, regions.volatile);
    const distrust = regions === null || lease === null ? 'its regions could not be read' : await this.#findChange(record, lease);
    if (distrust === null) return { record, dirty: regions!.dirty, distrust };
    const dirty = new BitArray(regionCount(record));
    dirty.set(0, dirty.length);
    return { record, dirty, distrust };
  }

  /** In the boot in which the job ran, what was noted is all there. */
  #lease(durable: Lease | null, volatile: Lease | null): Lease | null {
    return durable?.boot === this.#options.boot ? volatile : durable;
  }

  async #findChange(record: JobRecord, lease: Lease): Promise<string | null> {
    for (const { nodeName, files } of [record.source, record.target]) if (files === null) return `node '${nodeName}' does not tell who wrote to it`;
    const { boot, bootedMs, identify } = this.#options;
    // what was changed in this boot the job of an earlier one did not do
    const untilMs = lease.boot === boot ? lease.untilMs : Math.min(lease.untilMs, bootedMs);
    for (const [index, file] of filesOf(record).entries()) {
      const change = findChange(file, await identify(file.filename, file.writable), { ...lease, untilMs }, lease.states?.[index]);
      if (change !== null) return change;
    }
    return null;
  }

  async #states(record: JobRecord): Promise<readonly string[] | null> {
    const files = filesOf(record);
    if (files.length > MAX_STATES || record.source.files === null || record.target.files === null) return null;
    const now = await Promise.all(files.map(({ filename, writable }) => this.#options.identify(filename, writable)));
    return now.every((file) => file !== null) ? now.map((file) => stateOf(file)) : null;
  }
}

function filesOf({ source, target }: JobRecord): readonly FileIdentity[] {
  return [...source.files ?? [], ...target.files ?? []];
}
