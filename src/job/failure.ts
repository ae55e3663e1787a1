import { BlockError, errnoOf, errnoText } from '../base/errors.js';

/** What a job that was ended by an I/O error says: the host's words for it, as QEMU's jobs do. The error itself is the cause. */
export function jobFailure(error: unknown): BlockError {
  const errno = errnoOf(error) ?? (error instanceof BlockError && error.code === 'NO_SPACE' ? 'ENOSPC' : 'EIO');
  return new BlockError(error instanceof BlockError ? error.code : 'IO', errnoText(errno), { errno, cause: error });
}
