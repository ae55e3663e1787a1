/** The same panels as one text: for pipes, logs and terminals that cannot do more. */
import type { TraceModel } from '../model.js';
import { Grid, type Rect } from './grid.js';
import type { Layout } from './layout.js';
import { findingText } from './panel-lists.js';
import { drawPanels } from './screen.js';
import type { Look, Scene } from './scene.js';
import { wrap } from './text.js';
import { firstView } from './view.js';
import type { Shown } from './viewer.js';

export interface ReportOptions extends Look {
  readonly columns: number;
}

const HEIGHTS = { map: 16, heat: 8, line: 3, family: 12, requests: 12 } as const;

/** Lines of at most `columns`; findings first, in full. */
export function textReport({ model, findings, source }: Shown, options: ReportOptions): string[] {
  const look = { ascii: options.ascii, colours: options.colours };
  const view = firstView(model, false, look.colours === 'none' || look.ascii);
  const row = slowest(model);
  const scene: Scene = { model, view: { ...view, row }, findings, source, look };
  const layout = reportLayout(options.columns, findings.length === 0 ? 1 : 0, row < 0 ? 1 : 2 + model.family(row, HEIGHTS.family).members.length);
  const grid = new Grid(options.columns, layout.keys.top, look.ascii);
  // told in full below
  drawPanels(grid, layout, { ...scene, source: { ...source, notice: '' } });
  const lines = grid.lines(look.colours);
  return [...lines.slice(0, layout.map.top), ...explained(scene, options.columns), '', ...lines.slice(layout.map.top)];
}

/** The findings: in full, where a screen only names them. */
function explained({ findings, look, source }: Scene, columns: number): string[] {
  const notice = source.notice === '' ? [] : ['', ...wrap(source.notice, columns - 1).map((line) => ` ${line}`)];
  const lines = findings.flatMap((finding) => ['', ...findingText(finding).flatMap((text, index) => wrap(text, columns - 4).map((line) => `${index === 0 ? ' ' : '    '}${line}`))]).concat(notice);
  // the same replacements as on a screen
  const grid = new Grid(columns, lines.length, look.ascii);
  for (const [row, line] of lines.entries()) grid.write(0, row, line);
  return grid.lines();
}

/** The request that a report tells of: what took longest. */
function slowest({ table }: TraceModel): number {
  let row = -1;
  let longest = -1;
  for (let at = 0; at < table.count; at++) {
    const took = table.completed[at]! - table.queued[at]!;
    if (took > longest && table.error[at] === 0) [row, longest] = [at, took];
  }
  return row;
}

function reportLayout(columns: number, findings: number, request: number): Layout {
  let top = 0;
  const legend = columns < 64 ? 0 : columns < 110 ? 20 : 30;
  const take = (height: number, width = columns): Rect => {
    const rect = { left: 0, top, width, height };
    top += height;
    return rect;
  };
  const chart = (height: number): Rect => take(height, columns - legend);
  const parts = {
    title: take(1), findings: take(findings), map: chart(HEIGHTS.map), axis: chart(1), heat: chart(HEIGHTS.heat),
    lines: [chart(HEIGHTS.line), chart(HEIGHTS.line), chart(HEIGHTS.line)] as const,
  };
  const beside = { left: columns - legend, top: parts.map.top, width: legend, height: top - parts.map.top };
  top++;
  const details = take(request);
  top++;
  const requests = take(HEIGHTS.requests);
  return { ...parts, legend: beside, details, requests, keys: take(0) };
}
