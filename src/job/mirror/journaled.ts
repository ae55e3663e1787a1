/** Mirrors that survive the end of their process: started with a journal, and found in it again. */
import type { BlockGraph } from '../../block/graph.js';
import type { BlockJobs } from '../block-job.js';
import type { FoundJob, JobJournal } from '../journal/journal.js';
import { JournaledJob, optionsOf, type Resumed } from '../journal/journaled-job.js';
import { startMirror, type Mirror, type MirrorOptions } from './mirror.js';

/** As `startMirror`; a crash does not lose it. */
export async function startJournaledMirror(graph: BlockGraph, jobs: BlockJobs, journal: JobJournal, options: MirrorOptions): Promise<Mirror> {
  const { jobId, source, target } = options;
  jobs.jobs.checkId(jobId);
  const job = await JournaledJob.begin(journal, { jobId, type: 'mirror', source, target, options });
  try {
    return await startMirror(graph, jobs, { ...options, journal: job });
  } catch (error) {
    await job.forget();
    throw error;
  }
}

/** Goes on with a mirror that was interrupted, while nobody can write to its source. Throws where a node is not there. */
export async function resumeMirror(graph: BlockGraph, jobs: BlockJobs, journal: JobJournal, found: FoundJob): Promise<Resumed> {
  const { job, source, target, ...resumed } = await JournaledJob.goOn(journal, graph, found);
  try {
    await startMirror(graph, jobs, { ...optionsOf(found.record), jobId: found.record.jobId, source, target, journal: job } as unknown as MirrorOptions);
    job.started();
    return resumed;
  } catch (error) {
    await job.forget();
    throw error;
  }
}
