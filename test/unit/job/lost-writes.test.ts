/** Targets that forget what they confirmed, as a disk whose flush failed or a server that was started again: no job completes with a target that differs. */
import { expect, test } from '@jest/globals';
import { BlockError, makeRequest } from '../../../src/index.js';
import { startBackup } from '../../../src/job/backup/backup.js';
import { JobLab, LabDisk, turn } from '../../support/job-lab.js';
import { MirrorLab } from '../../support/mirror-lab.js';

const KiB = 1024;
const BYTES = 1024 * KiB;

/** A disk that keeps nothing but what was flushed. */
class ForgetfulDisk extends LabDisk {
  lostWrites = 0;
  #durable: Buffer | null = null;

  /** Nothing was flushed yet: what it holds now is what it falls back to. */
  begin(): void {
    this.#durable = this.content();
  }

  forget(): void {
    this.lostWrites++;
    void this.memory.submit(makeRequest('write', 0, this.length(), Buffer.from(this.#durable!)));
  }
}

test.each(['a failed flush', 'a server that came back'])('what a mirror lost by %s is copied again', async (how) => {
  const lab = await MirrorLab.create({ bytes: BYTES });
  const { target } = lab.disks;
  const before = target.content();
  const fallBack = (): void => void target.memory.submit(makeRequest('write', 0, BYTES, Buffer.from(before)));
  let flushes = 0;
  if (how === 'a failed flush') {
    target.fault = ({ op }) => {
      if (op !== 'flush' || ++flushes > 1) return;
      fallBack();
      throw new BlockError('IO', 'the disk is gone', { errno: 'EIO' });
    };
  } else {
    const server = Object.assign(target, { lostWrites: 0 });
    target.before = ({ op }) => {
      if (op !== 'flush' || ++flushes > 1) return;
      fallBack();
      server.lostWrites++;
    };
  }
  await lab.start({ onTargetError: 'ignore' });
  await lab.complete();
  expect(flushes).toBeGreaterThan(1);
  expect(lab.job.error).toBeNull();
  expect(lab.equal).toBe(true);
});

test('a mirror fails where an image with structures of its own may be damaged, whatever is to be done about errors', async () => {
  const lab = await MirrorLab.create({ bytes: BYTES });
  const server = Object.assign(lab.disks.target, { lostWrites: 0 });
  Object.assign(server, { kind: 'format', formatName: 'qcow2' });
  lab.disks.target.before = ({ op }) => { if (op === 'flush') server.lostWrites++; };
  await lab.start({ onTargetError: 'ignore' });
  await lab.job.ended;
  expect(lab.job.error).toContain('the qcow2 image there may be damaged');
});

function setUpBackup() {
  const lab = new JobLab();
  const [a, b] = [new LabDisk({ bytes: BYTES, seed: 1 }), new ForgetfulDisk({ bytes: BYTES, seed: 2 })];
  void a.memory.submit(makeRequest('write', 0, BYTES, Buffer.alloc(BYTES, 0x55)));
  b.begin();
  let flushes = 0;
  b.before = ({ op }) => { if (op === 'flush' && ++flushes === 1) b.forget(); };
  return { lab, a, b, source: lab.add('s', a), target: lab.add('t', b) };
}

test('what a backup lost is copied again, as long as the source holds it', async () => {
  const { lab, a, b, source, target } = setUpBackup();
  const { job } = await startBackup(lab.graph, lab.jobs, { jobId: 'j', sync: 'full', source, target, onTargetError: 'ignore' });
  await job.ended;
  expect(job.error).toBeNull();
  expect(b.content().equals(a.content())).toBe(true);
});

test('a backup fails where guests have overwritten what was lost', async () => {
  const { lab, source, target } = setUpBackup();
  const door = await lab.guest(source);
  const { job } = await startBackup(lab.graph, lab.jobs, { jobId: 'j', sync: 'full', source, target, onTargetError: 'ignore' });
  await door.submit(makeRequest('write', 0, 4096, Buffer.alloc(4096, 1)));
  await job.ended;
  expect(job.error).toContain('which the source does not hold any more');
});

test('a disk that hangs keeps a job that is cancelled for good only as long as it reads from it; it is aborting at once', async () => {
  const lab = await MirrorLab.create({ bytes: BYTES });
  let answer = (): void => undefined;
  const answered = new Promise<void>((resolve) => { answer = resolve; });
  lab.disks.source.before = ({ op }) => (op === 'read' ? answered : undefined);
  await lab.start();
  while (lab.disks.source.inFlight === 0) await turn();
  lab.job.cancel(true);
  for (let left = 20; left > 0; left--) await turn();
  expect(lab.jobs.list()[0]!.info()).toMatchObject({ status: 'aborting' });
  answer();
  await lab.job.ended;
  expect(lab.job.cancelled).toBe(true);
});
