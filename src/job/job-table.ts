/** The jobs of one process, by id. */
import { BlockError } from '../base/errors.js';
import { Job, type JobOptions } from './job.js';
import { VERBS } from './job-states.js';

export class JobTable {
  readonly #jobs = new Map<string, Job>();
  readonly #onStatus: (job: Job) => void;

  constructor(onStatus: (job: Job) => void) {
    this.#onStatus = onStatus;
  }

  /** Throws QEMU's refusal where a job cannot have this id. */
  checkId(id: string): void {
    if (!/^[A-Za-z][A-Za-z0-9._-]*$/.test(id)) throw new BlockError('INVALID_ARGUMENT', `Invalid job ID '${id}'`);
    if (this.#jobs.has(id)) throw new BlockError('EXISTS', `Job ID '${id}' already in use`);
  }

  create(options: JobOptions): Job {
    this.checkId(options.id);
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
  async dismissEnded(): Promise<void> {
    await Promise.all(this.list().filter((job) => job.status === 'concluded').map((job) => job.dismiss()));
  }

  /** Cancels what can be, waits for all, and forgets them. */
  async close(): Promise<void> {
    for (const job of this.list()) {
      if (VERBS.cancel.includes(job.status)) job.cancel();
      await job.ended;
    }
    await this.dismissEnded();
  }
}
