import { expect, test } from '@jest/globals';
import { type Job, type JobContext, type JobOptions } from '../../../src/job/job.js';
import { TRANSITIONS, VERBS, type JobStatus } from '../../../src/job/job-states.js';
import { JobTable } from '../../../src/job/job-table.js';

/** A table that writes down each change. */
function table(): { readonly jobs: JobTable; readonly seen: string[] } {
  const seen: string[] = [];
  return { jobs: new JobTable(({ id, status }) => seen.push(`${id} ${status}`)), seen };
}

const make = (jobs: JobTable, options: Partial<JobOptions> = {}): Job => jobs.create({ id: 'j', type: 'create', run: async () => undefined, ...options });

/** Whatever can go on has gone on, the end of a job too, which is told two turns later. */
const turn = async (): Promise<void> => {
  for (let left = 4; left > 0; left--) await new Promise((resolve) => { setImmediate(resolve); });
};

test('a job runs, takes effect and is forgotten', async () => {
  const { jobs, seen } = table();
  const job = make(jobs, { commit: async () => { seen.push('commit'); } });
  job.start();
  await job.ended;
  expect(seen).toEqual(['j created', 'j running', 'j waiting', 'j pending', 'commit', 'j concluded', 'j null']);
  expect(jobs.list()).toEqual([]);
});

test('what fails is taken back, and the reason stays until it is dismissed', async () => {
  const { jobs, seen } = table();
  const job = make(jobs, { autoDismiss: false, run: async () => { throw new Error('no'); }, abort: async () => { seen.push('abort'); } });
  job.start();
  await job.ended;
  expect(seen).toEqual(['j created', 'j running', 'j aborting', 'abort', 'j concluded']);
  expect(job.info()).toMatchObject({ error: 'no', status: 'concluded' });
  await job.dismiss();
  expect(() => jobs.get('j')).toThrow('Job not found');
});

test('paused at a pause point, resumed once, cancelled at the next', async () => {
  const { jobs } = table();
  let step: (value: void) => void = () => undefined;
  const job = make(jobs, {
    autoDismiss: false,
    run: async (context: JobContext) => {
      for (;;) {
        await context.pausePoint();
        await new Promise<void>((resolve) => { step = resolve; });
      }
    },
  });
  job.start();
  await turn();
  job.pause();
  expect(() => job.pause()).toThrow('Job is already paused');
  step();
  await turn();
  expect(job.status).toBe('paused');
  job.resume();
  expect(() => job.resume()).toThrow("Can't resume a job that was not paused");
  await turn();
  job.cancel();
  step();
  await job.ended;
  expect(job.info()).toMatchObject({ status: 'concluded', error: 'Operation canceled' });
});

test('a job that is ready waits to be completed; one that waits to be finalized, for that', async () => {
  const { jobs, seen } = table();
  const job = make(jobs, { autoFinalize: false, run: (context) => context.ready() });
  job.start();
  await turn();
  expect(job.status).toBe('ready');
  job.complete();
  await turn();
  expect(job.status).toBe('pending');
  job.finalize();
  await job.ended;
  expect(seen.slice(-2)).toEqual(['j concluded', 'j null']);
});

test('a verb that the state does not take is refused by name', async () => {
  const { jobs } = table();
  const job = make(jobs, { autoDismiss: false });
  job.start();
  await job.ended;
  expect(() => job.cancel()).toThrow("Job 'j' in state 'concluded' cannot accept command verb 'cancel'");
  expect(() => make(jobs)).toThrow("Job ID 'j' already in use");
  expect(() => make(jobs, { id: '3' })).toThrow("Invalid job ID '3'");
});

test('every state but the last leads on, and no verb is taken by a job that is gone', () => {
  const states = Object.keys(TRANSITIONS) as JobStatus[];
  expect(states.filter((state) => TRANSITIONS[state].length === 0)).toEqual(['null']);
  expect(Object.values(VERBS).flat().filter((state) => state === 'null' || state === 'undefined')).toEqual([]);
});
