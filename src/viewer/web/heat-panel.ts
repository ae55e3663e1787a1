import type { HeatMap } from '../traffic.js';
import { drawYAxis, EDGE, frame, GUTTER, type Plot } from './axes.js';
import { Cells, colour, h, rgbOf, surface, type Surface } from './dom.js';
import { spanText } from './numbers.js';
import { panelFrame, type Panel } from './panel.js';

const HEIGHT = 170;
const TOP = 4;
const SHADES = 5;

/** Counts as shades by their logarithm, and over them p50 and p99 of each column. */
export function heatPanel(): Panel {
  const { element, body, setLegend, setSummary } = panelFrame('Latency', 'latency');
  const canvas = h('canvas');
  body.append(canvas);
  return {
    element,
    draw: ({ traffic: { heat } }, width) => {
      const target = surface(canvas, GUTTER + width + EDGE, TOP + HEIGHT + 2);
      const plot: Plot = { left: GUTTER, top: TOP, width, height: HEIGHT };
      drawCells(target, plot, heat);
      drawYAxis(target, plot, decades(heat));
      drawLine(target, plot, heat, heat.p50, colour('c6'), []);
      drawLine(target, plot, heat, heat.p99, colour('c1'), [5, 3]);
      frame(target, plot);
      const { p50, p99, max } = heat.overall;
      setLegend([
        { text: `p50 ${spanText(p50)}`, colour: colour('c6') }, { text: `p99 ${spanText(p99)} (dashed)`, colour: colour('c1') },
        { text: `longest ${spanText(max)}`, colour: 'transparent' }, { text: 'few', colour: colour('heat0') }, { text: 'many requests', colour: colour('heat4') },
      ]);
      setSummary(`half of the requests took less than ${spanText(p50)}, 99 of 100 less than ${spanText(p99)}, the longest ${spanText(max)}`);
    },
  };
}

function drawCells({ context }: Surface, plot: Plot, { columns, rows, counts }: HeatMap): void {
  if (rows === 0) return;
  const most = Math.log2(1 + counts.reduce((max, count) => Math.max(max, count), 0));
  const shades = Array.from({ length: SHADES }, (_, shade) => rgbOf(colour(`heat${shade}`)));
  const cells = new Cells(columns, rows);
  for (let cell = 0; cell < counts.length; cell++) {
    const count = counts[cell]!;
    if (count > 0) cells.paint(Math.floor(cell / rows), cell % rows, shades[Math.min(SHADES - 1, Math.floor((Math.log2(1 + count) / most) * SHADES))]!, 1);
  }
  cells.drawTo(context, plot.left, plot.top, plot.width, plot.height);
}

/** From 0 at the quickest to 1 at the slowest. */
const heightOf = (ns: number, { from, factor, rows }: HeatMap): number => Math.log(ns / from) / Math.log(factor) / rows;

function decades(heat: HeatMap): { y: number; text: string }[] {
  if (heat.rows === 0) return [];
  const found: { y: number; text: string }[] = [];
  for (let ns = 10 ** Math.ceil(Math.log10(heat.from)); heightOf(ns, heat) <= 1; ns *= 10) found.push({ y: HEIGHT * (1 - heightOf(ns, heat)), text: spanText(ns) });
  return found;
}

function drawLine({ context }: Surface, plot: Plot, heat: HeatMap, values: Float64Array, stroke: string, dash: readonly number[]): void {
  const wide = plot.width / heat.columns;
  // a rim in the colour of the ground, so that the line stands out from every shade
  for (const [style, width] of dash.length > 0 ? [[stroke, 2] as const] : [[colour('ground'), 4] as const, [stroke, 2] as const]) {
    context.beginPath();
    let drawing = false;
    values.forEach((ns, column) => {
      const known = ns >= 0;
      if (!known) drawing = false;
      if (!known) return;
      const y = plot.top + plot.height * (1 - heightOf(ns, heat));
      const x = plot.left + column * wide;
      if (drawing) context.lineTo(x, y);
      else context.moveTo(x, y);
      context.lineTo(x + wide, y);
      drawing = true;
    });
    context.strokeStyle = style;
    context.lineWidth = width;
    context.setLineDash([...dash]);
    context.stroke();
  }
  context.setLineDash([]);
}
