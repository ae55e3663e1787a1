/** Whether a file is the one that a job worked on, and whether anybody else wrote to it since. */
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { errnoOf, wrapHostError } from '../../base/errors.js';
import type { Lease } from './region-file.js';

export interface FileIdentity {
  readonly filename: string;
  /** Device and inode. */
  readonly inode: string;
  readonly size: number;
  /** When it was written last; a program may set that to what it likes. */
  readonly modifiedMs: number;
  /** When anything of it was changed last: the kernel's word. */
  readonly changedMs: number;
  /** By the job: its size and times may have changed as long as the job's lease held. */
  readonly writable: boolean;
}

/** Null for what is no regular file, or not there: a device does not tell when it was written. */
export async function identify(filename: string, writable: boolean): Promise<FileIdentity | null> {
  try {
    const stats = await stat(filename);
    return stats.isFile() ? { filename, inode: `${stats.dev}:${stats.ino}`, size: stats.size, modifiedMs: stats.mtimeMs, changedMs: stats.ctimeMs, writable } : null;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw wrapHostError(error, `could not look at '${filename}'`);
  }
}

/** 64 bits, in hex, that are others once the file has changed; for a file that stood still for longer than the clock of its times ticks. */
export function stateOf({ inode, size, modifiedMs, changedMs }: FileIdentity): string {
  return createHash('sha256').update(`${inode} ${size} ${modifiedMs} ${changedMs}`).digest('hex').slice(0, 16);
}

/** Why the file cannot be trusted to be as the job left it, or null. `state`: what it was when the job told last that nothing was under way. */
export function findChange(then: FileIdentity, now: FileIdentity | null, { untilMs }: Lease, state: string | undefined): string | null {
  const { filename } = then;
  if (now === null || now.inode !== then.inode) return `'${filename}' is another file than before`;
  if (state !== undefined) return stateOf(now) === state ? null : `'${filename}' was modified by another program`;
  if (then.writable) return Math.max(now.modifiedMs, now.changedMs) > untilMs ? `'${filename}' was modified by another program` : null;
  return stateOf(now) === stateOf(then) ? null : `'${filename}' was modified`;
}
