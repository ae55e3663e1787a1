/** Charts of columns: bars from the bottom, and shades. */
import type { Grid, Rect } from './grid.js';

const EIGHTHS = ' ▁▂▃▄▅▆▇█';
const ASCII_LEVELS = ' .:=#';

/** Bars of `values`, one to a column from `left`, up to `highest`. A value above 0 is never invisible. */
export function drawBars(grid: Grid, { left, top, height }: Rect, values: Float64Array, highest: number, style: number): void {
  const levels = grid.ascii ? ASCII_LEVELS : EIGHTHS;
  const steps = levels.length - 1;
  for (const [column, value] of values.entries()) {
    if (!(value > 0) || highest <= 0) continue;
    const filled = Math.max(1, Math.round((Math.min(value, highest) / highest) * height * steps));
    for (let row = 0; row < height && row * steps < filled; row++) {
      grid.set(left + column, top + height - 1 - row, levels.charAt(Math.min(steps, filled - row * steps)), style);
    }
  }
}

const SHADES = ' ░▒▓█';
const ASCII_SHADES = ' .-=+*#%@';

/** A shade for a count among the largest, by logarithm: one is seen beside ten thousand. Its strength is 0 to 1. */
export function shade(value: number, largest: number, ascii: boolean): { readonly text: string; readonly strength: number } {
  if (value <= 0) return { text: ' ', strength: 0 };
  const strength = largest <= 1 ? 1 : Math.log(1 + value) / Math.log(1 + largest);
  const shades = ascii ? ASCII_SHADES : SHADES;
  return { text: shades.charAt(Math.max(1, Math.round(strength * (shades.length - 1)))), strength };
}
