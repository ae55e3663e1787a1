/** What a name on the command line is, where it is a file. */
import { statSync, type Stats } from 'node:fs';
import { BlockError, isFileName } from '../src/index.js';

export function statOf(name: string): Stats | undefined {
  return !isFileName(name) ? undefined : statSync(name, { throwIfNoEntry: false });
}

/** An image that is copied onto itself would be emptied first. */
export function refuseSame(source: string, target: string): void {
  const [from, to] = [statOf(source), statOf(target)];
  const same = source === target || (from !== undefined && to !== undefined && from.ino === to.ino && from.dev === to.dev);
  if (same) throw new BlockError('INVALID_ARGUMENT', `'${source}' and '${target}' are the same image`);
}

export function formatByName(target: string): 'qcow2' | 'raw' {
  return isFileName(target) && target.endsWith('.qcow2') ? 'qcow2' : 'raw';
}

/** What was refused because it is there may be meant. */
export function hintExisting(error: unknown): never {
  if (error instanceof BlockError && error.code === 'EXISTS') throw new BlockError('EXISTS', `${error.message} (--existing writes into it)`, { cause: error });
  throw error;
}
