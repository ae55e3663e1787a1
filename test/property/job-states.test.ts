/** J-20: jobs that come to every end, with verbs at random: only transitions of QEMU's table happen, each is told once and in order, and only verbs that a state takes are taken. */
import { expect, test } from '@jest/globals';
import { BlockError, BlockJobs, JobTable, Random, type Job } from '../../src/index.js';
import type { JobStatus, JobVerb } from '../../src/job/job-states.js';

/** From systems.md 5.3, not from the source. */
const FOLLOWS: Readonly<Record<JobStatus, string>> = {
  undefined: 'created', created: 'running aborting null', running: 'paused ready waiting aborting', paused: 'running', ready: 'standby waiting aborting', standby: 'ready',
  waiting: 'pending aborting', pending: 'aborting concluded', aborting: 'aborting concluded', concluded: 'null', null: '',
};
const RUNS = 'created running paused ready standby';
const TAKES: Readonly<Record<Exclude<JobVerb, 'change'>, string>> = {
  cancel: `${RUNS} waiting pending`, pause: RUNS, resume: RUNS, 'set-speed': RUNS, complete: 'ready standby', finalize: 'pending', dismiss: 'concluded',
};
const has = (list: string, word: string): boolean => list.split(' ').includes(word);
const turn = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve); });

interface Walk {
  readonly statuses: JobStatus[];
  readonly verbs: Set<string>;
}

async function walk(seed: number): Promise<Walk> {
  const random = new Random(seed);
  const statuses: JobStatus[] = ['undefined'];
  const events: string[] = [];
  const table = new JobTable(({ status }) => statuses.push(status));
  const jobs = new BlockJobs(table, { emit: (event) => events.push(event) });
  const becomesReady = random.chance(0.6);
  const failsAt = random.chance(0.3) ? random.below(6) : -1;
  const failsToPrepare = random.chance(0.1);
  let completing = false;
  const blockJob = jobs.create({ id: 'j', type: 'mirror', autoFinalize: random.chance(0.5), autoDismiss: false }, () => ({
    completable: becomesReady,
    run: async (context) => {
      for (let step = 0; ; step++) {
        await context.pausePoint();
        if (context.cancelled) return;
        if (step === failsAt) throw new BlockError('IO', 'broken', { errno: 'EIO' });
        if (step === 3 && becomesReady) context.becomeReady();
        if (step >= 3 && (!becomesReady || completing || context.cancelRequested)) return;
        await context.sleep(0);
      }
    },
    complete: () => { completing = true; },
    cancel: (force) => force || !blockJob.job.isReady,
    prepare: async () => { if (failsToPrepare) throw new BlockError('IO', 'unprepared', { errno: 'EIO' }); },
  }));
  const { job } = blockJob;
  job.start();
  const verbs = new Set<string>();
  for (let step = 0; step < 60 && job.status !== 'null'; step++) {
    for (let turns = random.below(4); turns > 0; turns--) await turn();
    verbs.add(verb(job, random, blockJob.setSpeed.bind(blockJob)));
  }
  if (job.userPaused && has(RUNS, job.status)) job.resume();
  if (has(TAKES.cancel, job.status)) job.cancel(true);
  for (let left = 200; left > 0 && job.status === 'pending'; left--) await turn();
  await job.ended;
  const { error } = job;
  const failed = statuses.includes('aborting');
  expect({ seed, failed }).toEqual({ seed, failed: error !== null });
  if (job.status !== 'null') {
    expect(job.info()).toMatchObject({ status: 'concluded', error });
    await job.dismiss();
  }
  expectLegal(seed, statuses);
  expectEvents(seed, events, statuses, job.cancelled);
  return { statuses, verbs };
}

/** Says one verb; it is refused by its name where the state does not take it. Returns what was taken where. */
function verb(job: Job, random: Random, setSpeed: (speed: number) => void): string {
  const word = random.pick(Object.keys(TAKES) as (keyof typeof TAKES)[]);
  const before = job.status;
  // a job that goes on takes any number of pauses and resumes
  if (word === 'dismiss' || (word === 'cancel' && random.chance(0.7))) return '';
  const say = { cancel: () => job.cancel(random.chance(0.5)), pause: () => job.pause(), resume: () => job.resume(), 'set-speed': () => setSpeed(0), complete: () => job.complete(), finalize: () => job.finalize() };
  let refusal: string | null = null;
  try {
    say[word]();
  } catch (error) {
    refusal = (error as Error).message;
  }
  const wrongState = `Job 'j' in state '${before}' cannot accept command verb '${word}'`;
  if (has(TAKES[word], before)) expect(refusal).not.toBe(wrongState);
  else expect([wrongState, "Can't resume a job that was not paused"]).toContain(refusal);
  return refusal === null ? `${word} ${before}` : '';
}

function expectLegal(seed: number, statuses: readonly JobStatus[]): void {
  for (const [index, status] of statuses.entries()) {
    if (index === 0) continue;
    const before = statuses[index - 1]!;
    expect({ seed, before, status, legal: has(FOLLOWS[before], status) && before !== status }).toEqual({ seed, before, status, legal: true });
  }
  expect(statuses.at(-1)).toBe('null');
}

function expectEvents(seed: number, events: readonly string[], statuses: readonly JobStatus[], cancelled: boolean): void {
  const count = (name: string): number => events.filter((event) => event === name).length;
  const ready = statuses.some((status, index) => status === 'ready' && statuses[index - 1] === 'running');
  const found = { seed, ready: count('BLOCK_JOB_READY'), ends: count('BLOCK_JOB_COMPLETED') + count('BLOCK_JOB_CANCELLED'), cancelled: count('BLOCK_JOB_CANCELLED') };
  expect(found).toEqual({ seed, ready: ready ? 1 : 0, ends: 1, cancelled: cancelled ? 1 : 0 });
  expect(events.at(-1)).toMatch(/^BLOCK_JOB_(COMPLETED|CANCELLED)$/);
}

test('300 jobs', async () => {
  const seen = new Set<string>();
  const taken = new Set<string>();
  for (let seed = 1; seed <= 300; seed++) {
    const { statuses, verbs } = await walk(seed);
    for (const [index, status] of statuses.entries()) if (index > 0) seen.add(`${statuses[index - 1]} ${status}`);
    for (const one of verbs) taken.add(one);
  }
  // all that a job alone comes to, and each verb where it matters
  for (const step of ['running paused', 'paused running', 'running ready', 'running waiting', 'running aborting', 'ready standby', 'standby ready', 'ready waiting', 'ready aborting',
    'waiting pending', 'pending concluded', 'aborting concluded', 'concluded null']) expect([...seen]).toContain(step);
  for (const one of ['cancel running', 'cancel paused', 'cancel ready', 'cancel standby', 'cancel pending', 'pause running', 'pause ready', 'resume paused', 'resume standby',
    'set-speed running', 'set-speed standby', 'complete ready', 'complete standby', 'finalize pending']) expect([...taken]).toContain(one);
}, 60_000);
