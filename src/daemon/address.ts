/** Addresses of sockets as QAPI tells them, and what they are called in messages. */
import { fstatSync } from 'node:fs';
import { BlockError } from '../base/errors.js';
import type { NbdListenAddress } from '../nbd/listen.js';
import { portNumber } from '../nbd/name.js';
import type { JsonDict } from '../qobject/value.js';

/** QAPI's SocketAddress. */
export type SocketAddress =
  /** An abstract one begins with a NUL. */
  | { readonly type: 'unix'; readonly path: string }
  | { readonly type: 'inet'; readonly host: string; readonly port: string; readonly to: number | null }
  | { readonly type: 'fd'; readonly fd: number };

/** Of a SocketAddress that the schema has checked. */
export function socketAddress(flat: JsonDict): SocketAddress {
  const refuse = (why: string): never => { throw new BlockError('NOT_SUPPORTED', why); };
  switch (flat['type']) {
    case 'unix':
      // a name is filled up with zeros by our host, and cannot be as short as it is
      if (flat['abstract'] === true && flat['tight'] !== false) refuse('abstract unix sockets are not available, but for those with tight=off');
      return { type: 'unix', path: `${flat['abstract'] === true ? '\0' : ''}${flat['path'] as string}` };
    case 'inet':
      return { type: 'inet', host: (flat['host'] as string), port: (flat['port'] as string), to: flat['to'] === undefined ? null : Number(flat['to']) };
    case 'fd':
      return { type: 'fd', fd: inheritedSocket((flat['str'] as string)) };
    default:
      for (const name of ['cid', 'port']) if (!/^\d+$/.test(flat[name] as string)) throw new BlockError('INVALID_ARGUMENT', `Failed to parse ${name} '${flat[name] as string}'`);
      return refuse('socket family AF_VSOCK unsupported');
  }
}

/** Of a SocketAddressLegacy: the same with the members in `data`. */
export function legacySocketAddress(legacy: JsonDict): SocketAddress {
  return socketAddress({ type: legacy['type']!, ...legacy['data'] as JsonDict });
}

/** The same where a monitor's client told it: the descriptors of this process are not its. */
export function receivedSocketAddress(legacy: JsonDict): SocketAddress {
  if (legacy['type'] === 'fd') throw new BlockError('NOT_SUPPORTED', 'only QEMU supports file descriptor passing');
  return legacySocketAddress(legacy);
}

/** A descriptor that came with the process. */
export function inheritedSocket(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new BlockError('INVALID_ARGUMENT', `Unable to parse FD number ${text}`);
  const fd = Number(text);
  if (!isSocket(fd)) throw new BlockError('INVALID_ARGUMENT', `File descriptor '${text}' is not a socket`);
  return fd;
}

function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}

export function listenAddress(address: SocketAddress): NbdListenAddress {
  switch (address.type) {
    case 'unix': return { unix: address.path };
    case 'fd': return { fd: address.fd };
    case 'inet': return { host: address.host === '' ? '::' : address.host, port: portNumber(address), to: address.to };
  }
}
