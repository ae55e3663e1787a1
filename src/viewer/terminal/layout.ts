/** Where each panel stands. All that have time as an axis stand above each other, so that one moment is one column. */
import type { Rect } from './grid.js';

/** Columns for the numbers beside an axis. */
export const GUTTER = 8;
/** Below this, a terminal shows only that it is too small. */
export const SMALLEST = { columns: 40, rows: 12 } as const;

export interface Layout {
  readonly title: Rect;
  readonly findings: Rect;
  readonly map: Rect;
  readonly axis: Rect;
  readonly heat: Rect;
  /** Throughput, IOPS, depth. */
  readonly lines: readonly [Rect, Rect, Rect];
  /** Beside the charts; of no width where there is no room. */
  readonly legend: Rect;
  readonly details: Rect;
  /** Beside or below the details or, with `details` of no height, in their place; null: not shown. */
  readonly requests: Rect | null;
  readonly keys: Rect;
}

export interface Wishes {
  readonly findings: number;
  /** The table of requests has the focus. */
  readonly table: boolean;
}

function legendWidth(columns: number): number {
  if (columns < 64) return 0;
  return columns < 110 ? 20 : 30;
}

interface Heights {
  readonly findings: number;
  readonly heat: number;
  readonly line: number;
  readonly details: number;
}

/** What a screen of `rows` gives to each; the map takes the rest. */
function heights(rows: number, findings: number): Heights {
  const few = Math.max(1, findings);
  if (rows < 20) return { findings: Math.min(rows < 16 ? 1 : 2, few), heat: 2, line: 1, details: rows < 16 ? 1 : 3 };
  if (rows < 32) return { findings: Math.min(3, few), heat: 4, line: 1, details: 4 };
  if (rows < 45) return { findings: Math.min(5, few), heat: 6, line: 2, details: 6 };
  return { findings: Math.min(6, few), heat: 8, line: 3, details: Math.floor(rows / 5) };
}

export function layoutOf(columns: number, rows: number, wishes: Wishes): Layout {
  const { findings, heat, line, details } = heights(rows, wishes.findings);
  let top = 0;
  const take = (height: number): Rect => {
    const rect = { left: 0, top, width: columns, height };
    top += height;
    return rect;
  };
  const title = take(1);
  const found = take(findings);
  const legend = legendWidth(columns);
  const chart = (height: number): Rect => ({ ...take(height), width: columns - legend });
  const chartsTop = top;
  const map = chart(rows - 1 - findings - heat - 3 * line - 1 - details - 1);
  const axis = chart(1);
  const heatMap = chart(heat);
  const lines = [chart(line), chart(line), chart(line)] as const;
  const beside = { left: columns - legend, top: chartsTop, width: legend, height: top - chartsTop };
  const bottom = take(details);
  return { title, findings: found, map, axis, heat: heatMap, lines, legend: beside, ...parted(bottom, wishes.table), keys: take(1) };
}

/** Details and table beside or above each other where there is room, else the one that is asked for. */
function parted(bottom: Rect, table: boolean): Pick<Layout, 'details' | 'requests'> {
  if (bottom.width < 140 && bottom.height >= 9) {
    const half = Math.ceil(bottom.height / 2);
    return { details: { ...bottom, height: half }, requests: { ...bottom, top: bottom.top + half, height: bottom.height - half } };
  }
  if (bottom.width < 140) return table ? { details: { ...bottom, height: 0 }, requests: bottom } : { details: bottom, requests: null };
  const half = Math.floor(bottom.width / 2);
  return { details: { ...bottom, width: half - 1 }, requests: { ...bottom, left: half + 1, width: bottom.width - half - 1 } };
}
