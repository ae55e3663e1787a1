import uPlot from 'uplot';
import type { View } from '../answers.js';
import { DISCARD, READ, WRITE } from '../operations.js';
import type { Traffic } from '../traffic.js';
import { EDGE, GUTTER } from './axes.js';
import { classColour, colour } from './dom.js';
import { bytesText, countText, ticks } from './numbers.js';
import { panelFrame, type Panel, type PanelFrame } from './panel.js';

const HEIGHT = 96;

/** Steps from each place to the next; `bands` fill between two series. */
interface Lines {
  readonly x: Float64Array | number[];
  readonly series: readonly { readonly values: ArrayLike<number>; readonly colour: string; readonly width?: number; readonly fill?: boolean; readonly dash?: number[] }[];
  readonly bands?: readonly (readonly [upper: number, lower: number])[];
}

/** A plot of uPlot's without what the page has for all panels: cursor, legend, axis of time. */
class Chart {
  #plot: uPlot | null = null;

  constructor(readonly frame: PanelFrame, readonly valueText: (value: number) => string, readonly base: 2 | 10) {}

  draw({ from, to }: View, width: number, lines: Lines): void {
    this.#plot?.destroy();
    // series differ from one view to the next, and making one anew takes a millisecond
    this.#plot = new uPlot({
      width: GUTTER + width + EDGE, height: HEIGHT + 10, padding: [5, EDGE, 5, 0], legend: { show: false }, cursor: { show: false },
      scales: { x: { time: false, range: () => [from, to] }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.05 : 1] } },
      axes: [{ show: false }, {
        size: GUTTER, stroke: () => colour('faint'), font: '11px system-ui, sans-serif', grid: { stroke: () => colour('line'), width: 0.5 }, ticks: { show: false },
        splits: (_, __, least, most) => ticks(least, most, 3, this.base), values: (_, splits) => splits.map((value) => (value === 0 ? '0' : this.valueText(value))),
      }],
      bands: (lines.bands ?? []).map((series) => ({ series: [series[0], series[1]], fill: withAlpha(lines.series[series[0] - 1]!.colour) })),
      series: [{}, ...lines.series.map(({ colour: stroke, width: line = 1.5, fill, dash }): uPlot.Series => ({
        stroke, width: line, points: { show: false }, paths: uPlot.paths.stepped!({ align: 1 }),
        ...(fill === true ? { fill: withAlpha(stroke) } : {}), ...(dash === undefined ? {} : { dash }),
      }))],
    }, [lines.x, ...lines.series.map(({ values }) => values as number[])], this.frame.body);
  }
}

const withAlpha = (hex: string): string => `${hex}30`;

/** The left edges of all columns, and the right edge of the last. */
function edges({ from, to }: View, columns: number): Float64Array {
  return Float64Array.from({ length: columns + 1 }, (_, column) => from + ((to - from) * column) / columns);
}

/** One more value than columns, so that the last step is as long as the others. */
function stepsOf(cells: ArrayLike<number>): Float64Array {
  return Float64Array.from({ length: cells.length + 1 }, (_, column) => cells[Math.min(column, cells.length - 1)]!);
}

/** Rates over this many columns at most: narrower ones are fur. */
const RATE_COLUMNS = 240;

/** Of so many columns of a view, and how much each tells in a second. */
interface Rates {
  readonly x: Float64Array;
  readonly of: (cells: ArrayLike<number>, op: number) => Float64Array;
}

function rates(view: View): Rates {
  const columns = view.depth.max.length;
  const together = Math.ceil(columns / RATE_COLUMNS);
  const count = Math.ceil(columns / together);
  const fine = edges(view, columns);
  const x = Float64Array.from({ length: count + 1 }, (_, place) => fine[Math.min(columns, place * together)]!);
  return {
    x,
    of: (cells, op) => Float64Array.from({ length: count }, (_, place) => {
      let sum = 0;
      for (let column = place * together; column < Math.min(columns, (place + 1) * together); column++) sum += cells[op * columns + column]!;
      return (sum * 1e9) / (x[place + 1]! - x[place]!);
    }),
  };
}

const DIRECTIONS = [[READ, 'read', 0], [WRITE, 'write', 1], [DISCARD, 'discard', 7]] as const;

function ratePanel(title: string, kind: string, cellsOf: (traffic: Traffic) => ArrayLike<number>, totalsOf: (traffic: Traffic) => Float64Array, text: (value: number) => string, base: 2 | 10): Panel {
  const frame = panelFrame(title, kind);
  const chart = new Chart(frame, (value) => `${text(value)}/s`, base);
  return {
    element: frame.element,
    draw: (view, width) => {
      const cells = cellsOf(view.traffic);
      const { x, of } = rates(view);
      const seconds = (view.to - view.from) / 1e9;
      const used = DIRECTIONS.filter(([op]) => totalsOf(view.traffic)[op]! > 0);
      chart.draw(view, width, {
        x, series: used.map(([op, , place]) => ({ values: stepsOf(of(cells, op)), colour: classColour(place), fill: true, ...(op === WRITE ? { dash: [6, 3] } : {}) })),
      });
      const told = used.map(([op, name, place]) => ({ text: `${name} ${text(totalsOf(view.traffic)[op]! / seconds)}/s on average${op === WRITE ? ' (dashed)' : ''}`, colour: classColour(place) }));
      frame.setLegend(told);
      frame.setSummary(told.length === 0 ? 'nothing was completed' : told.map((entry) => entry.text).join(', '));
    },
  };
}

export const throughputPanel = (): Panel => ratePanel('Throughput', 'throughput', ({ bytes }) => bytes, ({ totalBytes }) => totalBytes, bytesText, 2);
export const iopsPanel = (): Panel => ratePanel('Requests completed', 'iops', ({ ios }) => ios, ({ totalIos }) => totalIos, countText, 10);

/** Each step where there are few enough, else the least and the most of each column and the mean between them. */
export function depthPanel(): Panel {
  const frame = panelFrame('Queue depth', 'depth');
  const chart = new Chart(frame, countText, 10);
  return {
    element: frame.element,
    draw: (view, width) => {
      const { steps, min, max, mean, peak, average } = view.depth;
      const main = classColour(2);
      if (steps === null) {
        chart.draw(view, width, {
          x: edges(view, max.length), bands: [[1, 2]],
          series: [{ values: stepsOf(max), colour: main, width: 1 }, { values: stepsOf(min), colour: main, width: 0.5 }, { values: stepsOf(mean), colour: colour('ink'), width: 1.5 }],
        });
      } else {
        chart.draw(view, width, { x: [...steps.time, view.to], series: [{ values: [...steps.depth, steps.depth.at(-1)!], colour: main, fill: true }] });
      }
      frame.element.dataset['exact'] = String(steps !== null);
      frame.setLegend([
        { text: `in flight, at most ${peak}, ${average.toFixed(2)} on average`, colour: main }, ...(steps === null ? [{ text: 'mean of each column', colour: colour('ink') }] : []),
      ]);
      frame.setSummary(`at most ${peak} requests in flight, ${average.toFixed(2)} on average`);
    },
  };
}
