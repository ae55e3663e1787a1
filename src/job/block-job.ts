/**
 * A job that works on nodes: how fast it goes, what it does about errors, and what is told of it, as QEMU's blockjob.c
 * does. What a kind of job does is its `JobWork`, made with the BlockJob in hand.
 */
import { systemClock, type Clock } from '../base/clock.js';
import { BlockError, errnoOf } from '../base/errors.js';
import type { BlockGraph } from '../block/graph.js';
import type { BlockNode, OperationBlocker } from '../block/node.js';
import { makeTask } from '../block/request.js';
import type { TraceTask } from '../trace/sink.js';
import { NO_USE, type EdgeUse, type NodeUser } from '../block/permissions.js';
import type { Job, JobWork } from './job.js';
import type { JobTable } from './job-table.js';
import type { JobTransaction } from './job-transaction.js';
import { RateLimit } from './rate-limit.js';

/** QAPI's BlockdevOnError. */
export type OnError = 'report' | 'ignore' | 'enospc' | 'stop' | 'auto';
export type ErrorAction = 'report' | 'ignore' | 'stop';
export type IoStatus = 'ok' | 'failed' | 'nospace';
export type BlockJobType = 'mirror' | 'commit' | 'stream' | 'backup';

/** QMP's events of block jobs, with their data but for what is the job's own. */
export interface BlockJobListener {
  emit(event: string, data: Readonly<Record<string, string | number | boolean>>): void;
}

export interface BlockJobOptions {
  readonly id: string;
  readonly type: BlockJobType;
  /** Bytes per second; 0 = no limit. */
  readonly speed?: number | undefined;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
  readonly transaction?: JobTransaction | undefined;
}

/** The block jobs of one process, among its jobs. */
export class BlockJobs {
  readonly jobs: JobTable;
  readonly clock: Clock;
  readonly listener: BlockJobListener;
  readonly #blockJobs = new Map<Job, BlockJob>();

  constructor(jobs: JobTable, listener: BlockJobListener, clock: Clock = systemClock) {
    this.jobs = jobs;
    this.listener = listener;
    this.clock = clock;
  }

  /** Refused as QEMU refuses it: a bad id, one that is taken, a negative speed. `makeWork` may refuse as well. */
  create(options: BlockJobOptions, makeWork: (self: BlockJob) => JobWork): BlockJob {
    const made = new BlockJob(this, options, makeWork);
    this.#blockJobs.set(made.job, made);
    return made;
  }

  find(id: string): BlockJob | undefined { return this.list().find(({ job }) => job.id === id); }

  /** Newest first. */
  list(): readonly BlockJob[] {
    for (const job of this.#blockJobs.keys()) if (job.status === 'null') this.#blockJobs.delete(job);
    return [...this.#blockJobs.values()].reverse();
  }
}

export interface BlockJobInfo {
  readonly type: string;
  readonly device: string;
  readonly len: number;
  readonly offset: number;
  readonly busy: boolean;
  readonly paused: boolean;
  readonly speed: number;
  readonly ioStatus: IoStatus;
  readonly ready: boolean;
  readonly status: string;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  readonly error: string | null;
}

/** How a job holds a node that it works on; what it reads and writes goes through doors and edges of its own. */
export class JobEdge implements NodeUser {
  readonly edge: string;
  readonly staysAtNode = true;
  use: EdgeUse = NO_USE;
  readonly #jobId: string;
  #node: BlockNode;

  constructor(jobId: string, role: string, node: BlockNode) {
    this.#jobId = jobId;
    this.edge = role;
    this.#node = node;
  }

  get node(): BlockNode { return this.#node; }
  describe(): string { return `block job '${this.#jobId}'`; }

  replace(node: BlockNode): void {
    node.parents.add(this);
    if (this.#node !== node) this.#node.parents.delete(this);
    this.#node = node;
  }
}

export class BlockJob {
  readonly job: Job;
  readonly type: BlockJobType;
  readonly clock: Clock;
  /** How traces call it. */
  readonly task: TraceTask;
  readonly #listener: BlockJobListener;
  readonly #limit: RateLimit;
  readonly #nodes: JobEdge[] = [];
  readonly #blocker: OperationBlocker;
  readonly #work: JobWork;
  #speed = 0;
  #ioStatus: IoStatus = 'ok';

  /** By BlockJobs.create. */
  constructor({ jobs, listener, clock }: BlockJobs, options: BlockJobOptions, makeWork: (self: BlockJob) => JobWork) {
    const { id, type, speed = 0, autoFinalize, autoDismiss, transaction } = options;
    jobs.checkId(id);
    this.type = type;
    this.task = makeTask(`${type} ${id}`, type);
    this.#blocker = { reason: `block device is in use by block job: ${type}` };
    this.clock = clock;
    this.#listener = listener;
    this.#limit = new RateLimit(clock);
    const work = makeWork(this);
    this.#work = work;
    this.job = jobs.create({
      id, type, clock, autoFinalize, autoDismiss, transaction,
      run: (context) => work.run(context),
      prepare: async () => work.prepare?.(),
      commit: async () => work.commit?.(),
      abort: async () => work.abort?.(),
      abortsAtOnce: work.abortsAtOnce ?? false,
      clean: async () => work.clean?.(),
      dismissed: async () => work.dismissed?.(),
      complete: () => work.complete?.(),
      completable: work.completable ?? work.complete !== undefined,
      cancel: (force) => work.cancel?.(force) ?? true,
      idle: () => work.idle?.() ?? false,
      beforePause: async () => work.beforePause?.(),
      userResumed: () => {
        this.#ioStatus = 'ok';
        work.userResumed?.();
      },
      events: {
        ready: () => this.#emit('BLOCK_JOB_READY', this.#facts()),
        pending: () => this.#emit('BLOCK_JOB_PENDING', { type, id }),
        ended: (cancelled) => this.#emit(cancelled ? 'BLOCK_JOB_CANCELLED' : 'BLOCK_JOB_COMPLETED', {
          ...this.#facts(), ...(cancelled || this.job.error === null ? {} : { error: this.job.error }),
        }),
      },
    });
    try {
      this.#takeSpeed(speed);
    } catch (error) {
      this.job.failEarly();
      throw error;
    }
  }

  /** The nodes that it works on, oldest first. */
  get nodes(): readonly JobEdge[] { return this.#nodes; }

  /** Works on a node, in the role that QEMU names: commands that would change the node are refused from now on. */
  async addNode(graph: BlockGraph, role: string, node: BlockNode, use: EdgeUse): Promise<void> {
    const edge = new JobEdge(this.job.id, role, node);
    await graph.hold(node, edge, use);
    node.blockers.add(this.#blocker);
    this.#nodes.push(edge);
  }

  /** Lets go of all nodes; what nobody else holds is closed. Throws the first error, after all. */
  async releaseNodes(graph: BlockGraph): Promise<void> {
    const errors: unknown[] = [];
    const edges = this.#nodes.splice(0);
    for (const { node } of edges) node.blockers.delete(this.#blocker);
    for (const edge of edges) await graph.release(edge.node, edge).catch((error: unknown) => errors.push(error));
    if (errors.length > 0) throw errors[0];
  }

  get speed(): number { return this.#speed; }
  get ioStatus(): IoStatus { return this.#ioStatus; }

  /** In bytes per second; 0 = no limit. Takes effect at once. */
  setSpeed(speed: number): void {
    this.job.apply('set-speed');
    const before = this.#speed;
    this.#takeSpeed(speed);
    this.#work.speedChanged?.();
    // who waits for a slower one to allow more need not wait any longer
    if (speed === 0 || speed > before) this.job.kick();
  }

  /** Counts work that has begun; returns for how many milliseconds nothing more may begin. */
  spend(bytes: number): number {
    return this.#limit.spend(bytes);
  }

  /** What to do about an error, which is told to everyone. `stop` has paused the job: the work goes to its next pause point and tries again. */
  onError(policy: OnError, operation: 'read' | 'write', error: unknown): ErrorAction {
    const noSpace = errnoOf(error) === 'ENOSPC' || (error instanceof BlockError && error.code === 'NO_SPACE');
    const action = policy === 'enospc' || policy === 'auto' ? (noSpace ? 'stop' : 'report') : policy;
    this.#emit('BLOCK_JOB_ERROR', { device: this.job.id, operation, action });
    if (action === 'stop') {
      this.job.pauseByUser();
      if (this.#ioStatus === 'ok') this.#ioStatus = noSpace ? 'nospace' : 'failed';
    }
    return action;
  }

  /** Something of ours that QEMU does not tell. */
  tell(event: string, data: Readonly<Record<string, string | number | boolean>>): void {
    this.#emit(event, data);
  }

  info(): BlockJobInfo {
    const { job } = this;
    const { currentProgress, totalProgress, error } = job.info();
    return {
      type: this.type, device: job.id, len: totalProgress, offset: currentProgress, busy: job.busy, paused: job.paused, speed: this.#speed,
      ioStatus: this.#ioStatus, ready: job.isReady, status: job.status, autoFinalize: job.autoFinalize, autoDismiss: job.autoDismiss, error,
    };
  }

  #facts(): Record<string, string | number> {
    const { currentProgress, totalProgress } = this.job.info();
    return { type: this.type, device: this.job.id, len: totalProgress, offset: currentProgress, speed: this.#speed };
  }

  #takeSpeed(speed: number): void {
    if (speed < 0) throw new BlockError('INVALID_ARGUMENT', "Parameter 'speed' expects a non-negative value");
    this.#speed = speed;
    this.#limit.speed = speed;
  }

  #emit(event: string, data: Readonly<Record<string, string | number | boolean>>): void {
    this.#listener.emit(event, data);
  }
}
