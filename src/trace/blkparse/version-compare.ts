/** glibc's strverscmp, by which blkparse sorts processes: runs of digits compare as numbers, those with leading zeros as fractions. */

const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39;

export function compareVersions(a: Uint8Array, b: Uint8Array): number {
  const at = (bytes: Uint8Array, index: number): number => bytes[index] ?? 0;
  let same = 0;
  while (same < a.length && at(a, same) === at(b, same)) same++;
  if (at(a, same) === at(b, same)) return 0;
  let start = same;
  while (start > 0 && isDigit(at(a, start - 1))) start--;
  const [x, y] = [at(a, same), at(b, same)];
  const plain = x - y;
  const common = same - start;
  // no number is cut by the difference, and none begins with both
  if (common === 0 && (!isDigit(x) || !isDigit(y))) return plain;
  if (common === 0 ? x === 0x30 || y === 0x30 : at(a, start) === 0x30) return comparedFractions(a, b, start, same);
  const [lengthOfA, lengthOfB] = [digitsFrom(a, same), digitsFrom(b, same)];
  return lengthOfA === lengthOfB ? plain : lengthOfA - lengthOfB;
}

/** Numbers with a leading zero, at least one of them: more zeros are less, and a fraction is less than no digit at all. */
function comparedFractions(a: Uint8Array, b: Uint8Array, start: number, same: number): number {
  const [x, y] = [a[same] ?? 0, b[same] ?? 0];
  let zeros = start;
  while (zeros < same && a[zeros] === 0x30) zeros++;
  // all that both have is zeros: the one that goes on with a digit is less
  if (zeros === same && isDigit(x) !== isDigit(y)) return isDigit(x) ? -1 : 1;
  return x - y;
}

function digitsFrom(bytes: Uint8Array, start: number): number {
  let end = start;
  while (end < bytes.length && isDigit(bytes[end]!)) end++;
  return end - start;
}
