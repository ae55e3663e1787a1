/** Commit and stream on files that nothing else uses, in this process: a chain is opened, one job runs, all is closed. */
import path from 'node:path';
import { systemClock, type Clock } from '../base/clock.js';
import { BlockError, messageOf } from '../base/errors.js';
import { BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import type { BackingPolicy } from '../image/backing-name.js';
import { findBackingImage, findOverlay, nextImage } from '../image/chain.js';
import { nodeFilename } from '../image/filename.js';
import { openByName } from '../image/open-name.js';
import { CACHE_MODES, type CacheModeName } from '../protocol/cache-mode.js';
import { BlockJobs, type BlockJob } from './block-job.js';
import { startCommit } from './commit.js';
import { JobTable } from './job-table.js';
import { startStream } from './stream.js';

export interface ChainJobOptions {
  /** The image below that stays: its name, or as an image of the chain names it. */
  readonly base?: string | undefined;
  /** Default: probed. */
  readonly format?: string | undefined;
  readonly backing?: BackingPolicy | undefined;
  readonly cache?: CacheModeName | undefined;
  /** Bytes per second; 0 = no limit. */
  readonly speed?: number | undefined;
  /** Cancels: what was done by then is valid, and the images are whole. */
  readonly signal?: AbortSignal | undefined;
  /** Bytes of the disk that are dealt with, of how many. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /** As QMP tells them. */
  readonly onEvent?: ((event: string, data: Readonly<Record<string, unknown>>) => void) | undefined;
  readonly clock?: Clock | undefined;
}

export interface ChainJobResult {
  /** The image that the data came out of, or that took it over. */
  readonly image: string;
  /** What it lies on; null where it lies on nothing now. */
  readonly base: string | null;
  /** The size of its disk. */
  readonly bytes: number;
}

/**
 * Copies what an image, and the images between, have above `base` (by default the image below it) into the base, which
 * grows where it is smaller. The image itself stays as it is; images between it and the base are not valid any more.
 */
export function commitImage(name: string, options: ChainJobOptions = {}): Promise<ChainJobResult> {
  return onChain(name, true, options, async ({ graph, jobs, node, base }) => {
    const below = base ?? nextImage(node);
    if (below === null) throw new BlockError('INVALID_ARGUMENT', `'${name}' has no backing file to commit into`, { node: name });
    return { base: nodeFilename(below), job: await startCommit(graph, jobs, { jobId: 'commit', active: node, top: node, base: below, speed: options.speed }) };
  });
}

/** Copies what the images below have, down to `base` (by default all of them), into the image, which lies on the base, or on nothing, afterwards. */
export function streamImage(name: string, options: ChainJobOptions = {}): Promise<ChainJobResult> {
  return onChain(name, false, options, async ({ graph, jobs, node, base }) => {
    const backingFile = base === null ? undefined : keptRelative(node, base);
    return { base: base === null ? null : nodeFilename(base), job: await startStream(graph, jobs, { jobId: 'stream', node, base, backingFile, speed: options.speed }) };
  });
}

interface OpenChain {
  readonly graph: BlockGraph;
  readonly jobs: BlockJobs;
  readonly node: BlockNode;
  /** The image that was named. */
  readonly base: BlockNode | null;
}

async function onChain(
  name: string, readOnly: boolean, options: ChainJobOptions, start: (chain: OpenChain) => Promise<{ readonly base: string | null; readonly job: BlockJob }>,
): Promise<ChainJobResult> {
  const { clock = systemClock, signal } = options;
  const graph = new BlockGraph();
  const cache = CACHE_MODES[options.cache ?? 'writeback'];
  try {
    const { node } = await openByName(graph, name, options.format ?? null, {
      'read-only': readOnly, discard: 'unmap', 'cache.direct': cache.direct, 'cache.no-flush': cache.noFlush,
    }, { backing: options.backing });
    const base = options.base === undefined ? null : findBackingImage(node, path.resolve(options.base)) ?? findBackingImage(node, options.base);
    if (options.base !== undefined && base === null) throw new BlockError('NOT_FOUND', `'${options.base}' is not in the backing chain of '${name}'`, { node: name });
    signal?.throwIfAborted();
    const jobs = ownJobs(options);
    const started = await start({ graph, jobs, node, base });
    const bytes = node.length();
    await finish(started.job, clock, options);
    await graph.closeAll();
    return { image: name, base: started.base, bytes };
  } finally {
    await graph.closeAll().catch(() => undefined);
  }
}

/** For the one job of this process. */
export function ownJobs({ onEvent = () => undefined, clock }: Pick<ChainJobOptions, 'onEvent' | 'clock'>): BlockJobs {
  return new BlockJobs(new JobTable(({ id, status }) => onEvent('JOB_STATUS_CHANGE', { id, status })), { emit: onEvent }, clock);
}

const TOLD_EVERY_MS = 100;

/** Resolves when the job has completed; throws what it failed with. */
export async function finish(blockJob: BlockJob, clock: Clock, { signal, onProgress }: Pick<ChainJobOptions, 'signal' | 'onProgress'>): Promise<void> {
  const { job } = blockJob;
  const cancel = (): void => { if (job.status === 'running') job.cancel(); };
  signal?.addEventListener('abort', cancel);
  if (signal?.aborted === true) cancel();
  const ended = new AbortController();
  void job.ended.then(() => ended.abort());
  const tell = (): void => {
    const { offset, len } = blockJob.info();
    if (len > 0) onProgress?.(offset, len);
  };
  while (!ended.signal.aborted) {
    await clock.sleep(TOLD_EVERY_MS, ended.signal);
    tell();
  }
  signal?.removeEventListener('abort', cancel);
  if (job.cancelled) signal?.throwIfAborted();
  const { failure } = job;
  if (failure === null) return;
  // what happened, and not only the host's word for it
  if (failure instanceof BlockError) throw failure.cause instanceof BlockError ? failure.cause : failure;
  throw new BlockError('IO', messageOf(failure), { cause: failure });
}

/** Where the image below is named by its place beside its overlay, so it is by the image that takes that one's place. */
function keptRelative(node: BlockNode, base: BlockNode): string | undefined {
  const named = findOverlay(node, base)?.driver.describe?.().backingFile ?? null;
  if (named === null || path.isAbsolute(named) || named.includes(':')) return undefined;
  return path.relative(path.dirname(path.resolve(nodeFilename(node))), path.resolve(nodeFilename(base)));
}
