/** Mirrors an image into another, files or exports by their names, in this process: nothing else may write the source. */
import { BlockError } from '../../base/errors.js';
import { systemClock, type Clock } from '../../base/clock.js';
import { BlockGraph } from '../../block/graph.js';
import type { BackingPolicy } from '../../image/backing-name.js';
import { openByName } from '../../image/open-name.js';
import { createImage } from '../../image/open.js';
import { CACHE_MODES, type CacheModeName } from '../../protocol/cache-mode.js';
import { isNbdName } from '../../nbd/name.js';
import { BlockJobs } from '../block-job.js';
import { JobTable } from '../job-table.js';
import { compareNodes } from './verify.js';
import { startMirror, type Mirror, type MirrorOptions } from './mirror.js';

export interface MirrorImageOptions extends Pick<MirrorOptions, 'sync' | 'speed' | 'granularity' | 'bufSize' | 'operations' | 'copyMode' | 'convergence'> {
  readonly sourceFormat?: 'raw' | 'qcow2' | undefined;
  readonly targetFormat?: 'raw' | 'qcow2' | undefined;
  /** Make the target anew, as large as the source. Never with an NBD export. */
  readonly createTarget: boolean;
  /** Compare both when all is copied; `CORRUPT` tells where they differ first. */
  readonly verify?: boolean | undefined;
  readonly cache?: CacheModeName | undefined;
  readonly backing?: BackingPolicy | undefined;
  /** Ends the mirror; what the target has got by then is there. */
  readonly signal?: AbortSignal | undefined;
  /** Ten times a second. */
  readonly onProgress?: ((mirror: Mirror) => void) | undefined;
  /** As QMP tells them. */
  readonly onEvent?: ((event: string, data: Readonly<Record<string, unknown>>) => void) | undefined;
  readonly clock?: Clock | undefined;
}

export interface MirroredImage {
  readonly bytes: number;
  /** What the target took. */
  readonly written: number;
}

const PROGRESS_MS = 100;

/** Resolves when the target is whole, flushed and closed. */
export async function mirrorImage(source: string, target: string, options: MirrorImageOptions): Promise<MirroredImage> {
  const { clock = systemClock, onEvent = () => undefined, cache = 'writeback' } = options;
  const graph = new BlockGraph();
  const table = new JobTable(({ id, status }) => onEvent('JOB_STATUS_CHANGE', { id, status }));
  const jobs = new BlockJobs(table, { emit: onEvent }, clock);
  const mode = CACHE_MODES[cache];
  const how = { 'cache.direct': mode.direct, 'cache.no-flush': mode.noFlush, discard: 'unmap' };
  const context = { backing: options.backing ?? 'same-dir' };
  try {
    const from = (await openByName(graph, source, options.sourceFormat ?? null, { ...how, 'read-only': true }, context)).node;
    const targetFormat = options.targetFormat ?? 'raw';
    if (options.createTarget && !isNbdName(target)) await createImage(target, { format: targetFormat, size: from.length() });
    const to = (await openByName(graph, target, targetFormat, how, context)).node;
    const mirror = await startMirror(graph, jobs, { ...options, jobId: 'mirror', source: from, target: to });
    await finish(mirror, clock, options);
    const { written } = mirror.figures();
    if (options.verify === true) await compareNodes(from, to, options.signal);
    return { bytes: from.length(), written };
  } finally {
    await table.close();
    await graph.closeAll();
  }
}

/** A mirror that is ready and cancelled softly has a target that is what the source was then. */
async function finish(mirror: Mirror, clock: Clock, { signal, onProgress }: MirrorImageOptions): Promise<void> {
  const { job } = mirror.blockJob;
  const cancel = (): void => job.cancel(true);
  if (signal?.aborted === true) cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  const over = new AbortController();
  void job.ended.then(() => over.abort());
  let asked = false;
  while (!over.signal.aborted) {
    if (job.isReady && !asked) {
      asked = true;
      job.cancel(false);
    }
    onProgress?.(mirror);
    await clock.sleep(asked ? PROGRESS_MS : PROGRESS_MS / 2, over.signal);
  }
  signal?.removeEventListener('abort', cancel);
  if (signal?.aborted === true) throw signal.reason;
  if (job.error !== null) throw new BlockError('IO', `the mirror failed: ${job.error}`);
}
