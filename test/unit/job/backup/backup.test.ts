import { expect, test } from '@jest/globals';
import { startBackup } from '../../../../src/job/backup/backup.js';
import { JobLab, LabDisk } from '../../../support/job-lab.js';

test('a disk is copied', async () => {
  const lab = new JobLab();
  const [a, b] = [new LabDisk({ bytes: 1 << 20 }), new LabDisk({ bytes: 1 << 20 })];
  const [source, target] = [lab.add('s', a), lab.add('t', b)];
  await source.write(0, Buffer.alloc(300_000, 7));
  const { job } = await startBackup(lab.graph, lab.jobs, { jobId: 'j', source, target, sync: 'full' });
  await job.ended;
  expect(job.error).toBeNull();
  expect(b.content().equals(a.content())).toBe(true);
});
