/**
 * Jobs as QEMU has them: which states follow which, which verbs each state takes, and who hears of it. What a job does
 * is its `run`; it asks `pausePoint` now and then, where it may be paused or cancelled.
 */
import { BlockError } from '../base/errors.js';

export type JobStatus =
  | 'undefined' | 'created' | 'running' | 'paused' | 'ready' | 'standby' | 'waiting' | 'pending' | 'aborting' | 'concluded' | 'null';

export type JobVerb = 'cancel' | 'pause' | 'resume' | 'set-speed' | 'complete' | 'finalize' | 'dismiss';

export const TRANSITIONS: Readonly<Record<JobStatus, readonly JobStatus[]>> = {
  undefined: ['created'],
  created: ['running', 'aborting', 'null'],
  running: ['paused', 'ready', 'waiting', 'aborting'],
  paused: ['running'],
  ready: ['standby', 'waiting', 'aborting'],
  standby: ['ready'],
  waiting: ['pending', 'aborting'],
  pending: ['aborting', 'concluded'],
  aborting: ['aborting', 'concluded'],
  concluded: ['null'],
  null: [],
};

const ALIVE: readonly JobStatus[] = ['created', 'running', 'paused', 'ready', 'standby'];

export const VERBS: Readonly<Record<JobVerb, readonly JobStatus[]>> = {
  cancel: [...ALIVE, 'waiting', 'pending'],
  pause: ALIVE,
  resume: ALIVE,
  'set-speed': ALIVE,
  complete: ['ready', 'standby'],
  finalize: ['pending'],
  dismiss: ['concluded'],
};

/** What a job's work can do to its job. */
export interface JobContext {
  /** How far it is, in units of its own. */
  progress(current: number, total: number): void;
  /** Resolves at once, or when the job is resumed; throws where it was cancelled. */
  pausePoint(): Promise<void>;
  /** Nothing is left but to be told to complete: resolves then. */
  ready(): Promise<void>;
  readonly cancelled: boolean;
}

export interface JobOptions {
  readonly id: string;
  /** QAPI's JobType. */
  readonly type: string;
  /** Default true: what the job did takes effect without being asked. */
  readonly autoFinalize?: boolean;
  /** Default true: a job that ended is forgotten without being asked. */
  readonly autoDismiss?: boolean;
  run(context: JobContext): Promise<void>;
  /** Makes what was done take effect. */
  commit?(): Promise<void>;
  /** Takes it back. */
  abort?(): Promise<void>;
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
  readonly #onStatus: (job: Job) => void;
  #status: JobStatus = 'undefined';
  #current = 0;
  #total = 0;
  #error: string | null = null;
  #cancelled = false;
  #userPaused = false;
  #wake: () => void = () => undefined;
  #complete: () => void = () => undefined;
  #finalize: () => void = () => undefined;
  #ended: Promise<void> = Promise.resolve();

  constructor(options: JobOptions, onStatus: (job: Job) => void) {
    this.id = options.id;
    this.type = options.type;
    this.#options = options;
    this.#onStatus = onStatus;
    this.#become('created');
  }

  get status(): JobStatus { return this.#status; }
  /** Resolves when the job has concluded, however it went. */
  get ended(): Promise<void> { return this.#ended; }

  info(): JobInfo {
    return {
      id: this.id, type: this.type, status: this.#status, currentProgress: this.#current, totalProgress: this.#total, error: this.#error,
    };
  }

  start(): void {
    this.#become('running');
    this.#ended = this.#work();
  }

  /** Ends the job at its next pause point; what it did is taken back. */
  cancel(): void {
    this.#apply('cancel');
    this.#cancelled = true;
    this.#userPaused = false;
    this.#wake();
    this.#complete();
    this.#finalize();
  }

  pause(): void {
    this.#apply('pause');
    if (this.#userPaused) throw invalid('Job is already paused');
    this.#userPaused = true;
  }

  resume(): void {
    if (!this.#userPaused) throw invalid("Can't resume a job that was not paused");
    this.#apply('resume');
    this.#userPaused = false;
    this.#wake();
  }

  complete(): void {
    this.#apply('complete');
    if (this.#cancelled) throw invalid(`The active block job '${this.id}' cannot be completed`);
    this.#complete();
  }

  finalize(): void {
    this.#apply('finalize');
    this.#finalize();
  }

  dismiss(): void {
    this.#apply('dismiss');
    this.#become('null');
  }

  async #work(): Promise<void> {
    try {
      await this.#options.run(this.#context());
      if (this.#cancelled) throw new BlockError('CANCELLED', 'Operation canceled');
      this.#become('waiting');
      this.#become('pending');
      if (this.#options.autoFinalize === false) await this.#untilFinalized();
      await this.#options.commit?.();
      this.#become('concluded');
    } catch (error) {
      this.#error ??= error instanceof Error ? error.message : String(error);
      this.#become('aborting');
      await this.#options.abort?.().catch(() => undefined);
      this.#become('concluded');
    }
    if (this.#options.autoDismiss !== false) this.dismiss();
  }

  async #untilFinalized(): Promise<void> {
    await new Promise<void>((resolve) => { this.#finalize = resolve; });
    if (this.#cancelled) throw new BlockError('CANCELLED', 'Operation canceled');
  }

  #context(): JobContext {
    const isCancelled = (): boolean => this.#cancelled;
    return {
      progress: (current, total) => {
        this.#current = current;
        this.#total = total;
      },
      pausePoint: () => this.#pausePoint(),
      ready: () => this.#becomeReady(),
      get cancelled() { return isCancelled(); },
    };
  }

  async #pausePoint(): Promise<void> {
    while (this.#userPaused) {
      const before = this.#status;
      this.#become(before === 'ready' ? 'standby' : 'paused');
      await new Promise<void>((resolve) => { this.#wake = resolve; });
      this.#become(before);
    }
    if (this.#cancelled) throw new BlockError('CANCELLED', 'Operation canceled');
  }

  async #becomeReady(): Promise<void> {
    this.#become('ready');
    await new Promise<void>((resolve) => { this.#complete = resolve; });
    await this.#pausePoint();
  }

  #apply(verb: JobVerb): void {
    if (VERBS[verb].includes(this.#status)) return;
    throw invalid(`Job '${this.id}' in state '${this.#status}' cannot accept command verb '${verb}'`);
  }

  #become(next: JobStatus): void {
    if (!TRANSITIONS[this.#status].includes(next)) throw new Error(`job '${this.id}': ${next} does not follow ${this.#status}`);
    this.#status = next;
    this.#onStatus(this);
  }
}

/** The jobs of one process, by id. */
export class JobTable {
  readonly #jobs = new Map<string, Job>();
  readonly #onStatus: (job: Job) => void;

  constructor(onStatus: (job: Job) => void) {
    this.#onStatus = onStatus;
  }

  create(options: JobOptions): Job {
    if (!/^[A-Za-z][A-Za-z0-9._-]*$/.test(options.id)) throw invalid(`Invalid job ID '${options.id}'`);
    if (this.#jobs.has(options.id)) throw new BlockError('EXISTS', `Job ID '${options.id}' already in use`);
    const job = new Job(options, (changed) => {
      if (changed.status === 'null') this.#jobs.delete(changed.id);
      this.#onStatus(changed);
    });
    this.#jobs.set(job.id, job);
    return job;
  }

  get(id: string): Job {
    const job = this.#jobs.get(id);
    if (job === undefined) throw new BlockError('NOT_FOUND', 'Job not found');
    return job;
  }

  /** Newest first. */
  list(): readonly Job[] { return [...this.#jobs.values()].reverse(); }

  /** Forgets the jobs that have ended, newest first. */
  dismissEnded(): void {
    for (const job of this.list()) if (job.status === 'concluded') job.dismiss();
  }

  /** Cancels what can be, waits for all, and forgets them. */
  async close(): Promise<void> {
    for (const job of this.list()) {
      if (VERBS.cancel.includes(job.status)) job.cancel();
      await job.ended;
    }
    this.dismissEnded();
  }
}

function invalid(message: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', message);
}
