/** Mirrors that survive the end of their process: started with a journal, and found in it again. */
import { randomBytes } from 'node:crypto';
import type { Clock } from '../../base/clock.js';
import { BlockError } from '../../base/errors.js';
import { BitArray } from '../../block/bit-array.js';
import type { DirtyBitmap } from '../../block/dirty-bitmap.js';
import type { BlockGraph } from '../../block/graph.js';
import type { BlockNode } from '../../block/node.js';
import { makeRequest } from '../../block/request.js';
import type { BlockJobs } from '../block-job.js';
import { identify, type FileIdentity } from '../journal/identity.js';
import type { FoundJob, JobJournal, RunningJob } from '../journal/journal.js';
import type { JobEnd, JobRecord } from '../journal/record.js';
import { regionBytesFor, regionCount } from '../journal/region-file.js';
import { startMirror, type Mirror, type MirrorOptions } from './mirror.js';
import type { MirrorState } from './state.js';

const CHECKPOINT_MS = 5000;

/** What a mirror does for its journal. */
export class MirrorJournal {
  readonly #running: RunningJob;
  readonly #record: JobRecord;
  readonly #resumed: BitArray | null;
  readonly #stop = new AbortController();
  #forgetting: Promise<void> | null = null;

  constructor(running: RunningJob, record: JobRecord, resumed: BitArray | null) {
    this.#running = running;
    this.#record = record;
    this.#resumed = resumed;
  }

  get intent(): RunningJob['intent'] { return this.#running.intent; }

  get resumes(): boolean { return this.#resumed !== null; }

  /** Marks what an interrupted mirror left to be copied; false where this one was not interrupted. */
  mark(bitmap: DirtyBitmap): boolean {
    const regions = this.#resumed;
    if (regions === null) return false;
    const { regionBytes, length } = this.#record;
    for (let at = regions.nextSet(0, regions.length); at < regions.length; at = regions.nextSet(at + 1, regions.length)) {
      bitmap.set(at * regionBytes, Math.min(regionBytes, length - at * regionBytes));
    }
    return true;
  }

  /** The bitmap knows all that is to be copied. */
  begun(state: MirrorState, clock: Clock): void {
    void this.#checkpoint(state, clock);
  }

  /** The target is whole and about to take the source's place. */
  async complete(): Promise<void> {
    this.#stop.abort();
    await this.#running.complete();
  }

  /** The job ended without that, or nobody needs to know any more that it completed. Idempotent. */
  forget(): Promise<void> {
    this.#stop.abort();
    this.#forgetting ??= this.#running.forget();
    return this.#forgetting;
  }

  async #checkpoint({ bitmap, claims, parts }: MirrorState, clock: Clock): Promise<void> {
    const { signal } = this.#stop;
    for (;;) {
      await clock.sleep(CHECKPOINT_MS, signal);
      if (signal.aborted) return;
      await this.intent.checkpoint({
        isEqual: (offset, bytes) => bitmap.nextDirty(offset, offset + bytes) === offset + bytes && claims.freeUntil(offset, offset + bytes) === offset + bytes,
        flush: async () => {
          await parts.source.submit(makeRequest('flush', 0, 0, null, 0, 'background'));
          await parts.target.send('flush', 0, 0, null);
        },
      }).catch(() => undefined); // nothing became clean; the job itself will meet the same error
    }
  }
}

/** As `startMirror`; a crash does not lose it. */
export async function startJournaledMirror(graph: BlockGraph, jobs: BlockJobs, journal: JobJournal, options: MirrorOptions): Promise<Mirror> {
  const { jobId, source, target } = options;
  jobs.jobs.checkId(jobId);
  const length = source.length();
  const record: JobRecord = {
    jobId, type: 'mirror', state: 'running', source: await endOf(source), target: await endOf(target), options: optionsOf(options),
    length, regionBytes: regionBytesFor(length), nonce: randomBytes(4).readUInt32BE(),
  };
  const all = new BitArray(regionCount(record));
  all.set(0, all.length);
  return start(graph, jobs, journal, options, record, { dirty: all, resumed: null });
}

/** Goes on with a mirror that was interrupted, while nobody can write to its source. Throws where a node is not there. */
export async function resumeMirror(graph: BlockGraph, jobs: BlockJobs, journal: JobJournal, { record, dirty }: FoundJob): Promise<Mirror> {
  const [source, target] = [record.source, record.target].map(({ nodeName }) => graph.get(nodeName)) as [BlockNode, BlockNode];
  if (source.length() !== record.length) throw new BlockError('INVALID_ARGUMENT', `node '${source.nodeName}' had ${record.length} bytes when mirror '${record.jobId}' was interrupted, and has ${source.length()}`);
  const options = { ...record.options, jobId: record.jobId, source, target } as unknown as MirrorOptions;
  const again = { ...record, source: await endOf(source), target: await endOf(target) };
  return start(graph, jobs, journal, options, again, { dirty, resumed: dirty });
}

async function start(
  graph: BlockGraph, jobs: BlockJobs, journal: JobJournal, options: MirrorOptions, record: JobRecord, regions: { readonly dirty: BitArray; readonly resumed: BitArray | null },
): Promise<Mirror> {
  const running = new MirrorJournal(await journal.begin(record, regions.dirty), record, regions.resumed);
  try {
    return await startMirror(graph, jobs, { ...options, journal: running });
  } catch (error) {
    await running.forget();
    throw error;
  }
}

/** Options that a record can hold; the others are what the record itself says. */
function optionsOf(options: MirrorOptions): JobRecord['options'] {
  return Object.fromEntries(Object.entries(options).filter(([name, value]) => name !== 'jobId' && ['string', 'number', 'boolean'].includes(typeof value))) as JobRecord['options'];
}

/** The files below a node, where all that lies below it are files. */
async function endOf(node: BlockNode): Promise<JobEnd> {
  const files: FileIdentity[] = [];
  for (const below of protocolNodes(node)) {
    const filename = below.driver.formatName === 'file' ? below.origin?.filename : undefined;
    const identity = filename === undefined ? null : await identify(filename, !below.readOnly);
    if (identity === null) return { nodeName: node.nodeName, files: null };
    files.push(identity);
  }
  return { nodeName: node.nodeName, files };
}

function protocolNodes(node: BlockNode): BlockNode[] {
  return node.driver.kind === 'protocol' ? [node] : node.children.flatMap((child) => protocolNodes(child.node));
}
