/**
 * QEMU's modified UTF-8: U+0000 is the two bytes C0 80, so that no string has a zero byte; surrogates, noncharacters and overlong
 * forms are no characters.
 */

/** What stands for bytes that are no character where text is printed. */
const REPLACEMENT = '\u{fffd}';
/** The least code point of a sequence of 2, 3, 4, 5, 6 bytes. */
const LEAST = [0x80, 0x800, 0x1_0000, 0x20_0000, 0x400_0000];

/** May a string hold it? */
export function isCharacter(codePoint: number): boolean {
  if (codePoint < 0 || codePoint > 0x10_ffff) return false;
  if (codePoint >= 0xfdd0 && codePoint <= 0xfdef) return false;
  if (codePoint % 0x1_0000 >= 0xfffe) return false;
  return codePoint < 0xd800 || codePoint > 0xdfff;
}

/** `codePoint` is -1 where the bytes from `at` on are no character; `next` is where to go on in both cases. */
export function decodeOne(bytes: Uint8Array, at: number): { readonly codePoint: number; readonly next: number } {
  const first = bytes[at]!;
  if (first < 0x80) return { codePoint: first, next: at + 1 };
  if (first < 0xc0 || first >= 0xfe) return { codePoint: -1, next: at + 1 };
  const length = Math.clz32(~(first << 24));
  let codePoint = first % (1 << (7 - length));
  for (let index = 1; index < length; index++) {
    const byte = bytes[at + index] ?? 0;
    if (byte < 0x80 || byte > 0xbf) return { codePoint: -1, next: at + index };
    codePoint = codePoint * 64 + (byte - 0x80);
  }
  const overlong = codePoint < LEAST[length - 2]! && !(codePoint === 0 && length === 2);
  return { codePoint: !overlong && isCharacter(codePoint) ? codePoint : -1, next: at + length };
}

/** The text up to the first zero byte, as QEMU prints it: with a replacement for what is no character. */
export function decodeForPrint(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length && bytes[at] !== 0;) {
    const { codePoint, next } = decodeOne(bytes, at);
    text += codePoint < 0 ? REPLACEMENT : String.fromCodePoint(codePoint);
    at = next;
  }
  return text;
}

/** The bytes that QEMU would hold for a string. */
export function encode(text: string): Uint8Array {
  const bytes = Buffer.from(text, 'utf8');
  if (!text.includes('\0')) return bytes;
  return Uint8Array.from([...bytes].flatMap((byte) => (byte === 0 ? [0xc0, 0x80] : [byte])));
}
