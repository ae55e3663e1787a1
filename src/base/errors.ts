/** Stable error codes: programs switch on these, never on message text. */
export type ErrorCode =
  | 'IO' // the host or a peer failed an I/O; `errno` says how
  | 'NO_SPACE' // the host is out of space, or a format limit is reached
  | 'OUT_OF_RANGE' // the request lies outside the node
  | 'READ_ONLY' // a write to a node that is (or became) read-only
  | 'LOCKED' // another process holds a conflicting image lock
  | 'NOT_FOUND'
  | 'EXISTS'
  | 'INVALID_ARGUMENT'
  | 'INVALID_IMAGE' // the file is not a valid image of the format
  | 'CORRUPT' // the image's metadata contradicts itself
  | 'NOT_SUPPORTED' // a valid feature that this engine does not have
  | 'BUSY'
  | 'CLOSED'
  | 'CANCELLED'
  | 'PROTOCOL' // a peer (QMP, migration stream) broke its protocol
  | 'PEER'; // a peer reported a failure of its own

interface BlockErrorDetails {
  readonly errno?: string | undefined;
  readonly node?: string | undefined;
  readonly offset?: number | undefined;
  readonly bytes?: number | undefined;
  /** A further line for people: command lines print it, QMP does not tell it. Default: the cause's. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
}

/** The one error class of the engine. `message` is a full sentence that names the suspect. */
export class BlockError extends Error {
  readonly code: ErrorCode;
  readonly errno: string | undefined;
  readonly node: string | undefined;
  readonly offset: number | undefined;
  readonly bytes: number | undefined;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, details: BlockErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'BlockError';
    this.code = code;
    this.errno = details.errno;
    this.node = details.node;
    this.offset = details.offset;
    this.bytes = details.bytes;
    this.hint = details.hint ?? (details.cause instanceof BlockError ? details.cause.hint : undefined);
  }
}

const ERRNO_TO_CODE: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'NO_SPACE', EDQUOT: 'NO_SPACE', EFBIG: 'NO_SPACE',
  ENOENT: 'NOT_FOUND', EEXIST: 'EXISTS',
  EROFS: 'READ_ONLY', EACCES: 'IO', EPERM: 'IO',
};

const ERRNO_TEXT: Readonly<Record<string, string>> = {
  ENOENT: 'No such file or directory', EACCES: 'Permission denied', EPERM: 'Operation not permitted',
  EISDIR: 'Is a directory', ENOTDIR: 'Not a directory', EEXIST: 'File exists', ENOSPC: 'No space left on device',
  EIO: 'Input/output error', EROFS: 'Read-only file system', EINVAL: 'Invalid argument', EFBIG: 'File too large',
  EDQUOT: 'Disk quota exceeded', EMFILE: 'Too many open files', ENODEV: 'No such device', EPIPE: 'Broken pipe',
  ECONNREFUSED: 'Connection refused', ECONNRESET: 'Connection reset by peer', EADDRINUSE: 'Address already in use', EADDRNOTAVAIL: 'Cannot assign requested address',
  ENXIO: 'No such device or address', EBUSY: 'Device or resource busy', ELOOP: 'Too many levels of symbolic links',
  ENAMETOOLONG: 'File name too long', ESPIPE: 'Illegal seek', ENOTSUP: 'Operation not supported',
  ETIMEDOUT: 'Connection timed out', EHOSTUNREACH: 'No route to host', ENETUNREACH: 'Network is unreachable',
  ENOTCONN: 'Transport endpoint is not connected', ESTALE: 'Stale file handle', ENOMEM: 'Cannot allocate memory', EAGAIN: 'Resource temporarily unavailable',
  EOPNOTSUPP: 'Operation not supported', ENOTTY: 'Inappropriate ioctl for device', ETXTBSY: 'Text file busy',
};

/** The errno name (`EIO`, …) of a host error, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof BlockError) return error.errno;
  if (typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string') return error.code;
  return undefined;
}

/** strerror(3)'s text for an errno name, as QEMU's tools print it. */
export function errnoText(errno: string | undefined): string {
  return errno === undefined ? 'unknown error' : (ERRNO_TEXT[errno] ?? errno);
}

/** Wraps a host error: `what` names the action and its object ("could not open 'x'"). BlockErrors pass through. */
export function wrapHostError(error: unknown, what: string, details: BlockErrorDetails = {}): BlockError {
  if (error instanceof BlockError) return error;
  const errno = errnoOf(error);
  const code = (errno === undefined ? undefined : ERRNO_TO_CODE[errno]) ?? 'IO';
  const why = errno === undefined ? messageOf(error) : errnoText(errno);
  return new BlockError(code, `${what}: ${why}`, { ...details, errno, cause: error });
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
