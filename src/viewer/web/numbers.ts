/** Numbers as people read them. */

const trim = (value: number, digits: number): string => {
  const text = value.toFixed(digits);
  return digits > 0 ? text.replace(/\.?0+$/, '') : text;
};
const three = (value: number): string => trim(value, value >= 100 ? 0 : value >= 10 ? 1 : 2);

function scaled(value: number, units: readonly (readonly [number, string])[]): string {
  if (!Number.isFinite(value)) return '–';
  if (value === 0) return `0 ${units.at(-1)![1]}`.trim();
  const [size, unit] = units.find(([least]) => Math.abs(value) >= least) ?? units.at(-1)!;
  return `${three(value / size)} ${unit}`.trim();
}

export const bytesText = (bytes: number): string => scaled(bytes, [[2 ** 40, 'TiB'], [2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB'], [1, 'B']]);
export const countText = (count: number): string => scaled(count, [[1e9, 'G'], [1e6, 'M'], [1e3, 'k'], [1, '']]);
export const spanText = (ns: number): string => scaled(ns, [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']]);
export const whole = (count: number): string => count.toLocaleString('en-US').replaceAll(',', ' ');

/** A time of the trace in seconds, with the digits that tell it from others in a window of `span` ns. */
export function timeText(ns: number, span: number): string {
  const digits = Math.min(9, Math.max(0, Math.ceil(-Math.log10(span / 1e9)) + 2));
  return `${(ns / 1e9).toFixed(digits)} s`;
}

/** As blkparse prints it. */
export const blktraceTime = (ns: number): string => (ns / 1e9).toFixed(9);

/** About `wanted` round places in [from, to]; round in binary for bytes. */
export function ticks(from: number, to: number, wanted: number, base: 2 | 10 = 10): number[] {
  const rough = (to - from) / Math.max(1, wanted);
  if (!(rough > 0)) return [];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = base === 2 ? 2 ** Math.ceil(Math.log2(rough)) : [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  const found: number[] = [];
  for (let at = Math.ceil(from / step) * step; at <= to && found.length < 100; at += step) found.push(at);
  return found;
}
