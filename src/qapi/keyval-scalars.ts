/** Numbers and truth in `key=value` strings, as QEMU reads them. Each answers undefined where the text is none. */

const WORDS: Readonly<Record<string, boolean>> = { on: true, yes: true, true: true, y: true, off: false, no: false, false: false, n: false };
const SUFFIXES = 'BKMGTPE';

export function parseBool(text: string): boolean | undefined {
  return Object.hasOwn(WORDS, text) ? WORDS[text] : undefined;
}

/** As strtol(3) with base 0: blanks before, a sign, `0x`, `0` for octal. No bounds. */
export function parseCInteger(text: string): bigint | undefined {
  const match = /^[ \t\n\v\f\r]*([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))$/.exec(text);
  if (match === null) return undefined;
  const [, sign, hex, octal, decimal] = match;
  const value = hex !== undefined ? BigInt(`0x${hex}`) : (octal !== undefined ? BigInt(`0o${octal.slice(1) || '0'}`) : BigInt(decimal!));
  return sign === '-' ? -value : value;
}

/** Bytes: a number with a fraction and one of the suffixes B K M G T P E, or a hexadecimal number without. */
export function parseSizeText(text: string): bigint | undefined {
  const match = /^[ \t\n\v\f\r]*\+?(?:(0[xX][0-9a-fA-F]+)([a-zA-Z]?)|([0-9]+)(?:\.([0-9]*))?([a-zA-Z]?))$/.exec(text);
  if (match === null) return undefined;
  const [, hex, hexSuffix, whole, fraction, suffix] = match;
  const power = suffixPower(hex === undefined ? suffix! : hexSuffix!);
  if (power === undefined || (hex !== undefined && hexSuffix !== '' && !/^[kmgtpKMGTP]$/.test(hexSuffix!))) return undefined;
  const unit = 1024n ** BigInt(power);
  if (hex !== undefined) return bounded(BigInt(hex) * unit);
  // half a byte is none
  if (Number(`0.${fraction ?? ''}0`) > 0 && power === 0) return undefined;
  return bounded(BigInt(whole!) * unit + BigInt(Math.floor(Number(`0.${fraction ?? ''}0`) * Number(unit) + 0.5)));
}

function suffixPower(suffix: string): number | undefined {
  const power = suffix === '' ? 0 : SUFFIXES.indexOf(suffix.toUpperCase());
  return power < 0 ? undefined : power;
}

function bounded(value: bigint): bigint | undefined {
  return value < 2n ** 64n ? value : undefined;
}
