/** Rows in the order of a column of times, without the rows whose time is not known. Stable; linear: a radix sort by 16 bits a pass. */
export function orderByTime(time: Float64Array, count: number): Uint32Array {
  let rows = new Uint32Array(count);
  let length = 0;
  let largest = 0;
  let sorted = true;
  let before = 0;
  for (let row = 0; row < count; row++) {
    const at = time[row]!;
    if (!(at >= 0)) continue;
    rows[length++] = row;
    if (at > largest) largest = at;
    if (at < before) sorted = false;
    before = at;
  }
  rows = rows.subarray(0, length);
  if (sorted) return rows;
  let other = new Uint32Array(length);
  for (let unit = 1; unit <= largest; unit *= 0x1_0000) {
    scatterByDigit(time, unit, rows, other);
    [rows, other] = [other, rows];
  }
  return rows;
}

function scatterByDigit(time: Float64Array, unit: number, from: Uint32Array, to: Uint32Array): void {
  const next = new Uint32Array(0x1_0001);
  // a product with the inverse of a power of two is exact
  const inverse = 1 / unit;
  for (let i = 0; i < from.length; i++) next[digit(time[from[i]!]!, inverse) + 1]!++;
  for (let value = 1; value <= 0x1_0000; value++) next[value] = next[value]! + next[value - 1]!;
  for (let i = 0; i < from.length; i++) {
    const row = from[i]!;
    to[next[digit(time[row]!, inverse)]!++] = row;
  }
}

function digit(time: number, inverse: number): number {
  const shifted = Math.floor(time * inverse);
  return shifted - Math.floor(shifted / 0x1_0000) * 0x1_0000;
}

/** The first place of an ordered column that is not below `time`; `count` for none. */
export function firstAtOrAfter(times: Float64Array, count: number, time: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (times[middle]! < time) low = middle + 1;
    else high = middle;
  }
  return low;
}
