/** Files that are made as targets of mirrors: which sync modes can do with a new one, and what it lies on. */
import { isAbsolute, resolve } from 'node:path';
import { BlockError } from '../../base/errors.js';
import { imageOptions } from '../../image/image-name.js';
import type { CreateImageOptions } from '../../image/open.js';
import { isFileName } from '../../image/tree-name.js';
import { isNbdName } from '../../nbd/name.js';
import { parseNbdName } from '../../nbd/uri.js';
import { isObject, type JsonObject } from '../../qmp/wire.js';
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

/** Formats whose images may lie on another; whatever else QMP tells a `backing-image` of is a filter of that. */
const LAYERS: readonly unknown[] = ['qcow2', 'qcow', 'qed', 'vmdk'];

/** The image below the image that a node is, or filters, as QMP tells of it; `image`: QAPI's ImageInfo of the node. */
export function imageBelow(image: unknown): JsonObject | null {
  const layer = skipFilters(image);
  return layer === null ? null : skipFilters(layer['backing-image']);
}

function skipFilters(image: unknown): JsonObject | null {
  let layer = image;
  while (isObject(layer) && !LAYERS.includes(layer['format']) && isObject(layer['backing-image'])) layer = layer['backing-image'];
  return isObject(layer) ? layer : null;
}

/** Throws INVALID_ARGUMENT for a name that means one file to the process that told it, and may mean another one here. */
export async function refuseRelative(name: string, source: string): Promise<void> {
  if (!await isRelative(name)) return;
  const remedy = 'start that process with absolute file names, or make the target yourself, on top of the right image';
  throw new BlockError('INVALID_ARGUMENT', `the image below '${source}' is '${name}' to the process that has it open, which may be another file here: ${remedy}`, { node: source });
}

async function isRelative(name: string): Promise<boolean> {
  if (isFileName(name) || isNbdName(name)) return isRelativeName(name);
  const named = [...await imageOptions(name)].filter(([key]) => /(?:^|\.)(?:filename|server\.path)$/.test(key));
  return named.some(([, value]) => isRelativeName(String(value)));
}

function isRelativeName(name: string): boolean {
  if (isNbdName(name)) return isRelativeSocket(name);
  return !/^null-(?:co|aio):/.test(name) && !isAbsolute(name.replace(/^blkdebug:[^:]*:/, '').replace(/^file:/, ''));
}

function isRelativeSocket(name: string): boolean {
  const { address } = parseNbdName(name);
  return address.type === 'unix' && !isAbsolute(address.path);
}
