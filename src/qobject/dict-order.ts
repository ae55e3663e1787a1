/**
 * The order of a QDict, which is the order of keys in all that QEMU prints: a hash table of 512 chains walked from the first chain
 * on; a new key goes to the head of its chain. The hash is that of tdb (the trivial database).
 */
import { encode } from './utf8.js';
import type { JsonDict } from './value.js';

const CHAINS = 512;
const MAX_REMEMBERED = 4096;
const remembered = new Map<string, number>();

/** The keys in QEMU's order; `dict` has them in the order in which they were put. */
export function orderedKeys(dict: JsonDict): string[] {
  const keys = Object.keys(dict);
  if (keys.length < 2) return keys;
  // newest first, and the sort is stable
  return keys.reverse().sort((a, b) => chainOf(a) - chainOf(b));
}

function chainOf(key: string): number {
  const known = remembered.get(key);
  if (known !== undefined) return known;
  const bytes = encode(key);
  let sum = Math.imul(0x238f_13af, bytes.byteLength);
  for (const [index, byte] of bytes.entries()) sum = (sum + (byte << ((index * 5) % 24))) >>> 0;
  const chain = ((Math.imul(1_103_515_243, sum) + 12_345) >>> 0) % CHAINS;
  // keys may come from a peer: what is remembered is bounded
  if (remembered.size < MAX_REMEMBERED) remembered.set(key, chain);
  return chain;
}
