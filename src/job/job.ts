/**
 * One job as QEMU has them. What it does is its `run`, which asks `pausePoint` or `sleep` now and then: there it may be
 * paused or cancelled. How it ends is decided together with the other jobs of its transaction (`JobTransaction`).
 */
import { systemClock, type Clock } from '../base/clock.js';
import { BlockError } from '../base/errors.js';
import { JobTransaction } from './job-transaction.js';
import { TRANSITIONS, VERBS, type JobStatus, type JobVerb } from './job-states.js';
import { events } from '../trace/events.js';

/** What a job's work can do to its job. */
export interface JobContext {
  /** How far it is, in units of its own (bytes for block jobs). */
  progress(current: number, total: number): void;
  /** Resolves at once, or when the job is resumed; throws where it was cancelled for good. */
  pausePoint(): Promise<void>;
  /** A pause point after so long; Infinity waits for a kick. Pause, resume, cancel and `kick` end it early. */
  sleep(ms: number): Promise<void>;
  /** Nothing is left to do but to keep up, until it is told to complete. */
  becomeReady(): void;
  /** Becomes ready, and resolves when it is told to complete. */
  ready(): Promise<void>;
  /** To end at once, and take back what was done. */
  readonly cancelled: boolean;
  /** To end somehow: `cancelled`, or a soft cancel of a job that is ready. */
  readonly cancelRequested: boolean;
  /** Aborted when the job is cancelled. */
  readonly signal: AbortSignal;
}

/** What a kind of job does; QEMU's JobDriver. */
export interface JobWork {
  run(context: JobContext): Promise<void>;
  /** All jobs of the transaction have run: the last moment to fail. */
  prepare?(): Promise<void>;
  /** Makes what was done take effect. */
  commit?(): Promise<void>;
  /** Takes it back. */
  abort?(): Promise<void>;
  /** After `commit` or `abort`: lets go of what the job held. */
  clean?(): Promise<void>;
  /** The job is forgotten: lets go of what it held until now, where QEMU's holds it as long as a client can ask for it. */
  dismissed?(): Promise<void>;
  /** Told to complete. Default: only `JobContext.ready` hears of it. */
  complete?(): void;
  /** Without it the job cannot be completed by hand. Default true where there is `complete` or the job waits in `ready`. */
  readonly completable?: boolean;
  /** Cancelled for good, it is aborting at once, though `run` may still wait for a disk: `abort` comes when that is over. */
  readonly abortsAtOnce?: boolean;
  /** Asked to end; returns whether that is for good. Default: always. */
  cancel?(force: boolean): boolean;
  /** Nothing is under way: cancelled now, it ends before anything else happens. Default: not known. */
  idle?(): boolean;
  /** About to stand still at a pause point: waits for what is under way. */
  beforePause?(): Promise<void>;
  /** Its speed limit is another one now. */
  speedChanged?(): void;
  /** A client resumes what it, or an error, had paused. */
  userResumed?(): void;
}

/** What is told of a job besides its status, at the places where QEMU's block jobs tell it. */
export interface JobEvents {
  ready?(): void;
  pending?(): void;
  /** It was started and has ended; `cancelled` for good, not softly. */
  ended?(cancelled: boolean): void;
}

export interface JobOptions extends JobWork {
  readonly id: string;
  /** QAPI's JobType. */
  readonly type: string;
  /** Default true: what the job did takes effect without being asked. */
  readonly autoFinalize?: boolean | undefined;
  /** Default true: a job that ended is forgotten without being asked. */
  readonly autoDismiss?: boolean | undefined;
  /** The jobs it ends with; default: none. */
  readonly transaction?: JobTransaction | undefined;
  readonly events?: JobEvents | undefined;
  readonly clock?: Clock | undefined;
}

export interface JobInfo {
  readonly id: string;
  readonly type: string;
  readonly status: JobStatus;
  readonly currentProgress: number;
  readonly totalProgress: number;
  readonly error: string | null;
}

export class Job {
  readonly id: string;
  readonly type: string;
  readonly #options: JobOptions;
  readonly #clock: Clock;
  readonly #onStatus: (job: Job) => void;
  readonly #transaction: JobTransaction;
  readonly #abort = new AbortController();
  #status: JobStatus = 'undefined';
  #current = 0;
  #total = 0;
  #error: unknown = null;
  #cancel: 'no' | 'soft' | 'force' = 'no';
  #userPaused = false;
  #pauses = 0;
  /** Not at a pause point. */
  #busy = false;
  /** At a pause point, as everybody was told. */
  #standing = false;
  #moveWaiters: (() => void)[] = [];
  #wake: (() => void) | null = null;
  #completed: () => void = () => undefined;
  #ran = false;
  #running: Promise<void> = Promise.resolve();
  #started = false;
  readonly #ranWaiters: (() => void)[] = [];
  readonly #ended: Promise<void>;
  #end: () => void = () => undefined;
  #rests: Promise<void> = Promise.resolve();

  constructor(options: JobOptions, onStatus: (job: Job) => void) {
    this.id = options.id;
    this.type = options.type;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#onStatus = onStatus;
    this.#ended = new Promise((resolve) => { this.#end = resolve; });
    this.#transaction = options.transaction ?? new JobTransaction();
    this.#transaction.add(this);
    this.become('created');
  }

  get status(): JobStatus { return this.#status; }
  /** Resolves when the job has concluded, however it went. */
  get ended(): Promise<void> { return this.#ended; }
  /** The same of all jobs that it ends with. */
  get groupEnded(): Promise<void> { return this.#transaction.ended; }
  /** Resolves when the job has ended, or waits for a client or for the jobs that it ends with. */
  get rests(): Promise<void> { return this.#rests; }
  get autoFinalize(): boolean { return this.#options.autoFinalize ?? true; }
  get autoDismiss(): boolean { return this.#options.autoDismiss ?? true; }
  get paused(): boolean { return this.#pauses > 0; }
  get userPaused(): boolean { return this.#userPaused; }
  get busy(): boolean { return this.#busy && !this.#ran; }
  /** Cancelled now, it has ended before anything else happens. */
  get idle(): boolean { return this.#options.idle?.() ?? false; }
  get isReady(): boolean { return this.#status === 'ready' || this.#status === 'standby'; }
  /** `run` is over. */
  get ran(): boolean { return this.#ran; }
  get failed(): boolean { return this.#error !== null; }
  /** What it failed with, if it was an error. */
  get failure(): unknown { return this.#error; }
  get error(): string | null { return this.#error === null ? null : messageOf(this.#error); }
  get cancelled(): boolean { return this.#cancel === 'force'; }
  get cancelRequested(): boolean { return this.#cancel !== 'no'; }

  info(): JobInfo {
    return {
      id: this.id, type: this.type, status: this.#status, currentProgress: this.#current, totalProgress: this.#total, error: this.error,
    };
  }

  start(): void {
    this.#started = true;
    this.#busy = true;
    this.become('running');
    this.#rests = this.#work();
  }

  /** What makes it up failed before it was started: it is gone, and nothing is told but that. */
  failEarly(): void {
    this.become('null');
    this.#end();
  }

  /** Ends the job at its next pause point; what it did is taken back. A job that is ready may end softly: what it did stays, and nothing else happens. */
  cancel(force = true): void {
    this.apply('cancel');
    if (this.#transaction.finalizing) return; // it is about to take effect
    this.cancelNow(force);
    if (!this.#started || (this.#ran && this.cancelled)) void this.#transaction.abort(this);
  }

  /** As `cancel`, by the transaction: whatever the status is, and without its end. */
  cancelNow(force: boolean): void {
    const forGood = this.#options.cancel?.(force) ?? true;
    if (this.#userPaused) {
      this.#options.userResumed?.();
      this.#userPaused = false;
      this.#pauses--;
    }
    // a job whose work is done cannot end softly any more
    if (forGood || !this.#ran) this.#cancel = forGood || this.cancelled ? 'force' : 'soft';
    if (this.cancelled) this.#abort.abort(cancellation());
    this.kick();
    this.#completed();
  }

  pause(): void {
    this.apply('pause');
    if (this.#userPaused) throw invalid('Job is already paused');
    this.pauseByUser();
  }

  /** An error stops the job as a client would; it goes on when a client says so. */
  pauseByUser(): void {
    if (this.#userPaused) return;
    this.#userPaused = true;
    this.holdPaused();
  }

  resume(): void {
    if (!this.#userPaused) throw invalid("Can't resume a job that was not paused");
    this.apply('resume');
    this.#options.userResumed?.();
    this.#userPaused = false;
    this.releasePaused();
  }

  /** Pauses the job from inside, as often as it is called; each needs its `releasePaused`. */
  holdPaused(): void {
    this.#pauses++;
    this.kick();
  }

  releasePaused(): void {
    if (--this.#pauses === 0) this.kick();
  }

  /** Resolves when a job that was told to pause does so, or will not any more. */
  async standsStill(): Promise<void> {
    while (this.#working && this.paused && !this.#standing) await this.#moved();
  }

  /** Resolves when a job that was told to go on does so. */
  async goesOn(): Promise<void> {
    while (this.#working && !this.paused && this.#standing) await this.#moved();
  }

  get #working(): boolean { return this.#started && !this.#ran && !this.cancelled; }

  #moved(): Promise<void> {
    return new Promise((resolve) => { this.#moveWaiters.push(resolve); });
  }

  #move(standing: boolean): void {
    this.#standing = standing;
    for (const resolve of this.#moveWaiters.splice(0)) resolve();
  }

  complete(): void {
    this.apply('complete');
    if (this.cancelRequested || this.#options.completable === false) throw invalid(`The active block job '${this.id}' cannot be completed`);
    this.#options.complete?.();
    this.#completed();
    this.kick();
  }

  finalize(): void {
    this.apply('finalize');
    void this.#transaction.finalize();
  }

  async dismiss(): Promise<void> {
    this.apply('dismiss');
    this.become('null');
    await this.#options.dismissed?.();
  }

  /** Ends a sleep. */
  kick(): void {
    this.#wake?.();
  }

  /** Throws where the job's status does not take the verb. */
  apply(verb: JobVerb): void {
    const legal = VERBS[verb].includes(this.#status);
    events.log?.emit('job_apply_verb', this, this.#status, verb, legal ? 'allowed' : 'prohibited');
    if (legal) return;
    throw invalid(`Job '${this.id}' in state '${this.#status}' cannot accept command verb '${verb}'`);
  }

  /** For the transaction. */
  become(next: JobStatus): void {
    const legal = TRANSITIONS[this.#status].includes(next);
    events.log?.emit('job_state_transition', this, 0, legal ? 'allowed' : 'disallowed', this.#status, next);
    if (!legal) throw new Error(`job '${this.id}': ${next} does not follow ${this.#status}`);
    if (next === this.#status) return;
    const before = this.#status;
    this.#status = next;
    this.#onStatus(this);
    if (next === 'ready' && before === 'running') this.#options.events?.ready?.();
    if (next === 'pending' && !this.autoFinalize) this.#options.events?.pending?.();
  }

  /** For the transaction: a failure becomes known, a cancelled job has failed. */
  settle(error: unknown = null): void {
    this.#error ??= error ?? (this.cancelled ? cancellation() : null);
    if (this.failed) this.become('aborting');
  }

  /** For the transaction: the last step that may fail. */
  async prepare(): Promise<void> {
    await this.#options.prepare?.();
  }

  /** For the transaction: what was done takes effect or is taken back; the job is told to have ended. */
  async conclude(): Promise<void> {
    this.settle();
    await this.#running.catch(() => undefined);
    try {
      await (this.failed ? this.#options.abort?.() : this.#options.commit?.());
    } catch (error) {
      if (!this.failed) this.settle(error);
    }
    await this.#options.clean?.().catch(() => undefined);
    if (this.#started) this.#options.events?.ended?.(this.cancelled);
    events.log?.emit('job_completed', this, this.failed ? -1 : 0);
    this.become('concluded');
    if (this.autoDismiss || !this.#started) await this.dismiss().catch(() => undefined);
    this.#end();
  }

  /** Resolves when `run` is over. */
  whenRan(): Promise<void> {
    return this.#ran || !this.#started ? Promise.resolve() : new Promise((resolve) => { this.#ranWaiters.push(resolve); });
  }

  async #work(): Promise<void> {
    let failure: unknown = null;
    try {
      await this.#pausePoint();
      this.#running = this.#options.run(this.#context());
      await (this.#options.abortsAtOnce === true ? this.#unlessCancelled(this.#running) : this.#running);
    } catch (error) {
      failure = error ?? new Error('unknown error');
    }
    this.#ran = true;
    this.#move(false);
    if (failure !== null) this.#error ??= failure;
    this.#busy = false;
    // whoever started it, or told it to end, hears first that this was done
    for (let turns = 2; turns > 0; turns--) await new Promise((resolve) => { setImmediate(resolve); });
    for (const resolve of this.#ranWaiters.splice(0)) resolve();
    await this.#transaction.jobRan(this);
  }

  #unlessCancelled(running: Promise<void>): Promise<void> {
    const { signal } = this.#abort;
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(cancellation()), { once: true });
      running.then(resolve, reject);
    });
  }

  #context(): JobContext {
    const isCancelled = (): boolean => this.cancelled;
    const isRequested = (): boolean => this.cancelRequested;
    return {
      progress: (current, total) => {
        this.#current = current;
        this.#total = total;
      },
      pausePoint: () => this.#pausePoint(),
      sleep: (ms) => this.#sleep(ms),
      becomeReady: () => { if (!this.#ran) this.become('ready'); },
      ready: async () => {
        this.become('ready');
        await new Promise<void>((resolve) => { this.#completed = resolve; });
        await this.#pausePoint();
      },
      get cancelled() { return isCancelled(); },
      get cancelRequested() { return isRequested(); },
      signal: this.#abort.signal,
    };
  }

  async #pausePoint(): Promise<void> {
    if (this.paused && !this.cancelled) await this.#options.beforePause?.();
    if (this.paused && !this.cancelled) {
      const before = this.#status;
      this.become(before === 'ready' ? 'standby' : 'paused');
      this.#move(true);
      while (this.paused && !this.cancelled) await this.#wait(Infinity);
      this.become(before);
      this.#move(false);
    }
    if (this.cancelled) throw cancellation();
  }

  async #sleep(ms: number): Promise<void> {
    if (!this.paused && !this.cancelled) await this.#wait(ms);
    await this.#pausePoint();
  }

  async #wait(ms: number): Promise<void> {
    this.#busy = false;
    const timer = new AbortController();
    const kicked = new Promise<void>((resolve) => { this.#wake = resolve; });
    await (ms === Infinity ? kicked : Promise.race([kicked, this.#clock.sleep(ms, timer.signal)]));
    timer.abort();
    this.#wake = null;
    this.#busy = true;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function cancellation(): BlockError {
  return new BlockError('CANCELLED', 'Operation canceled', { errno: 'ECANCELED' });
}

function invalid(message: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', message);
}
