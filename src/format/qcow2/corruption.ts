import { BlockError } from '../../base/errors.js';

/** What contradicts itself in an image: QEMU's sentence about it, and the host range that was about to be damaged, where there is one. */
export interface CorruptionSignal {
  readonly message: string;
  /** The image is of no use any more: nothing is read or written until it was repaired. Read-only images go on. */
  readonly fatal: boolean;
  readonly range: { readonly offset: number; readonly bytes: number } | null;
}

/** Metadata that contradicts itself. */
export class Corruption extends BlockError {
  readonly signal: Omit<CorruptionSignal, 'fatal'>;

  constructor(name: string, message: string, range: CorruptionSignal['range'] = null) {
    super('CORRUPT', `'${name}' is corrupt: ${message}`, { node: name, offset: range?.offset, bytes: range?.bytes, errno: 'EIO' });
    this.signal = { message, range };
  }
}

/** As C's `%#x` prints it: no prefix before a zero. */
export function hex(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}

/** Which metadata a range of the file hits, of that which every image has in one place; null for none of it. */
export function overlapName(hits: (offset: number, bytes: number) => boolean, places: readonly (readonly [name: string, offset: number, bytes: number])[]): string | null {
  return places.find(([, offset, bytes]) => hits(offset, bytes))?.[0] ?? null;
}

export function overlapMessage(name: string): string {
  return `Preventing invalid write on metadata (overlaps with ${name})`;
}
