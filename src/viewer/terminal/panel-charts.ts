/** Latencies, throughput, requests per second and depth, on the time axis of the map. */
import type { HeatMap } from '../traffic.js';
import { drawBars, shade } from './chart.js';
import type { Grid, Rect } from './grid.js';
import { GUTTER } from './layout.js';
import { bytes, count, span } from './numbers.js';
import type { Charts, Scene } from './scene.js';
import { Colour, HEAT_COLOURS } from './style.js';
import { fit } from './text.js';

/** Time across, latency up, both ends named; the more requests, the stronger. */
export function drawHeat(grid: Grid, rect: Rect, { traffic: { heat } }: Charts): void {
  const cells = stretched(heat, rect.height);
  const largest = cells.reduce((most, value) => Math.max(most, value), 0);
  for (const [cell, value] of cells.entries()) {
    const { text, strength } = shade(value, largest, grid.ascii);
    if (strength === 0) continue;
    const colour = Colour.HEAT + Math.min(HEAT_COLOURS - 1, Math.floor(strength * HEAT_COLOURS));
    grid.set(GUTTER + Math.floor(cell / rect.height), rect.top + rect.height - 1 - (cell % rect.height), text, colour);
  }
  const label = (row: number, text: string): void => void grid.write(0, row, `${fit(text, GUTTER - 1, 'right')} `, Colour.DIM);
  if (heat.rows === 0) return label(rect.top, 'latency');
  label(rect.top, span(heat.from * heat.factor ** heat.rows).replace(' ', ''));
  if (rect.height > 2) label(rect.top + Math.floor(rect.height / 2), 'latency');
  label(rect.top + rect.height - 1, span(heat.from).replace(' ', ''));
}

/** By column, then rows of the screen: several rows of the data to one of them, or the other way round. */
function stretched({ columns, rows, counts }: HeatMap, height: number): Float64Array {
  const cells = new Float64Array(columns * height);
  if (rows === 0) return cells;
  for (let column = 0; column < columns; column++) {
    for (let row = 0; row < Math.max(rows, height); row++) {
      const [from, to] = rows >= height ? [row, Math.floor((row / rows) * height)] : [Math.floor((row / height) * rows), row];
      cells[column * height + to]! += counts[column * rows + from]!;
    }
  }
  return cells;
}

export interface LineChart {
  readonly name: string;
  readonly values: Float64Array;
  readonly highest: number;
  /** Over the whole window. */
  readonly mean: number;
  readonly text: (value: number) => string;
}

/** Throughput and requests as rates, and the highest depth, per column. */
export function lineCharts({ view }: Scene, { traffic, depth, columns }: Charts): readonly [LineChart, LineChart, LineChart] {
  const seconds = (view.span.to - view.span.from) / 1e9;
  const rates = (name: string, perOp: Uint32Array | Float64Array, totals: Float64Array, text: (value: number) => string): LineChart => {
    const values = new Float64Array(columns);
    for (const [cell, value] of perOp.entries()) values[cell % columns]! += (value * columns) / seconds;
    return { name, values, text, highest: highestOf(values), mean: totals.reduce((sum, value) => sum + value, 0) / seconds };
  };
  return [
    rates('B/s', traffic.bytes, traffic.totalBytes, (value) => bytes(Math.round(value))),
    rates('IOPS', traffic.ios, traffic.totalIos, (value) => count(Math.round(value))),
    { name: 'depth', values: Float64Array.from(depth.max), highest: depth.peak, mean: depth.average, text: (value) => String(Number(value.toFixed(2))) },
  ];
}

function highestOf(values: Float64Array): number {
  return values.reduce((most, value) => Math.max(most, value), 0);
}

export function drawLine(grid: Grid, rect: Rect, { name, values, highest, text }: LineChart): void {
  drawBars(grid, { ...rect, left: GUTTER }, values, highest, Colour.LINE);
  grid.write(0, rect.top + rect.height - 1, `${fit(name, GUTTER - 1, 'right')} `, Colour.DIM);
  if (rect.height > 1 && highest > 0) grid.write(0, rect.top, `${fit(text(highest), GUTTER - 1, 'right')} `, Colour.DIM);
}
