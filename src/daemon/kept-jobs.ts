/** The jobs that a daemon keeps in a state directory, so that they survive its end. */
import { readFileSync } from 'node:fs';
import os from 'node:os';
import { messageOf } from '../base/errors.js';
import { resumeBackup } from '../job/backup/journaled.js';
import { JournalDirectory } from '../job/journal/files.js';
import { identify } from '../job/journal/identity.js';
import { JobJournal } from '../job/journal/journal.js';
import { forgetCompleted } from '../job/journal/journaled-job.js';
import type { JobRecord } from '../job/journal/record.js';
import { drainAll } from '../job/mirror/engine.js';
import { resumeMirror } from '../job/mirror/journaled.js';
import type { StorageDaemon } from './daemon.js';

export interface KeepOptions {
  /** How often a running job tells what it has copied. Default 5 s. */
  readonly checkpointMs?: number | undefined;
}

/** Jobs that were interrupted. Nobody reads or writes their sources until one of the two is called. */
export interface KeptJobs {
  /** All users of the nodes are there: they will come through the jobs. */
  goOn(): Promise<void>;
  /** They are left as they are. */
  letGo(): void;
}

/**
 * Keeps the mirrors and backups that are started from now on, and finds those that were interrupted: their nodes must be
 * there by now, and should not be exported yet. `tell` hears what becomes of each.
 */
export async function keepJobsIn(daemon: StorageDaemon, directory: string, tell: (message: string) => void, { checkpointMs }: KeepOptions = {}): Promise<KeptJobs> {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  const bootedMs = daemon.clock.wallMs() - os.uptime() * 1000;
  const journal = new JobJournal({ files: await JournalDirectory.open(directory), clock: daemon.clock, boot, bootedMs, checkpointMs, identify });
  daemon.journal = journal;
  const waiting: Interrupted[] = [];
  for (const { record } of await journal.find(tell)) {
    const { type, source, target, jobId } = record;
    if (record.state === 'completed') {
      tell(`${type} '${jobId}' had completed: node '${target.nodeName}' has the disk that node '${source.nodeName}' had`);
      await forgetCompleted(journal, daemon.graph, record);
      continue;
    }
    const node = daemon.graph.find(source.nodeName);
    if (node === undefined) tell(`${type} '${jobId}' was interrupted and cannot go on: there is no node '${source.nodeName}'`);
    else waiting.push({ record, letGo: await drainAll([node]) });
  }
  const letGo = (): void => { for (const job of waiting.splice(0)) job.letGo(); };
  return {
    letGo,
    goOn: async () => {
      try {
        for (const { record } of waiting) await goOn(daemon, journal, record, tell);
      } finally {
        letGo();
      }
    },
  };
}

interface Interrupted {
  readonly record: JobRecord;
  /** Ends the drained section of its source. */
  readonly letGo: () => void;
}

async function goOn(daemon: StorageDaemon, journal: JobJournal, { jobId, type }: JobRecord, tell: (message: string) => void): Promise<void> {
  try {
    // judged while nobody can write to it, and until the job hears of writes
    const found = (await journal.find(() => undefined)).find(({ record }) => record.jobId === jobId)!;
    const resume = type === 'mirror' ? resumeMirror : resumeBackup;
    const { distrust, bytes } = await resume(daemon.graph, daemon.blockJobs, journal, found);
    const again = distrust === null ? `${bytes} bytes are copied again` : `all of it is copied again: ${distrust}`;
    tell(`${type} '${jobId}' was interrupted and goes on; ${again}${type === 'backup' ? '; it will hold the disk as it is now' : ''}`);
  } catch (error) {
    tell(`${type} '${jobId}' was interrupted and cannot go on: ${messageOf(error)}`);
  }
}
