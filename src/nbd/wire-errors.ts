/** The one table from errors of this engine to the few that NBD can carry. */
import { BlockError, errnoOf } from '../base/errors.js';
import { ERRNO_TO_WIRE } from './protocol.js';

/** Errnos that travel under another name. All that is in neither table travels as EINVAL. */
const ALIASES: Readonly<Record<string, string>> = {
  EROFS: 'EPERM', EDQUOT: 'ENOSPC', EFBIG: 'ENOSPC', EOPNOTSUPP: 'ENOTSUP',
};

/** For errors that no host call made. */
const CODE_TO_ERRNO: Readonly<Partial<Record<BlockError['code'], string>>> = {
  IO: 'EIO', NO_SPACE: 'ENOSPC', READ_ONLY: 'EPERM', NOT_SUPPORTED: 'ENOTSUP', CORRUPT: 'EIO', CLOSED: 'ESHUTDOWN', PEER: 'EIO', PROTOCOL: 'EIO',
};

/** What goes into the error field of a reply; never 0. An error that nobody foresaw is EIO. */
export function wireErrorOf(error: unknown): number {
  const errno = errnoOf(error) ?? (error instanceof BlockError ? CODE_TO_ERRNO[error.code] ?? 'EINVAL' : 'EIO');
  return ERRNO_TO_WIRE[ALIASES[errno] ?? errno] ?? ERRNO_TO_WIRE['EINVAL']!;
}
