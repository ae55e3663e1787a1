/** Tells names of NBD exports from file names. Apart from uri.ts, so that programs without an export load nothing of NBD. */
import { BlockError } from '../base/errors.js';

export const NBD_SCHEME = /^(nbds?)(?:\+(tcp|unix))?:\/\//i;
const LEGACY = /^nbd:/;

/** The number of a TCP port as C's library reads it; QEMU would also look service names up. */
export function portNumber({ host, port }: { readonly host: string; readonly port: string }): number {
  // none takes any that is free; what does not fit into 16 bits wraps
  if (/^(\s*\+?\d{1,9})?$/.test(port)) return Number(port) % 0x1_0000;
  throw new BlockError('INVALID_ARGUMENT', `address resolution failed for ${host}:${port}: Servname not supported for ai_socktype`);
}

/** True where the name can only mean an NBD export. */
export function isNbdName(name: string): boolean {
  return NBD_SCHEME.test(name) || LEGACY.test(name);
}
