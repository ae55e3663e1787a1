/** Mirrors an image into another, files or exports by their names, in this process: nothing else may write the source. */
import { rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { BlockError } from '../../base/errors.js';
import { systemClock, type Clock } from '../../base/clock.js';
import { syncDirectory } from '../../base/directory.js';
import { BlockGraph } from '../../block/graph.js';
import type { BlockNode } from '../../block/node.js';
import type { BackingPolicy } from '../../image/backing-name.js';
import { formatByName, type FormatName } from '../../image/formats.js';
import { nextImage } from '../../image/chain.js';
import { nodeFilename } from '../../image/filename.js';
import { openByName } from '../../image/open-name.js';
import { createImage } from '../../image/open.js';
import { CACHE_MODES, type CacheModeName } from '../../protocol/cache-mode.js';
import { isFileName } from '../../image/tree-name.js';
import { isNbdName } from '../../nbd/name.js';
import { ownJobs } from '../chain-files.js';
import type { MirrorSync } from './begin.js';
import { startMirror, type Mirror, type MirrorOptions } from './mirror.js';
import { progressOf, type MirrorProgress } from './progress.js';
import { onTopOf, refuseToMake } from './sync-target.js';

export interface MirrorImageOptions extends Pick<MirrorOptions, 'speed' | 'granularity' | 'bufSize' | 'operations' | 'verify' | 'bitmap'> {
  /**
   * Default `full`, or `incremental` with a bitmap that the source keeps. With `top` a target that is made is an overlay of
   * what the source is one of; those by a bitmap bring a target up to date that is there.
   */
  readonly sync?: Exclude<MirrorSync, 'none'> | undefined;
  /** Default: probed. */
  readonly sourceFormat?: FormatName | undefined;
  /** Default: qcow2 for a name that ends so, else raw. */
  readonly targetFormat?: FormatName | undefined;
  /** Make the target (default), and refuse where there is one; false writes into what is there, which must be as large. An NBD export is never made. */
  readonly createTarget?: boolean | undefined;
  readonly cache?: CacheModeName | undefined;
  readonly backing?: BackingPolicy | undefined;
  /** Ends the mirror; a target that was made for it is removed. */
  readonly signal?: AbortSignal | undefined;
  /** Ten times a second. */
  readonly onProgress?: ((progress: MirrorProgress) => void) | undefined;
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

/** Resolves when the target is whole, flushed and closed. Of a mirror that fails no file is left. */
export async function mirrorImage(source: string, target: string, options: MirrorImageOptions = {}): Promise<MirroredImage> {
  const { clock = systemClock, targetFormat = isNbdName(target) ? 'raw' : formatByName(target), createTarget = true } = options;
  const graph = new BlockGraph();
  const jobs = ownJobs(options);
  const { sync = options.bitmap === undefined ? 'full' : 'incremental' } = options;
  let made = false;
  try {
    const from = await open(graph, source, options.sourceFormat ?? null, sync !== 'incremental', options);
    if (createTarget && isFileName(target)) {
      await makeTarget(target, targetFormat, from, sync);
      made = true;
    }
    // the image below one that was just made is open already
    const to = await open(graph, target, targetFormat, false, made ? { ...options, backing: 'allow' } : options);
    const mirror = await startMirror(graph, jobs, { ...options, jobId: 'mirror', source: from, target: to, sync });
    await finish(mirror, clock, options);
    const { written } = mirror.figures();
    const bytes = from.length();
    await jobs.jobs.close();
    await graph.closeAll();
    if (made) await syncDirectory(dirname(target));
    return { bytes, written };
  } catch (error) {
    await jobs.jobs.close().catch(() => undefined);
    await graph.closeAll().catch(() => undefined);
    // half a copy looks like a disk
    if (made) await rm(target, { force: true });
    throw error;
  }
}

async function open(graph: BlockGraph, name: string, format: FormatName | null, readOnly: boolean, { cache, backing }: MirrorImageOptions): Promise<BlockNode> {
  const mode = CACHE_MODES[cache ?? 'writeback'];
  const how = { 'read-only': readOnly, discard: 'unmap', 'cache.direct': mode.direct, 'cache.no-flush': mode.noFlush };
  return (await openByName(graph, name, format, how, { backing: backing ?? 'same-dir' })).node;
}

async function makeTarget(target: string, format: FormatName, source: BlockNode, sync: MirrorSync): Promise<void> {
  if (await stat(target).then(() => true, () => false)) throw new BlockError('EXISTS', `'${target}' is there already`, { node: target, errno: 'EEXIST' });
  refuseToMake(target, sync);
  const below = sync === 'top' ? nextImage(source) : null;
  await createImage(target, { format, size: source.length(), ...below === null ? {} : onTopOf(nodeFilename(below), below.driver.formatName) });
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
    onProgress?.(progressOf(mirror));
    await clock.sleep(asked ? PROGRESS_MS : PROGRESS_MS / 2, over.signal);
  }
  signal?.removeEventListener('abort', cancel);
  if (signal?.aborted === true) throw signal.reason;
  if (job.error !== null) throw new BlockError('IO', `the mirror failed: ${job.error}`);
}
