import { expect, test } from '@jest/globals';
import { BlockError } from '../../../src/base/errors.js';
import { BlockJobs, type BlockJob, type BlockJobOptions, type OnError } from '../../../src/job/block-job.js';
import type { JobContext, JobWork } from '../../../src/job/job.js';
import { JobTable } from '../../../src/job/job-table.js';
import { JobTransaction } from '../../../src/job/job-transaction.js';
import { RateLimit } from '../../../src/job/rate-limit.js';

function setUp() {
  const seen: string[] = [];
  const table = new JobTable(({ id, status }) => seen.push(`${id} ${status}`));
  const jobs = new BlockJobs(table, { emit: (event, data) => seen.push(`${event} ${JSON.stringify(data)}`) });
  const make = (work: JobWork | ((self: BlockJob) => JobWork), options: Partial<BlockJobOptions> = {}): BlockJob =>
    jobs.create({ id: 'j', type: 'mirror', ...options }, typeof work === 'function' ? work : () => work);
  return { seen, jobs, make };
}

/** Whatever can go on has gone on, the end of a job too, which is told two turns later. */
const turn = async (): Promise<void> => {
  for (let left = 4; left > 0; left--) await new Promise((resolve) => { setImmediate(resolve); });
};

/** A mirror without a disk: ready at once, ends when it is told to. */
function keepingUp(): JobWork {
  let complete = false;
  return {
    run: async (context: JobContext) => {
      context.progress(5, 5);
      context.becomeReady();
      while (!complete && !context.cancelRequested) await context.sleep(Infinity);
    },
    complete: () => { complete = true; },
    cancel: (force) => force,
  };
}

test('ready, complete, concluded: the events of QEMU in their order', async () => {
  const { seen, make } = setUp();
  const { job } = make(keepingUp(), { speed: 7 });
  job.start();
  await turn();
  job.complete();
  await job.ended;
  const facts = '{"type":"mirror","device":"j","len":5,"offset":5,"speed":7}';
  expect(seen).toEqual([
    'j created', 'j running', 'j ready', `BLOCK_JOB_READY ${facts}`, 'j waiting', 'j pending', `BLOCK_JOB_COMPLETED ${facts}`, 'j concluded', 'j null',
  ]);
});

test('a soft cancel of a ready job completes it, a forced one does not', async () => {
  for (const force of [false, true]) {
    const { seen, make } = setUp();
    const { job } = make(keepingUp());
    job.start();
    await turn();
    job.cancel(force);
    await job.ended;
    expect(seen.some((line) => line.startsWith(force ? 'BLOCK_JOB_CANCELLED' : 'BLOCK_JOB_COMPLETED'))).toBe(true);
    expect(seen.includes('j aborting')).toBe(force);
  }
});

test('pause of a ready job is standby, and ends where it began; one that a drained section holds as well goes on when both have ended (J-21)', async () => {
  const { seen, make } = setUp();
  const { job } = make(keepingUp());
  job.start();
  await turn();
  job.pause();
  job.holdPaused();
  await turn();
  job.resume();
  await turn();
  expect(job.status).toBe('standby'); // a drained section holds it as well
  job.releasePaused();
  await turn();
  expect(job.status).toBe('ready');
  job.holdPaused();
  job.pause();
  await turn();
  job.releasePaused();
  await turn();
  expect(job.status).toBe('standby'); // the other way round
  job.resume();
  await turn();
  expect(job.status).toBe('ready');
  job.cancel();
  await job.ended;
  expect(seen.filter((line) => line.startsWith('BLOCK_JOB_READY'))).toHaveLength(1);
});

test('jobs of one transaction end together: one that fails takes the others with it', async () => {
  const { seen, make } = setUp();
  const transaction = new JobTransaction();
  const steps: string[] = [];
  const working = (name: string, run: JobWork['run']): JobWork => ({
    run, commit: async () => { steps.push(`commit ${name}`); }, abort: async () => { steps.push(`abort ${name}`); }, clean: async () => { steps.push(`clean ${name}`); },
  });
  const a = make(working('a', async () => undefined), { id: 'a', transaction });
  const b = make(working('b', async (context) => { await context.sleep(1); throw new BlockError('IO', 'Input/output error', { errno: 'EIO' }); }), { id: 'b', transaction });
  const c = make(working('c', (context) => context.sleep(Infinity)), { id: 'c', transaction });
  for (const { job } of [a, b, c]) job.start();
  await Promise.all([a, b, c].map(({ job }) => job.ended));
  expect(steps).toEqual(['abort c', 'clean c', 'abort b', 'clean b', 'abort a', 'clean a']);
  expect(seen.filter((line) => line.startsWith('BLOCK_JOB_')).map((line) => line.split(' ')[0])).toEqual(['BLOCK_JOB_CANCELLED', 'BLOCK_JOB_COMPLETED', 'BLOCK_JOB_CANCELLED']);
});

test('jobs of one transaction take effect when the last has run and all are finalized', async () => {
  const { seen, make } = setUp();
  const transaction = new JobTransaction();
  const a = make({ run: async () => undefined }, { id: 'a', transaction, autoFinalize: false });
  const b = make({ run: async (context) => context.sleep(Infinity) }, { id: 'b', transaction });
  a.job.start();
  b.job.start();
  await turn();
  expect(a.job.status).toBe('waiting');
  b.job.kick();
  while (b.job.status !== 'pending') await turn();
  expect(seen.filter((line) => line.startsWith('BLOCK_JOB_PENDING'))).toEqual(['BLOCK_JOB_PENDING {"type":"mirror","id":"a"}']);
  a.job.finalize();
  await a.job.groupEnded;
  expect(seen.filter((line) => line.endsWith('concluded'))).toEqual(['b concluded', 'a concluded']);
});

test('an error stops, is ignored or ends the job, by its policy', () => {
  const outcome = (policy: OnError, errno: string): unknown[] => {
    const { seen, make } = setUp();
    const blockJob = make({ run: async () => undefined });
    const action = blockJob.onError(policy, 'write', new BlockError('IO', 'no', { errno }));
    expect(seen.at(-1)).toBe(`BLOCK_JOB_ERROR {"device":"j","operation":"write","action":"${action}"}`);
    return [action, blockJob.ioStatus, blockJob.job.userPaused];
  };
  expect(outcome('report', 'EIO')).toEqual(['report', 'ok', false]);
  expect(outcome('ignore', 'EIO')).toEqual(['ignore', 'ok', false]);
  expect(outcome('stop', 'EIO')).toEqual(['stop', 'failed', true]);
  expect(outcome('enospc', 'EIO')).toEqual(['report', 'ok', false]);
  expect(outcome('enospc', 'ENOSPC')).toEqual(['stop', 'nospace', true]);
  expect(outcome('auto', 'ENOSPC')).toEqual(['stop', 'nospace', true]);
});

test('a resume by the client forgets the error that stopped the job', async () => {
  const { make } = setUp();
  const blockJob = make(keepingUp());
  blockJob.job.start();
  await turn();
  blockJob.onError('stop', 'read', new BlockError('IO', 'no', { errno: 'EIO' }));
  await turn();
  expect(blockJob.info()).toMatchObject({ ioStatus: 'failed', paused: true, status: 'standby' });
  blockJob.job.resume();
  expect(blockJob.ioStatus).toBe('ok');
  blockJob.job.cancel();
  await blockJob.job.ended;
});

test('a bad speed or id makes no job', () => {
  const { make, jobs } = setUp();
  expect(() => make({ run: async () => undefined }, { speed: -1 })).toThrow("Parameter 'speed' expects a non-negative value");
  expect(() => make({ run: async () => undefined }, { id: '1' })).toThrow("Invalid job ID '1'");
  expect(jobs.list()).toEqual([]);
});

test('the rate is kept on average, whatever the size of a piece', () => {
  let now = 0;
  const limit = new RateLimit({ wallMs: () => 0, monotonicMs: () => now, sleep: () => Promise.resolve() });
  limit.speed = 1000;
  for (let piece = 0; piece < 50; piece++) now += limit.spend(700) + 0.001;
  expect(50 * 700 / now).toBeGreaterThan(0.97);
  expect(50 * 700 / now).toBeLessThan(1.03);
  limit.speed = 0;
  expect(limit.spend(1e12)).toBe(0);
});
