/** Listening sockets: where they may be, and what is said where they cannot be, in QEMU's words. */
import { statSync, unlinkSync } from 'node:fs';
import { createServer, type ListenOptions, type Server } from 'node:net';
import { dirname } from 'node:path';
import { BlockError, errnoOf, errnoText, wrapHostError } from '../base/errors.js';

export type NbdListenAddress =
  /** A path that begins with a NUL is an abstract name. A stale socket at the path is replaced; what is there and no socket is left alone, and refused. */
  | { readonly unix: string }
  /** Port 0 takes a free one; with `to` the first that is free from `port` to there. */
  | { readonly host?: string | undefined; readonly port: number; readonly to?: number | null | undefined }
  /** An inherited socket that listens already. */
  | { readonly fd: number };

/** The kernel takes so many bytes; libuv would cut a longer path off and listen elsewhere. */
const MAX_UNIX_PATH = 107;

/** Resolves when clients can connect. */
export async function startListening(server: Server, address: NbdListenAddress): Promise<void> {
  if ('port' in address && typeof address.to === 'number') return startOnOneOf(server, address, address.to);
  if ('unix' in address && !address.unix.startsWith('\0')) {
    if (Buffer.byteLength(address.unix) > MAX_UNIX_PATH) refuseLongPath(address.unix);
    removeStaleSocket(address.unix);
  }
  const options: ListenOptions & { fd?: number } = 'unix' in address ? { path: address.unix } : 'fd' in address ? { ...address } : { host: address.host, port: address.port };
  return new Promise((resolve, reject) => {
    const failed = (error: Error): void => reject(listenError(address, error));
    server.once('error', failed);
    server.listen(options, () => {
      server.off('error', failed);
      resolve();
    });
  });
}

async function startOnOneOf(server: Server, { host, port }: { readonly host?: string | undefined; readonly port: number }, to: number): Promise<void> {
  if (to < port) throw new BlockError('INVALID_ARGUMENT', 'Failed to create a socket');
  for (let next = port; ; next++) {
    try {
      return await startListening(server, { host, port: next });
    } catch (error) {
      if (errnoOf(error) !== 'EADDRINUSE' || next === to) throw error;
    }
  }
}

/** Throws where nobody could listen. */
export async function tryListening(address: NbdListenAddress): Promise<void> {
  if ('fd' in address) return;
  const server = createServer();
  await startListening(server, address);
  await new Promise((resolve) => { server.close(resolve); });
}

function refuseLongPath(path: string): never {
  throw new BlockError('INVALID_ARGUMENT', `UNIX socket path '${path}' is too long`, { hint: `Path must be less than ${MAX_UNIX_PATH + 1} bytes` });
}

function listenError(address: NbdListenAddress, error: Error): BlockError {
  let errno = errnoOf(error);
  const refuse = (message: string): BlockError => new BlockError('IO', message, { errno, cause: error });
  if ('unix' in address) {
    // Node says EACCES for a directory that is not there
    if (errno === 'EACCES' && statSync(dirname(address.unix), { throwIfNoEntry: false }) === undefined) errno = 'ENOENT';
    return refuse(`Failed to bind socket to ${address.unix}: ${errnoText(errno)}`);
  }
  if ('fd' in address) return refuse(`Failed to listen on file descriptor ${address.fd}: ${errnoText(errno)}`);
  if (errno === 'ENOTFOUND' || errno === 'EAI_AGAIN') {
    const why = errno === 'ENOTFOUND' ? 'Name or service not known' : 'Temporary failure in name resolution';
    return refuse(`address resolution failed for ${address.host ?? ''}:${address.port}: ${why}`);
  }
  if (errno === 'EADDRINUSE') return refuse(`Failed to find an available port: ${errnoText(errno)}`);
  return refuse(`Failed to bind socket: ${errnoText(errno)}`);
}

function removeStaleSocket(path: string): void {
  try {
    const found = statSync(path);
    if (found.isSocket()) unlinkSync(path);
    if (found.isDirectory()) throw new BlockError('EXISTS', `Failed to unlink socket ${path}: Is a directory`, { errno: 'EISDIR' });
  } catch (error) {
    const failure = wrapHostError(error, `Failed to unlink socket ${path}`);
    if (failure.code !== 'NOT_FOUND') throw failure;
  }
}
