/**
 * Jobs that end together: all take effect, or none does. A job of its own is a transaction of one. The order of steps and
 * events is QEMU's (job.c): a job that has run waits; when all have, they are pending; then all prepare, then all commit.
 */
import type { Job } from './job.js';

export class JobTransaction {
  /** Newest first, as QEMU goes through them. */
  readonly #jobs: Job[] = [];
  #ended: Promise<void> = Promise.resolve();
  #aborting = false;
  #finalizing = false;

  /** Nothing can end the jobs any more but a failure of their own. */
  get finalizing(): boolean { return this.#finalizing; }

  /** Resolves when all of them have concluded. */
  get ended(): Promise<void> { return this.#ended; }

  add(job: Job): void {
    this.#jobs.unshift(job);
    this.#ended = Promise.all([this.#ended, job.ended]).then(() => undefined);
  }

  /** A job's work is over. */
  async jobRan(job: Job): Promise<void> {
    // whoever aborts waits for it, and concludes it
    if (this.#aborting) return;
    job.settle();
    if (job.failed) return this.abort(job);
    job.become('waiting');
    if (!this.#jobs.every((other) => other.status === 'waiting')) return;
    for (const one of this.#jobs) one.become('pending');
    if (this.#jobs.every((one) => one.autoFinalize)) await this.finalize();
  }

  /** All jobs are pending: makes what they did take effect. */
  async finalize(): Promise<void> {
    if (this.#finalizing) return;
    this.#finalizing = true;
    for (const job of this.#jobs) {
      try {
        await job.prepare();
      } catch (error) {
        job.settle(error);
        return this.abort(job);
      }
    }
    await this.#concludeAll();
  }

  /** One job has failed or was cancelled: the others are cancelled, and what all of them did is taken back. */
  async abort(job: Job): Promise<void> {
    if (this.#aborting) return;
    this.#aborting = true;
    for (const other of this.#jobs) if (other !== job) other.cancelNow(true);
    for (const other of this.#jobs) await other.whenRan();
    await this.#concludeAll();
  }

  async #concludeAll(): Promise<void> {
    for (const job of this.#jobs.splice(0)) await job.conclude();
  }
}
