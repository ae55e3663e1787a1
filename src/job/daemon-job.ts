/** A block job of a storage daemon, ours or QEMU's, driven over QMP to its end. */
import { systemClock, type Clock } from '../base/clock.js';
import { BlockError } from '../base/errors.js';
import { QmpClient } from '../qmp/client.js';
import { expectList, type JsonObject } from '../qmp/wire.js';

export interface DaemonJobRequest {
  /** The daemon's QMP socket. */
  readonly daemon: string;
  /** `block-commit`, `block-stream`, … */
  readonly command: string;
  /** Without `job-id`, `auto-finalize` and `auto-dismiss`. */
  readonly args: JsonObject;
  readonly jobId?: string | undefined;
  /** Cancels the job, and waits for its end. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /** As QMP tells them. */
  readonly onEvent?: ((event: string, data: JsonObject) => void) | undefined;
  readonly clock?: Clock | undefined;
}

const ASK_EVERY_MS = 200;

/** Starts the job, completes it when it is ready, and resolves when it has concluded; throws what it failed with. */
export async function runDaemonJob(request: DaemonJobRequest): Promise<void> {
  const { clock = systemClock, signal, jobId = `quiesce-${process.pid}` } = request;
  const qmp = await QmpClient.connect(request.daemon, { signal });
  try {
    qmp.subscribe(({ name, data }) => { if (data['device'] === jobId || data['id'] === jobId) request.onEvent?.(name, data); });
    await qmp.execute(request.command, { ...request.args, 'job-id': jobId, 'auto-dismiss': false });
    let told: 'complete' | 'cancel' | null = null;
    for (;;) {
      const job = expectList('query-jobs', await qmp.execute('query-jobs')).find(({ id }) => id === jobId);
      if (job === undefined) throw new BlockError('PEER', `the job '${jobId}' is gone: somebody else dismissed it`);
      const status = String(job['status']);
      if (typeof job['current-progress'] === 'number' && typeof job['total-progress'] === 'number') request.onProgress?.(job['current-progress'], job['total-progress']);
      if (status === 'concluded') return await conclude(qmp, jobId, job, signal);
      // a job that is about to end takes neither
      if (signal?.aborted === true && told !== 'cancel') told = await attempt(qmp, 'job-cancel', jobId) ? 'cancel' : told;
      else if (status === 'ready' && told === null) told = await attempt(qmp, 'job-complete', jobId) ? 'complete' : null;
      await clock.sleep(ASK_EVERY_MS, told === 'cancel' ? undefined : signal).catch(() => undefined);
    }
  } finally {
    qmp.close();
  }
}

async function attempt(qmp: QmpClient, command: string, id: string): Promise<boolean> {
  return qmp.execute(command, { id }).then(() => true, () => false);
}

async function conclude(qmp: QmpClient, id: string, job: JsonObject, signal: AbortSignal | undefined): Promise<void> {
  await qmp.execute('job-dismiss', { id });
  const { error } = job;
  if (typeof error !== 'string') return;
  signal?.throwIfAborted();
  throw new BlockError('PEER', `the job failed: ${error}`);
}
