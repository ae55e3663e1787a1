/** Whether a file is the one that a job worked on, and whether anybody else wrote to it since. */
import { stat } from 'node:fs/promises';
import { errnoOf, wrapHostError } from '../../base/errors.js';
import type { Lease } from './region-file.js';

export interface FileIdentity {
  readonly filename: string;
  /** Device and inode. */
  readonly inode: string;
  readonly size: number;
  readonly modifiedMs: number;
  /** By the job: its size and time may have changed as long as the job's lease held. */
  readonly writable: boolean;
}

/** Null for what is no regular file, or not there: a device does not tell when it was written. */
export async function identify(filename: string, writable: boolean): Promise<FileIdentity | null> {
  try {
    const stats = await stat(filename);
    return stats.isFile() ? { filename, inode: `${stats.dev}:${stats.ino}`, size: stats.size, modifiedMs: stats.mtimeMs, writable } : null;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw wrapHostError(error, `could not look at '${filename}'`);
  }
}

/** Why the file cannot be trusted to be as the job left it, or null. */
export function findChange(then: FileIdentity, now: FileIdentity | null, lease: Lease): string | null {
  const { filename } = then;
  if (now === null || now.inode !== then.inode) return `'${filename}' is another file than before`;
  if (then.writable) return now.modifiedMs > lease.untilMs ? `'${filename}' was modified by another program` : null;
  return now.size !== then.size || now.modifiedMs !== then.modifiedMs ? `'${filename}' was modified` : null;
}
