/** The map: offsets over time. A request is as high as it is large and, where few are seen, as wide as it took. */
import { SECTOR_BYTES } from '../../trace/record.js';
import { DISCARD, FLUSH } from '../operations.js';
import type { ScatterQuery } from '../scatter.js';
import { DotCanvas, type DotClass } from './braille.js';
import type { Grid, Rect } from './grid.js';
import { GUTTER } from './layout.js';
import { bytes, moment } from './numbers.js';
import { FAILED, kindLook, remembered, type Remembered, type Scene } from './scene.js';
import { Attribute, Colour } from './style.js';
import { fit } from './text.js';
import { sectorsShown } from './view.js';

const FLUSH_MARK = '╎';
/** More requests than this are drawn as dots where they begin. */
const MAX_DRAWN = 20_000;

export function drawMap(grid: Grid, rect: Rect, scene: Scene): void {
  const { view, look } = scene;
  // what has no place on the disk has a line of its own
  const lane = rect.height > 3 ? 1 : 0;
  const height = rect.height - lane;
  const columns = Math.max(1, rect.width - GUTTER);
  const { canvas, classes, flushes } = plotted(scene, columns, Math.max(1, height));
  canvas.draw(grid, GUTTER, rect.top, classes, view.letters || look.ascii);
  if (lane > 0 && flushes.length > 0) {
    grid.write(0, rect.top + height, fit('flush ', GUTTER, 'right'), Colour.DIM);
    for (const column of flushes) grid.set(GUTTER + column, rect.top + height, grid.ascii ? '|' : FLUSH_MARK, Colour.FLUSH);
  }
  drawOffsets(grid, rect, height, scene);
  drawRegion(grid, { left: GUTTER, top: rect.top, width: columns, height: rect.height }, scene);
  drawCross(grid, { left: GUTTER, top: rect.top, width: columns, height }, scene);
}

interface Plot {
  readonly canvas: DotCanvas;
  readonly classes: readonly DotClass[];
  /** Columns with flushes. */
  readonly flushes: readonly number[];
}

const PLOTS: Remembered<Plot> = new WeakMap();

function plotted(scene: Scene, columns: number, rows: number): Plot {
  const { model, view } = scene;
  const wide: ScatterQuery = { ...view.span, ...sectorsShown(view, model), columns: columns * 2, rows: rows * 4, filter: view.filter, colour: view.colour };
  return remembered(PLOTS, model, wide, () => drawnOne(scene, wide, columns, rows) ?? drawnBinned(scene, wide, columns, rows));
}

function classesOf({ view }: Scene, names: readonly string[]): DotClass[] {
  const kinds = [...names, 'discard'].map((_, kind) => kindLook(view.colour, kind, names.length));
  return [...kinds, FAILED];
}

/** Each request as a box, failed ones in the colour of errors. */
function drawnOne(scene: Scene, query: ScatterQuery, columns: number, rows: number): Plot | null {
  const points = scene.model.points(query, MAX_DRAWN);
  if (points === null) return null;
  const classes = classesOf(scene, points.classes);
  const canvas = new DotCanvas(columns, rows, classes.length);
  const perNs = canvas.dotColumns / (query.to - query.from);
  const perSector = canvas.dotRows / (query.sectorTo - query.sectorFrom);
  const flushes = new Set<number>();
  const { error } = scene.model.table;
  for (const [at, row] of points.row.entries()) {
    const left = Math.floor((points.from[at]! - query.from) * perNs);
    const first = points.sector[at]! - query.sectorFrom;
    const last = first + points.sectors[at]!;
    if (points.op[at] === FLUSH) flushes.add(Math.floor(left / 2));
    if (points.sectors[at] === 0 || last <= 0 || first >= query.sectorTo - query.sectorFrom) continue;
    const kind = error[row]! > 0 ? classes.length - 1 : points.op[at] === DISCARD ? classes.length - 2 : points.kind[at]!;
    canvas.box(left, canvas.dotRows - Math.ceil(last * perSector), Math.floor((points.to[at]! - query.from) * perNs), canvas.dotRows - 1 - Math.floor(first * perSector), kind);
  }
  return { canvas, classes, flushes: [...flushes].filter((column) => column >= 0 && column < columns) };
}

function drawnBinned(scene: Scene, query: ScatterQuery, columns: number, rows: number): Plot {
  const bins = scene.model.scatter(query);
  const classes = classesOf(scene, bins.classes);
  const canvas = new DotCanvas(columns, rows, classes.length);
  for (const [at, x] of bins.x.entries()) canvas.dot(x, canvas.dotRows - 1 - bins.y[at]!, bins.kind[at]!, bins.hits[at]);
  return { canvas, classes, flushes: [...bins.flushes.keys()].filter((x) => bins.flushes[x]! > 0).map((x) => Math.floor(x / 2)) };
}

/** The numbers beside the map: its ends, and what lies between where there is room. */
function drawOffsets(grid: Grid, { top }: Rect, height: number, { view, model }: Scene): void {
  const { sectorFrom, sectorTo } = sectorsShown(view, model);
  const labels = Math.max(2, Math.min(6, Math.floor(height / 4)));
  for (let label = 0; label < labels; label++) {
    const row = Math.round((label / (labels - 1)) * (height - 1));
    const sector = Math.round(sectorTo - ((sectorTo - sectorFrom) * row) / Math.max(1, height - 1));
    grid.write(0, top + row, `${fit(bytes(sector * SECTOR_BYTES), GUTTER - 1, 'right')} `, Colour.DIM);
  }
}

/** The edges of the chosen finding's region, where they are in the window. */
function drawRegion(grid: Grid, rect: Rect, { findings, view }: Scene): void {
  const finding = findings[view.finding];
  if (finding === undefined || view.focus !== 'findings') return;
  const { from, to } = view.span;
  for (const time of [finding.region.from, finding.region.to]) {
    if (time < from || time >= to) continue;
    const column = rect.left + Math.floor(((time - from) / (to - from)) * rect.width);
    for (let row = rect.top; row < rect.top + rect.height; row++) {
      if (grid.texts[row * grid.columns + column] === ' ') grid.set(column, row, grid.ascii ? ':' : '┊', Colour.WARN);
    }
  }
}

function drawCross(grid: Grid, rect: Rect, { view, model }: Scene): void {
  if (view.cross === null) return;
  const { from, to } = view.span;
  const { sectorFrom, sectorTo } = sectorsShown(view, model);
  const column = Math.floor(((view.cross.time - from) / (to - from)) * rect.width);
  const row = rect.height - 1 - Math.floor(((view.cross.sector - sectorFrom) / (sectorTo - sectorFrom)) * rect.height);
  if (column < 0 || column >= rect.width || row < 0 || row >= rect.height) return;
  const at = { left: rect.left + column, top: rect.top + row, width: 1, height: 1 };
  if (grid.texts[at.top * grid.columns + at.left] === ' ') grid.set(at.left, at.top, '+');
  grid.restyle(at, (style) => style + Attribute.REVERSE);
}

/** Moments along the bottom, at even distances. */
export function drawAxis(grid: Grid, { top, width }: Rect, { view }: Scene): void {
  const { from, to } = view.span;
  const chart = width - GUTTER;
  const ticks = Math.max(1, Math.floor(chart / 18));
  grid.write(0, top, fit('s ', GUTTER, 'right'), Colour.DIM);
  for (let column = 0; column < chart; column++) grid.set(GUTTER + column, top, grid.ascii ? '-' : '─', Colour.DIM);
  for (let tick = 0; tick <= ticks; tick++) {
    const time = from + ((to - from) * tick) / ticks;
    const text = moment(time, (to - from) / 200);
    const column = Math.round((chart - 1) * (tick / ticks));
    const left = Math.max(0, Math.min(chart - text.length, column - Math.floor(text.length / 2)));
    grid.write(GUTTER + left, top, text, Colour.DIM, width);
  }
}
