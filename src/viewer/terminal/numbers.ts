/** Numbers as people read them in a narrow place. */

/** Three digits that matter: `1.23`, `12.3`, `123`. */
export function short(value: number): string {
  if (value === 0) return '0';
  if (value >= 99.95) return String(Math.round(value));
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}

/** A span: `850 ns`, `12.3 µs`, `4.05 ms`, `2.50 s`, `3.20 min`. */
export function span(ns: number): string {
  if (!Number.isFinite(ns)) return '-';
  const size = Math.abs(ns);
  if (size < 999.5) return `${Math.round(ns)} ns`;
  if (size < 999_500) return `${short(ns / 1e3)} µs`;
  if (size < 999_500_000) return `${short(ns / 1e6)} ms`;
  return size < 120e9 ? `${short(ns / 1e9)} s` : `${short(ns / 60e9)} min`;
}

/** Seconds since the beginning, with as many decimals as tell moments `stepNs` apart. */
export function moment(ns: number, stepNs: number): string {
  const decimals = Math.max(0, Math.min(9, Math.ceil(-Math.log10(Math.max(stepNs, 1) / 1e9))));
  return (ns / 1e9).toFixed(decimals);
}

/** Bytes without a space: `512B`, `4K`, `1.5M`, `20G`. */
export function bytes(value: number): string {
  const units = ['B', 'K', 'M', 'G', 'T', 'P'];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) ? value : short(value)}${units[unit]}`;
}

/** How many: `950`, `12.3k`, `4.05M`. */
export function count(value: number): string {
  if (value < 1000) return Number.isInteger(value) ? String(value) : short(value);
  return value < 999_500 ? `${short(value / 1e3)}k` : `${short(value / 1e6)}M`;
}

/** `1 request`, `12 requests`. */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** Part of a whole: `34%`. */
export function percent(part: number, whole: number): string {
  if (whole === 0) return '-';
  const value = (part / whole) * 100;
  return `${value > 0 && value < 1 ? '<1' : Math.round(value)}%`;
}
