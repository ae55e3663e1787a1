/** A backup of an image that nothing else uses, into a file that is made for it, or one that is there; in this process. */
import { rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { systemClock } from '../../base/clock.js';
import { syncDirectory } from '../../base/directory.js';
import { BlockError } from '../../base/errors.js';
import { BlockGraph } from '../../block/graph.js';
import type { BlockNode } from '../../block/node.js';
import type { FormatName } from '../../image/formats.js';
import { openByName } from '../../image/open-name.js';
import { createImage } from '../../image/open.js';
import { isFileName } from '../../image/tree-name.js';
import { CACHE_MODES } from '../../protocol/cache-mode.js';
import { finish, ownJobs, type ChainJobOptions } from '../chain-files.js';
import { startBackup, type BackupSync, type BitmapMode } from './backup.js';

export interface BackupImageOptions extends Omit<ChainJobOptions, 'base' | 'format'> {
  /** Default `full`, or `incremental` with a bitmap. */
  readonly sync?: Exclude<BackupSync, 'none'> | undefined;
  /** A bitmap that the image keeps. */
  readonly bitmap?: string | undefined;
  readonly bitmapMode?: BitmapMode | undefined;
  /** Default: probed. */
  readonly sourceFormat?: FormatName | undefined;
  /** Default qcow2; where the target is there, probed. */
  readonly targetFormat?: FormatName | undefined;
  /** Make the target (default), and refuse where there is one; false writes into what is there, which must be as large. An NBD export is never made. */
  readonly createTarget?: boolean | undefined;
  /** The backup before this one: the new file is an overlay of it. */
  readonly previous?: string | undefined;
}

export interface BackupImageResult {
  /** The size of the disk. */
  readonly bytes: number;
  /** Bytes of the clusters that were gone through: copied, zeroed or found to be zero. */
  readonly processed: number;
}

/** What was copied is durable when it resolves, and only then is the bitmap brought up to date. Of a backup that fails no file is left. */
export async function backupImage(source: string, target: string, options: BackupImageOptions = {}): Promise<BackupImageResult> {
  const graph = new BlockGraph();
  let made = false;
  try {
    const from = await open(graph, source, options.sourceFormat ?? null, options.bitmap === undefined, options);
    const create = options.createTarget !== false && isFileName(target);
    if (create) {
      await makeTarget(target, from, options);
      made = true;
    }
    const to = await open(graph, target, options.targetFormat ?? (create ? 'qcow2' : null), false, options);
    const processed = await run(graph, from, to, options);
    // the copy is safe; the bitmap, which is stored now, says so
    if (made) await syncDirectory(dirname(target));
    made = false;
    const bytes = from.length();
    await graph.closeAll();
    return { bytes, processed };
  } catch (error) {
    await graph.closeAll().catch(() => undefined);
    if (made) await rm(target, { force: true });
    throw error;
  }
}

async function run(graph: BlockGraph, source: BlockNode, target: BlockNode, options: BackupImageOptions): Promise<number> {
  const { bitmap, bitmapMode, speed, clock = systemClock } = options;
  const sync = options.sync ?? (bitmap === undefined ? 'full' : 'incremental');
  const jobs = ownJobs(options);
  options.signal?.throwIfAborted();
  const blockJob = await startBackup(graph, jobs, {
    jobId: 'backup', source, target, sync, bitmap, bitmapMode: bitmapMode ?? (bitmap === undefined ? undefined : 'on-success'), speed,
  });
  await finish(blockJob, clock, options);
  return blockJob.job.info().currentProgress;
}

async function makeTarget(target: string, source: BlockNode, { targetFormat = 'qcow2', previous, backing }: BackupImageOptions): Promise<void> {
  if (await stat(target).then(() => true, () => false)) throw new BlockError('EXISTS', `'${target}' is there already`, { node: target, errno: 'EEXIST' });
  if (previous !== undefined && targetFormat !== 'qcow2') throw new BlockError('INVALID_ARGUMENT', `a ${targetFormat} file cannot lie on an earlier backup`);
  await createImage(target, { format: targetFormat, size: source.length(), ...(previous === undefined ? {} : { backingFile: previous, backingFormat: 'qcow2', backing: backing ?? 'allow' }) });
}

async function open(graph: BlockGraph, name: string, format: string | null, readOnly: boolean, { cache, backing }: BackupImageOptions): Promise<BlockNode> {
  const mode = CACHE_MODES[cache ?? 'writeback'];
  const { node } = await openByName(graph, name, format, {
    'read-only': readOnly, discard: 'unmap', 'cache.direct': mode.direct, 'cache.no-flush': mode.noFlush,
  }, { backing });
  return node;
}
