/** Numbers as strtoull(3) with base 0 takes them: decimal, 0x…, 0…; nothing behind. A negative number wraps. Null where it is none or above 2^64-1. */
export function parseU64(text: string): bigint | null {
  const [, sign, trimmed] = /^\s*([+-]?)(.*)$/.exec(text)!;
  const octal = /^0([0-7]+)$/.exec(trimmed!)?.[1];
  const digits = octal === undefined ? trimmed! : `0o${octal}`;
  if (!/^(0o[0-7]+|0[xX][0-9a-fA-F]+|[1-9]\d*|0)$/.test(digits)) return null;
  const value = BigInt(digits);
  if (value >= 2n ** 64n) return null;
  return sign === '-' ? BigInt.asUintN(64, -value) : value;
}
