/** The jobs that a daemon keeps in a state directory, so that they survive its end. */
import { readFileSync } from 'node:fs';
import { messageOf } from '../base/errors.js';
import { JournalDirectory } from '../job/journal/files.js';
import { identify } from '../job/journal/identity.js';
import { JobJournal, type FoundJob } from '../job/journal/journal.js';
import { resumeMirror } from '../job/mirror/journaled.js';
import type { StorageDaemon } from './daemon.js';

/**
 * Keeps the mirrors that are started from now on, and goes on with those that a crash interrupted: their nodes must be
 * there by now, and should not be exported yet. `tell` hears what becomes of each.
 */
export async function keepJobsIn(daemon: StorageDaemon, directory: string, tell: (message: string) => void): Promise<void> {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  const journal = new JobJournal({ files: await JournalDirectory.open(directory), clock: daemon.clock, boot, identify });
  daemon.journal = journal;
  for (const { record } of await journal.find(tell)) await goOn(daemon, journal, record.jobId, tell);
}

async function goOn(daemon: StorageDaemon, journal: JobJournal, jobId: string, tell: (message: string) => void): Promise<void> {
  const find = async (): Promise<FoundJob> => (await journal.find(() => undefined)).find(({ record }) => record.jobId === jobId)!;
  const { record } = await find();
  const { type, source, target } = record;
  if (record.state === 'completed') {
    tell(`${type} '${jobId}' had completed: node '${target.nodeName}' has the disk that node '${source.nodeName}' had`);
    return journal.forget(jobId);
  }
  try {
    // judged while nobody can write to it, and until the mirror hears of writes
    await daemon.graph.get(source.nodeName).drained(async () => {
      const found = await find();
      await resumeMirror(daemon.graph, daemon.blockJobs, journal, found);
      const again = found.distrust === null ? `${found.dirty.ones * record.regionBytes} bytes are copied again` : `all of it is copied again: ${found.distrust}`;
      tell(`${type} '${jobId}' was interrupted and goes on; ${again}`);
    });
  } catch (error) {
    tell(`${type} '${jobId}' was interrupted and cannot go on: ${messageOf(error)}`);
  }
}
