import type { View } from '../answers.js';
import { DISCARD, FLUSH } from '../operations.js';
import type { ScatterBins, ScatterPoints } from '../scatter.js';
import { drawYAxis, EDGE, frame, GUTTER, xOf, type Plot } from './axes.js';
import { Cells, classColour, colour, h, rgbOf, surface, type Surface } from './dom.js';
import { bytesText, ticks, whole } from './numbers.js';
import { panelFrame, type LegendEntry, type Panel } from './panel.js';

export const SCATTER_HEIGHT = 240;
/** Room for the marks of flushes. */
const TOP = 10;

/** Where on the panel which sector is. */
export function sectorAt(view: View, y: number): number {
  return view.sectorTo - ((y - TOP) / SCATTER_HEIGHT) * (view.sectorTo - view.sectorFrom);
}

export function scatterPanel(): Panel {
  const { element, body, setLegend, setSummary } = panelFrame('Offset over time', 'scatter');
  const canvas = h('canvas');
  body.append(canvas);
  return {
    element,
    draw: (view, width) => {
      const target = surface(canvas, GUTTER + width + EDGE, TOP + SCATTER_HEIGHT + 2);
      const plot: Plot = { left: GUTTER, top: TOP, width, height: SCATTER_HEIGHT };
      drawOffsets(target, plot, view);
      const { points, scatter } = view;
      const shown = points === null ? drawCells(target, plot, scatter!) : drawPoints(target, plot, view, points);
      frame(target, plot);
      setLegend(shown.legend);
      canvas.dataset['shown'] = points === null ? 'cells' : 'requests';
      setSummary(`${whole(shown.requests)} requests between ${bytesText(view.sectorFrom * 512)} and ${bytesText(view.sectorTo * 512)}, ${shown.legend.map(({ text }) => text).join(', ')}`);
    },
  };
}

function drawOffsets(target: Surface, plot: Plot, { sectorFrom, sectorTo }: View): void {
  drawYAxis(target, plot, ticks(sectorFrom, sectorTo, 6, 2).map((sector) => ({
    y: plot.height * (1 - (sector - sectorFrom) / (sectorTo - sectorFrom)), text: bytesText(sector * 512),
  })));
}

interface Shown {
  readonly legend: readonly LegendEntry[];
  readonly requests: number;
}

function legendOf(classes: readonly string[], used: ReadonlySet<number>, flushes: boolean, discards: boolean): LegendEntry[] {
  const entries: LegendEntry[] = [...used].sort((a, b) => a - b).map((place) => ({ text: classes[place]!, colour: classColour(place) }));
  if (discards) entries.push({ text: 'discard', colour: colour('discard'), mark: 'mark' });
  if (flushes) entries.push({ text: 'flush', colour: colour('flush'), mark: 'flush' });
  return entries;
}

/** A cell is as dense as the logarithm of its requests: one is well to be seen, ten thousand are no blot. */
function drawCells(target: Surface, plot: Plot, bins: ScatterBins): Shown {
  const { classes, x, y, kind, hits } = bins;
  const columns = bins.flushes.length;
  const cells = new Cells(columns, bins.rows);
  const colours = [...classes.map((_, place) => rgbOf(classColour(place))), rgbOf(colour('discard'))];
  const used = new Set<number>();
  for (let cell = 0; cell < x.length; cell++) {
    const of = kind[cell]!;
    used.add(of);
    // discards are hatched: their ranges are wide, and what lies under them stays to be seen
    if (of === classes.length && y[cell]! % 3 > 0) continue;
    cells.paint(x[cell]!, y[cell]!, colours[of]!, Math.min(1, 0.6 + 0.12 * Math.log2(hits[cell]!)));
  }
  if (columns > 0) cells.drawTo(target.context, plot.left, plot.top, plot.width, plot.height);
  let flushes = 0;
  for (let column = 0; column < columns; column++) {
    flushes += bins.flushes[column]!;
    if (bins.flushes[column]! > 0) drawFlush(target.context, plot, plot.left + ((column + 0.5) * plot.width) / columns);
  }
  const discards = used.delete(classes.length);
  return { legend: legendOf(classes, used, flushes > 0, discards), requests: bins.matched };
}

/** A triangle at the top: a flush has no offset. */
function drawFlush(context: CanvasRenderingContext2D, plot: Plot, x: number): void {
  context.fillStyle = colour('flush');
  context.beginPath();
  context.moveTo(x - 4, plot.top - 9);
  context.lineTo(x + 4, plot.top - 9);
  context.lineTo(x, plot.top - 1);
  context.fill();
}

/** Each from when it was queued to when it was completed, as high as it is long. */
function drawPoints(target: Surface, plot: Plot, view: View, points: ScatterPoints): Shown {
  const { context } = target;
  const used = new Set<number>();
  const found = { flushes: false, discards: false };
  const perSector = plot.height / (view.sectorTo - view.sectorFrom);
  context.save();
  context.beginPath();
  context.rect(plot.left, 0, plot.width, plot.top + plot.height);
  context.clip();
  for (let place = 0; place < points.row.length; place++) {
    const left = plot.left + xOf(points.from[place]!, view, plot.width);
    const op = points.op[place]!;
    if (op === FLUSH) {
      found.flushes = true;
      drawFlush(context, plot, left);
      continue;
    }
    const width = Math.max(3, plot.left + xOf(points.to[place]!, view, plot.width) - left);
    const height = Math.max(3, points.sectors[place]! * perSector);
    const top = plot.top + plot.height - (points.sector[place]! - view.sectorFrom) * perSector - height;
    if (op === DISCARD) {
      found.discards = true;
      context.strokeStyle = colour('discard');
      context.lineWidth = 2;
      context.strokeRect(left + 1, top + 1, Math.max(3, width - 2), Math.max(3, height - 2));
      continue;
    }
    used.add(points.kind[place]!);
    context.fillStyle = classColour(points.kind[place]!);
    context.globalAlpha = 0.85;
    context.fillRect(left, top, width, height);
    context.globalAlpha = 1;
  }
  context.restore();
  return { legend: legendOf(points.classes, used, found.flushes, found.discards), requests: points.row.length };
}
