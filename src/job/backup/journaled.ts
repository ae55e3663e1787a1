/**
 * Backups that survive the end of their process. What a guest changed after the instant of the backup is gone with the
 * process that would have kept the old content of the rest, so one that goes on shows a later instant: that of going on.
 */
import type { BlockGraph } from '../../block/graph.js';
import type { BlockJobs } from '../block-job.js';
import type { FoundJob, JobJournal } from '../journal/journal.js';
import { JournaledJob, type Resumed } from '../journal/journaled-job.js';
import { prepareBackup, type BackupOptions, type PreparedBackup } from './backup.js';

/** As `prepareBackup`; a crash does not lose it. One that only keeps what guests overwrite is worth nothing after that, and not kept. */
export async function prepareJournaledBackup(graph: BlockGraph, jobs: BlockJobs, journal: JobJournal, options: BackupOptions): Promise<PreparedBackup> {
  const { jobId, source, target, sync } = options;
  if (sync === 'none') return prepareBackup(graph, jobs, options);
  jobs.jobs.checkId(jobId);
  const job = await JournaledJob.begin(journal, { jobId, type: 'backup', source, target, options });
  try {
    return await prepareBackup(graph, jobs, { ...options, journal: job });
  } catch (error) {
    await job.forget();
    throw error;
  }
}

/**
 * Goes on with a backup that was interrupted, while nobody can write to its source. Bitmaps of its source have not survived,
 * and what they told lies in the journal: all that differs is copied. Throws where a node is not there.
 */
export async function resumeBackup(graph: BlockGraph, jobs: BlockJobs, journal: JobJournal, found: FoundJob): Promise<Resumed> {
  const { jobId, options: { bitmap: _bitmap, bitmapMode: _mode, sync, ...options } } = found.record;
  const { job, source, target, ...resumed } = await JournaledJob.goOn(journal, graph, found);
  try {
    const again = { ...options, sync: sync === 'top' ? 'top' : 'full', jobId, source, target, journal: job } as unknown as BackupOptions;
    const backup = await prepareBackup(graph, jobs, again);
    await backup.start();
    await backup.goOn();
    job.started();
    return resumed;
  } catch (error) {
    await job.forget();
    throw error;
  }
}
