/**
 * Bounded parallelism with a sticky first error (QEMU's aio_task_pool): once a task failed, `run` refuses new tasks and
 * `drain` reports that error, however many others failed after it.
 */
export class TaskPool {
  readonly #limit: number;
  #running = 0;
  #error: unknown = undefined;
  #failed = false;
  #slotWaiters: (() => void)[] = [];
  #idleWaiters: (() => void)[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  get running(): number { return this.#running; }
  get failed(): boolean { return this.#failed; }

  /** Waits for a free slot, then starts the task; resolves when it has *started*. Throws the sticky error. */
  async run(task: () => Promise<void>): Promise<void> {
    while (this.#running >= this.#limit && !this.#failed) {
      await new Promise<void>((resolve) => this.#slotWaiters.push(resolve));
    }
    if (this.#failed) throw this.#error;
    this.#running++;
    void this.#execute(task);
  }

  /** Adopts work that has begun already; resolves when there is room for more. Throws the sticky error. */
  async add(work: Promise<void>): Promise<void> {
    this.#running++;
    void this.#execute(() => work);
    while (this.#running >= this.#limit && !this.#failed) {
      await new Promise<void>((resolve) => this.#slotWaiters.push(resolve));
    }
    if (this.#failed) throw this.#error;
  }

  /** Waits for all running tasks, then throws the first error if there was one. */
  async drain(): Promise<void> {
    while (this.#running > 0) await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
    if (this.#failed) throw this.#error;
  }

  async #execute(task: () => Promise<void>): Promise<void> {
    try {
      await task();
    } catch (error) {
      if (!this.#failed) {
        this.#failed = true;
        this.#error = error;
      }
    }
    this.#running--;
    const wake = this.#failed ? this.#slotWaiters.splice(0) : this.#slotWaiters.splice(0, 1);
    for (const waiter of wake) waiter();
    if (this.#running === 0) for (const waiter of this.#idleWaiters.splice(0)) waiter();
  }
}
