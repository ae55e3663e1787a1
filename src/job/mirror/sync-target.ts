/** Files that are made as targets of mirrors: which sync modes can do with a new one, and what it lies on. */
import { resolve } from 'node:path';
import { BlockError } from '../../base/errors.js';
import type { CreateImageOptions } from '../../image/open.js';
import { isFileName } from '../../image/tree-name.js';
import type { MirrorSync } from './begin.js';

/** Where only a part is copied, a new file would lack the rest. */
export function refuseToMake(target: string, sync: MirrorSync): void {
  if (sync === 'full' || sync === 'top') return;
  throw new BlockError('INVALID_ARGUMENT', `sync mode '${sync}' copies only a part of the disk, into what holds the rest: there is no '${target}'`, { node: target });
}

/** For sync mode `top`: the image below the source, which was opened already, is below the target as well. */
export function onTopOf(filename: string, format: string): Pick<CreateImageOptions, 'backingFile' | 'backingFormat' | 'backing'> {
  return { backingFile: isFileName(filename) ? resolve(filename) : filename, backingFormat: format, backing: 'allow' };
}
