/** What a backup cannot be made of, in QEMU's words and in its order. */
import { alignUp } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import type { DirtyBitmap } from '../../block/dirty-bitmap.js';
import { refuseBlocked } from '../../block/graph.js';
import type { BackupOptions, BackupSync, BitmapMode } from './backup.js';

/** What was asked for, with the words that mean the same made one. */
export interface BackupPlan {
  readonly sync: Exclude<BackupSync, 'incremental'>;
  readonly bitmap: DirtyBitmap | null;
  readonly bitmapMode: BitmapMode;
}

const MAX_INT = 2 ** 31 - 1;
const SECTOR = 512;

export function planBackup(options: BackupOptions): BackupPlan {
  const { sync, bitmapMode } = options;
  const name = options.bitmap;
  if ((sync === 'bitmap' || sync === 'incremental') && name === undefined) refuse(`must provide a valid bitmap name for '${sync}' sync mode`);
  if (sync === 'incremental' && bitmapMode !== undefined && bitmapMode !== 'on-success') {
    refuse("Bitmap sync mode must be 'on-success' when using sync mode 'incremental'");
  }
  const plan = sync === 'incremental' ? { sync: 'bitmap', bitmapMode: 'on-success' } as const : { sync, bitmapMode };
  const bitmap = name === undefined ? null : givenBitmap(options, name, plan);
  if (name === undefined && bitmapMode !== undefined) refuse('Cannot specify bitmap sync mode without a bitmap');
  refuseNodes(options);
  if (bitmap !== null && plan.bitmapMode !== 'never') bitmap.check('busy', 'readOnly', 'inconsistent');
  return { sync: plan.sync, bitmap, bitmapMode: plan.bitmapMode ?? 'never' };
}

function givenBitmap({ source }: BackupOptions, name: string, { sync, bitmapMode }: { readonly sync: BackupSync; readonly bitmapMode: BitmapMode | undefined }): DirtyBitmap {
  const bitmap = source.bitmaps.get(name);
  if (bitmap === undefined) throw new BlockError('NOT_FOUND', `Bitmap '${name}' could not be found`);
  if (bitmapMode === undefined) refuse('Bitmap sync mode must be given when providing a bitmap');
  bitmap.check('busy', 'inconsistent');
  if (sync === 'none') refuse("sync mode 'none' does not produce meaningful bitmap outputs");
  if (bitmapMode === 'never' && sync !== 'bitmap') refuse(`Bitmap sync mode 'never' has no meaningful effect when combined with sync mode '${sync}'`);
  return bitmap;
}

function refuseNodes({ source, target, compress, maxWorkers = 1, maxChunk = 0 }: BackupOptions): void {
  if (source === target) refuse('Source and target cannot be the same');
  if (compress === true) {
    throw new BlockError('NOT_SUPPORTED', target.driver.formatName === 'qcow2' ? 'Compressed backups are not supported' : 'Compression is not supported for this drive ');
  }
  refuseBlocked(source);
  refuseBlocked(target);
  if (maxWorkers < 1 || maxWorkers > MAX_INT) refuse(`max-workers must be between 1 and ${MAX_INT}`);
  if (maxChunk < 0) refuse('max-chunk must be zero (which means no limit) or positive');
}

/** QEMU looks at lengths when it has frozen the bitmap. */
export function refuseLengths({ source, target }: BackupOptions): void {
  if (alignUp(source.length(), SECTOR) !== alignUp(target.length(), SECTOR)) refuse('Source and target image have different sizes');
}

export function refuseChunk({ maxChunk = 0 }: BackupOptions, clusterSize: number): void {
  if (maxChunk !== 0 && maxChunk < clusterSize) refuse(`Required max-chunk (${maxChunk}) is less than backup cluster size (${clusterSize})`);
}

function refuse(why: string): never {
  throw new BlockError('INVALID_ARGUMENT', why);
}
