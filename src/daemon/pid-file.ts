/** A file with the id of a running process, locked while the process lives, as QEMU's programs keep one. */
import { closeSync, fstatSync, ftruncateSync, openSync, constants, statSync, unlinkSync, writeSync } from 'node:fs';
import { BlockError, errnoOf, wrapHostError } from '../base/errors.js';
import { capabilities, lockExclusive } from '../base/libc.js';

/** Kept open for the life of the process: the lock lives as long as the descriptor. */
export class PidFile {
  readonly #path: string;
  #fd: number | null;

  private constructor(path: string, fd: number) {
    this.#path = path;
    this.#fd = fd;
  }

  /** Throws QEMU's sentence where it cannot be made, or where another living process holds it. */
  static write(path: string, pid: number): PidFile {
    for (;;) {
      const fd = open(path);
      if (fd === null) continue;
      ftruncateSync(fd, 0);
      writeSync(fd, `${pid}\n`);
      return new PidFile(path, fd);
    }
  }

  remove(): void {
    if (this.#fd === null) return;
    try {
      unlinkSync(this.#path);
    } catch {
      // somebody was tidier
    }
    closeSync(this.#fd);
    this.#fd = null;
  }
}

/** Null where the file was removed between opening and locking it: then it is not the one that others see. */
function open(path: string): number | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_CREAT | constants.O_RDWR, 0o600);
  } catch (error) {
    throw wrapHostError(error, `Could not create '${path}'`);
  }
  try {
    if (capabilities().locks) lockExclusive(fd, 0);
    const seen = statSync(path, { throwIfNoEntry: false });
    if (seen !== undefined && seen.ino === fstatSync(fd).ino) return fd;
  } catch (error) {
    closeSync(fd);
    const errno = errnoOf(error);
    if (errno === 'EAGAIN' || errno === 'EACCES') throw new BlockError('LOCKED', 'Cannot lock pid file: Resource temporarily unavailable', { errno });
    throw wrapHostError(error, 'Cannot lock pid file');
  }
  closeSync(fd);
  return null;
}
