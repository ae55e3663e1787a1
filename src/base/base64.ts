/** Base64 as GLib reads it, for what QEMU reads with it. */
import { BlockError } from './errors.js';

const GROUP = 4;

/** Newlines do not count; padding may stand in the middle; what is left of a last group is dropped. */
export function decodeBase64(text: string): Buffer {
  if (!/^[A-Za-z0-9+/=\n]*$/.test(text)) throw new BlockError('INVALID_ARGUMENT', 'Base64 data contains invalid characters');
  const characters = text.replaceAll('\n', '');
  const whole = characters.slice(0, characters.length - (characters.length % GROUP));
  // Buffer ends at the first padding, so what is padded before its end is decoded piece by piece
  return Buffer.concat((whole.match(/(?:[^=]{4})+|.{4}/g) ?? []).map((part) => Buffer.from(part, 'base64')));
}
