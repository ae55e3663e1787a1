/** Names of backing files that images hold. */
import path from 'node:path';
import { BlockError } from '../base/errors.js';
import { isNbdName } from '../nbd/name.js';

/** Which backing files an image may name: an untrusted image could name any file of the host. */
export type BackingPolicy = 'deny' | 'same-dir' | 'allow';

/** Relative names are relative to the image that holds them. */
export function resolveBackingName(overlay: string, name: string, policy: BackingPolicy): string {
  const refuse = (why: string): never => {
    throw new BlockError('NOT_SUPPORTED', `the backing file '${name}' of '${overlay}' is not opened: ${why}`, { node: overlay });
  };
  if (policy === 'deny') refuse('backing files are denied');
  const plain = name.startsWith('file:') ? name.slice('file:'.length) : name;
  if (plain.startsWith('json:') && policy === 'allow') return plain;
  if (isNbdName(plain)) {
    if (policy !== 'allow') refuse('it is on an NBD server, and the policy is same-dir');
    return plain;
  }
  if (/^(json|ssh|https?|ftp|fat|blkdebug):/.test(plain)) refuse('only local files and NBD exports can be opened');
  if (isNbdName(overlay) && (policy === 'same-dir' || !path.isAbsolute(plain))) refuse('the image that names it is on an NBD server');
  const filename = path.isAbsolute(plain) ? plain : path.join(path.dirname(overlay), plain);
  if (policy === 'same-dir' && path.dirname(path.resolve(filename)) !== path.dirname(path.resolve(overlay))) {
    refuse('it lies in another directory, and the policy is same-dir');
  }
  return filename;
}
