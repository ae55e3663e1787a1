/** Tells names of NBD exports from file names. Apart from uri.ts, so that programs without an export load nothing of NBD. */
export const NBD_SCHEME = /^(nbds?)(?:\+(tcp|unix))?:\/\//i;
const LEGACY = /^nbd:/;

/** True where the name can only mean an NBD export. */
export function isNbdName(name: string): boolean {
  return NBD_SCHEME.test(name) || LEGACY.test(name);
}
