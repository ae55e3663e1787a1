/** What the record of an interrupted mirror starts it again with. */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { startJournaledMirror, type MirrorOptions } from '../../../../src/index.js';
import { systemClock } from '../../../../src/base/clock.js';
import { JournalDirectory } from '../../../../src/job/journal/files.js';
import { identify } from '../../../../src/job/journal/identity.js';
import { JobJournal } from '../../../../src/job/journal/journal.js';
import { optionsOf } from '../../../../src/job/journal/journaled-job.js';
import { gate, KiB, MirrorLab } from '../../../support/mirror-lab.js';

let directory: string;
beforeEach(() => { directory = mkdtempSync(path.join(os.tmpdir(), 'journaled-')); });
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const open = async (): Promise<JobJournal> => new JobJournal({ files: await JournalDirectory.open(directory), clock: systemClock, boot: 'this boot', bootedMs: systemClock.wallMs(), identify });
const none = (message: string): never => { throw new Error(message); };

test.each<[string, Partial<MirrorOptions>]>([
  ['auto', { copyMode: 'auto', convergence: { deadlineMs: 60_000, maxGuestLatencyMs: 250, throttleBelow: 5_000_000, minGuestRate: 1_000_000 } }],
  ['auto by default', { copyMode: 'auto', convergence: { deadlineMs: undefined } }],
  ['write-blocking', { copyMode: 'write-blocking', granularity: 64 * KiB, bufSize: 128 * KiB, operations: 3, unmap: false, onTargetError: 'ignore', verify: true }],
])('all that steers it, in copy mode %s', async (_, options) => {
  const lab = await MirrorLab.create();
  const held = gate();
  lab.disks.target.before = () => held.opened;
  const { blockJob } = await startJournaledMirror(lab.graph, lab.jobs, await open(), { jobId: 'j', source: lab.source, target: lab.target, sync: 'full', speed: 5, ...options });
  const [found] = await (await open()).find(none);
  const { convergence = {}, ...others } = options;
  expect(optionsOf(found!.record)).toEqual({ sync: 'full', speed: 5, ...others, convergence: JSON.parse(JSON.stringify(convergence)) as object });
  held.open();
  blockJob.job.cancel(true);
  await blockJob.job.ended;
});
