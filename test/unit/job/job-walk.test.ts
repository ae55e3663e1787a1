/**
 * J-20: the table of states and verbs, walked at random. A model of a few lines tells which state follows and what is
 * refused; the job must agree after every verb, and whatever it tells on its way must be allowed by QEMU's tables, which
 * stand here a second time.
 */
import { expect, test } from '@jest/globals';
import { array, assert, asyncProperty, boolean, constantFrom, record } from 'fast-check';
import type { Job } from '../../../src/job/job.js';
import { TRANSITIONS, VERBS, type JobStatus, type JobVerb } from '../../../src/job/job-states.js';
import { JobTable } from '../../../src/job/job-table.js';
import { JobTransaction } from '../../../src/job/job-transaction.js';

/** Rows: from; columns: to. As job.c has them. */
const STATES = ['undefined', 'created', 'running', 'paused', 'ready', 'standby', 'waiting', 'pending', 'aborting', 'concluded', 'null'] as const;
const MATRIX = `
  undefined 01000000000
  created   00100000101
  running   00011010100
  paused    00100000000
  ready     00000110100
  standby   00001000000
  waiting   00000001100
  pending   00000000110
  aborting  00000000110
  concluded 00000000001
  null      00000000000`;
const TAKES = `
  cancel    01111111000
  pause     01111100000
  resume    01111100000
  set-speed 01111100000
  change    01111100000
  complete  00001100000
  finalize  00000001000
  dismiss   00000000010`;

const rows = (table: string): Record<string, readonly string[]> => Object.fromEntries(table.trim().split('\n').map((line) => {
  const [name, bits] = line.trim().split(/\s+/) as [string, string];
  return [name, STATES.filter((_, index) => bits[index] === '1')];
}));

test('the tables are those of QEMU, cell by cell', () => {
  const sorted = (table: Readonly<Record<string, readonly string[]>>) =>
    Object.fromEntries(Object.entries(table).map(([name, states]) => [name, STATES.filter((state) => states.includes(state))]));
  expect(sorted(TRANSITIONS)).toEqual(rows(MATRIX));
  expect(sorted(VERBS)).toEqual(rows(TAKES));
});

type Op = 'start' | 'pause' | 'resume' | 'cancel' | 'cancel softly' | 'complete' | 'finalize' | 'dismiss' | 'hold' | 'release' | 'becomes ready' | 'ends' | 'fails' | 'other ends' | 'other fails';
const OPS: readonly Op[] = [
  'start', 'pause', 'resume', 'cancel', 'cancel softly', 'complete', 'finalize', 'dismiss', 'hold', 'release', 'becomes ready', 'ends', 'fails', 'other ends', 'other fails',
];
interface Setting {
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  /** Another job ends with it. */
  readonly grouped: boolean;
}

/** Whatever can go on has gone on. */
const settled = async (): Promise<void> => {
  for (let left = 12; left > 0; left--) await new Promise((resolve) => { setImmediate(resolve); });
};

/** What the job is thought to be. */
class Model {
  status: JobStatus = 'created';
  error: string | null = null;
  #userPaused = false;
  #holds = 0;
  #ready = false;
  /** What the work does as soon as it may go on. */
  #next: 'ready' | 'end' | 'fail' | null = null;
  #softly = false;
  #otherEnded: boolean;
  readonly #setting: Setting;

  constructor(setting: Setting) {
    this.#setting = setting;
    this.#otherEnded = !setting.grouped;
  }

  get alive(): boolean { return ['running', 'paused', 'ready', 'standby'].includes(this.status); }
  get gone(): boolean { return this.status === 'null'; }
  get holds(): number { return this.#holds; }
  get othersRun(): boolean { return !this.#otherEnded; }

  /** Null, or what the verb is refused with. */
  verb(op: Op): string | null {
    const verb = (op === 'cancel softly' ? 'cancel' : op) as JobVerb;
    const refused = VERBS[verb].includes(this.status) ? null : `Job 'j' in state '${this.status}' cannot accept command verb '${verb}'`;
    if (op === 'resume' && !this.#userPaused) return "Can't resume a job that was not paused";
    if (refused !== null) return refused;
    if (op === 'pause' && this.#userPaused) return 'Job is already paused';
    if (op === 'complete' && this.#softly) return "The active block job 'j' cannot be completed";
    if (op === 'pause') this.#userPaused = true;
    if (op === 'resume') this.#userPaused = false;
    if (op === 'complete') this.#next = 'end';
    if (op === 'finalize') this.#conclude();
    if (op === 'dismiss') this.status = 'null';
    if (verb === 'cancel') this.#cancel(op === 'cancel' || !['ready', 'standby'].includes(this.status));
    this.#goOn();
    return null;
  }

  happens(op: Op): void {
    if (op === 'start') this.status = 'running';
    if (op === 'hold') this.#holds++;
    if (op === 'release') this.#holds--;
    if (op === 'becomes ready') this.#next ??= 'ready';
    if (op === 'ends') this.#next = 'end';
    if (op === 'fails') this.#next = 'fail';
    if (op === 'other ends') this.#otherEnded = true;
    if (op === 'other fails') return this.#fail('Operation canceled');
    this.#goOn();
  }

  #cancel(force: boolean): void {
    if (force) return this.#fail('Operation canceled');
    this.#userPaused = false;
    this.#softly = true;
    this.#next = 'end';
  }

  #fail(error: string): void {
    const started = this.status !== 'created';
    this.error = error;
    this.#userPaused = false; // who is cancelled with the others goes on, to its end
    this.status = this.#setting.autoDismiss || !started ? 'null' : 'concluded';
  }

  #conclude(): void {
    this.status = this.#setting.autoDismiss ? 'null' : 'concluded';
  }

  #goOn(): void {
    if (this.alive) {
      const paused = this.#userPaused || this.#holds > 0;
      if (!paused && this.#next === 'fail') return this.#fail('no');
      if (!paused && this.#next === 'end') this.status = 'waiting';
      else {
        if (!paused && this.#next === 'ready') {
          this.#ready = true;
          this.#next = null;
        }
        this.status = this.#ready ? (paused ? 'standby' : 'ready') : paused ? 'paused' : 'running';
      }
    }
    if (this.status !== 'waiting' || !this.#otherEnded) return;
    if (this.#setting.autoFinalize) this.#conclude();
    else this.status = 'pending';
  }
}

/** The job itself, with work that does what it is told as soon as it may. */
class Subject {
  readonly job: Job;
  readonly told: string[] = [];
  readonly #other: Job | null;
  #next: 'ready' | 'end' | 'fail' | null = null;
  #otherEnds: (error?: Error) => void = () => undefined;

  constructor({ grouped, ...options }: Setting) {
    const table = new JobTable(({ id, status }) => { if (id === 'j') this.told.push(status); });
    const transaction = new JobTransaction();
    this.job = table.create({
      id: 'j', type: 'mirror', transaction, ...options, complete: () => { this.#next = 'end'; }, cancel: (force) => force || !this.job.isReady,
      run: async (context) => {
        for (;;) {
          // it may have been told before it ran: a job that is paused from the beginning does
          const next = context.cancelRequested ? 'end' : this.#next;
          if (next === 'fail') throw new Error('no');
          if (next === 'end') return;
          if (next === 'ready' && !this.job.isReady) context.becomeReady();
          await context.sleep(Infinity);
        }
      },
      events: { ready: () => this.told.push('READY'), pending: () => this.told.push('PENDING'), ended: (cancelled) => this.told.push(cancelled ? 'CANCELLED' : 'COMPLETED') },
    });
    this.#other = grouped ? table.create({
      id: 'k', type: 'backup', transaction,
      run: ({ signal }) => new Promise((resolve, reject) => {
        this.#otherEnds = (error) => { if (error === undefined) resolve(); else reject(error); };
        signal.addEventListener('abort', () => resolve());
      }),
    }) : null;
    this.#other?.start();
  }

  happens(op: Op): void {
    if (op === 'start') this.job.start();
    if (op === 'hold') this.job.holdPaused();
    if (op === 'release') this.job.releasePaused();
    if (op === 'becomes ready') this.#next ??= 'ready';
    if (op === 'ends') this.#next = 'end';
    if (op === 'fails') this.#next = 'fail';
    if (op === 'other ends') this.#otherEnds();
    if (op === 'other fails') this.#otherEnds(new Error('the other one'));
    this.job.kick();
  }

  async verb(op: Op): Promise<string | null> {
    try {
      if (op === 'cancel' || op === 'cancel softly') this.job.cancel(op === 'cancel');
      else await this.job[op as 'pause' | 'resume' | 'complete' | 'finalize' | 'dismiss']();
      return null;
    } catch (error) {
      return (error as Error).message;
    }
  }
}

/** Things that cannot happen in this state are left out. */
function canHappen(op: Op, model: Model): boolean {
  if (model.status === 'created') return op === 'start';
  if (op === 'release') return model.holds > 0 && model.alive;
  if (op === 'other ends' || op === 'other fails') return model.othersRun && (model.alive || model.status === 'waiting');
  return op !== 'start' && model.alive;
}

const HAPPENINGS: readonly Op[] = ['start', 'hold', 'release', 'becomes ready', 'ends', 'fails', 'other ends', 'other fails'];

async function walk(setting: Setting, ops: readonly Op[]): Promise<void> {
  const model = new Model(setting);
  const subject = new Subject(setting);
  const gone: string[] = [];
  for (const op of ops) {
    if (HAPPENINGS.includes(op)) {
      if (!canHappen(op, model)) continue;
      subject.happens(op);
      model.happens(op);
    } else {
      if (op === 'dismiss' && model.gone) continue; // nobody can name it any more
      expect([op, await subject.verb(op)]).toEqual([op, model.verb(op)]);
    }
    await settled();
    gone.push(op);
    expect([gone.join(', '), subject.job.status]).toEqual([gone.join(', '), model.status]);
    if (model.gone) break;
  }
  expectTold(subject.told);
  if (subject.job.status === 'concluded' || subject.job.status === 'null') expect(subject.job.error).toBe(model.error);
}

/** Each step is one that QEMU's table has, and each event comes once, in its place. */
function expectTold(told: readonly string[]): void {
  const statuses = told.filter((one) => one === one.toLowerCase()) as JobStatus[];
  for (const [index, status] of statuses.entries()) expect(rows(MATRIX)[statuses[index - 1] ?? 'undefined']).toContain(status);
  for (const [event, before] of [['READY', 'ready'], ['PENDING', 'pending']] as const) {
    const at = told.indexOf(event);
    if (at >= 0) expect([told.lastIndexOf(event), told[at - 1]]).toEqual([at, before]);
  }
  expect(told.filter((one) => one === 'COMPLETED' || one === 'CANCELLED').length).toBeLessThanOrEqual(1);
  expect(told.includes('concluded') && told.includes('running')).toBe(told.includes('COMPLETED') || told.includes('CANCELLED'));
}

test('every walk through verbs, pauses and ends is the one that the table allows', async () => {
  const setting = record({ autoFinalize: boolean(), autoDismiss: boolean(), grouped: boolean() });
  const ops = array(constantFrom(...OPS), { minLength: 1, maxLength: 25 });
  await assert(asyncProperty(setting, ops, async (chosen, some) => walk(chosen, chosen.grouped ? ['start', ...some] : some)), { numRuns: 400 });
}, 120_000);
