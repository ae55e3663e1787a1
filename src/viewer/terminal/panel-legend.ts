/** Beside the charts: what the colours mean, and the numbers of the window. */
import type { Grid, Rect } from './grid.js';
import type { Layout } from './layout.js';
import { count, span } from './numbers.js';
import type { LineChart } from './panel-charts.js';
import { legendOf, type Charts, type Scene } from './scene.js';
import { Attribute, Colour } from './style.js';
import { clip, fit } from './text.js';

/** Each entry stands beside the chart that it belongs to. */
export function drawLegend(grid: Grid, layout: Layout, scene: Scene, { traffic: { heat } }: Charts, lines: readonly LineChart[]): void {
  const { legend } = layout;
  if (legend.width === 0) return;
  const column = { ...legend, left: legend.left + 1, width: legend.width - 1 };
  drawKinds(grid, { ...column, top: layout.map.top, height: layout.map.height + layout.axis.height }, scene);
  const { p50, p99, max } = heat.overall;
  const facts = [['p50', p50], ['p99', p99], ['max', max]] as const;
  if (layout.heat.height < facts.length) put(grid, column, layout.heat.top, `p50 ${span(p50)} p99 ${span(p99)}`);
  else for (const [row, [name, value]] of facts.entries()) put(grid, column, layout.heat.top + row, `${name} ${span(value)}`);
  for (const [index, chart] of lines.entries()) put(grid, column, layout.lines[index]!.top, fact(chart, column.width));
}

function put(grid: Grid, { left, width }: Rect, row: number, text: string): void {
  grid.write(left, row, clip(text, width), 0, left + width);
}

function fact({ name, mean, highest, text }: LineChart, width: number): string {
  const unit = { 'B/s': '/s', IOPS: ' IOPS', depth: ' deep' }[name] ?? '';
  const whole = `${text(mean)}${unit}, max ${text(highest)}`;
  return whole.length <= width ? whole : `${text(mean)}${unit}`;
}

function drawKinds(grid: Grid, rect: Rect, scene: Scene): void {
  const { view, look } = scene;
  put(grid, rect, rect.top, `by ${view.colour === 'op' ? 'operation' : view.colour}`);
  grid.restyle({ ...rect, height: 1 }, () => Colour.DIM);
  const entries = legendOf(scene);
  const fitting = entries.slice(0, entries.length <= rect.height - 1 ? entries.length : rect.height - 2);
  for (const [index, { label, requests, style, letter }] of fitting.entries()) {
    const row = rect.top + 1 + index;
    const number = count(requests);
    grid.write(rect.left, row, look.ascii || view.letters ? letter : '●', style + Attribute.BOLD);
    grid.write(rect.left + 2, row, `${fit(label, rect.width - 3 - number.length)} ${number}`, 0, rect.left + rect.width);
  }
  if (fitting.length < entries.length) put(grid, rect, rect.top + rect.height - 1, `… ${entries.length - fitting.length} more`);
}
