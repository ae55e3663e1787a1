/** What sources and sinks of RAM state share: kinds of files, socket names, cancelling. */
import { close, constants, fstat, open, type Stats } from 'node:fs';
import { BlockError, wrapHostError } from '../base/errors.js';

type FileKind = 'file' | 'directory' | 'fifo' | 'socket' | 'block device' | 'character device';

export function kindOf(stats: Stats): FileKind {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  if (stats.isFIFO()) return 'fifo';
  if (stats.isSocket()) return 'socket';
  return stats.isBlockDevice() ? 'block device' : 'character device';
}

export function statDescriptor(fd: number): Promise<Stats> {
  return new Promise((resolve, reject) => {
    fstat(fd, (error, stats) => error === null ? resolve(stats) : reject(error));
  });
}

const SOCKET_PREFIX = 'unix:';
/** sun_path of struct sockaddr_un has 108 bytes with its NUL; longer names would be cut silently. */
const MAX_SOCKET_PATH = 107;

/** The path of `unix:PATH`, or null where `spec` is none. */
export function socketPath(spec: string): string | null {
  if (!spec.startsWith(SOCKET_PREFIX)) return null;
  const path = spec.slice(SOCKET_PREFIX.length);
  if (path === '') throw new BlockError('INVALID_ARGUMENT', `'${spec}' names no socket, expected unix:PATH`);
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH) {
    throw new BlockError('INVALID_ARGUMENT', `'${path}' has ${Buffer.byteLength(path)} bytes, more than the ${MAX_SOCKET_PATH} of a unix socket's name`);
  }
  return path;
}

/**
 * A bare descriptor: unlike a FileHandle it can be handed to a net.Socket, which then closes it. The name is opened with
 * O_NONBLOCK, since opening a FIFO that has no other end would block a thread for ever.
 */
export function openDescriptor(path: string, flags: number, mode = 0o666): Promise<number> {
  return new Promise((resolve, reject) => {
    open(path, flags | constants.O_NONBLOCK, mode, (error, fd) => {
      if (error === null) resolve(fd);
      else reject(wrapHostError(error, `could not open '${path}'`));
    });
  });
}

export function closeDescriptor(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    close(fd, (error) => error === null || error === undefined ? resolve() : reject(error));
  });
}

export function cancelled(what: string, signal: AbortSignal): BlockError {
  return new BlockError('CANCELLED', `${what} was cancelled`, { cause: signal.reason });
}

export function throwIfAborted(what: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw cancelled(what, signal);
}

/** Calls `stop` when the signal aborts, or at once where it has; the returned function ends that. */
export function onAbort(signal: AbortSignal | undefined, stop: () => void): () => void {
  if (signal === undefined) return () => undefined;
  if (signal.aborted) stop();
  signal.addEventListener('abort', stop, { once: true });
  return () => signal.removeEventListener('abort', stop);
}
