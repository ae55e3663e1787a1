import type { TimeSpan } from '../window.js';
import { colour, type Surface } from './dom.js';
import { ticks, timeText } from './numbers.js';

/** As the style sheet has them: all panels begin and end at the same places. */
export const GUTTER = 76;
export const EDGE = 12;
const FONT = '11px system-ui, sans-serif';

export interface Plot {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export const xOf = (time: number, { from, to }: TimeSpan, width: number): number => ((time - from) / (to - from)) * width;

/** Lines and words for places on the y axis, whose heights are in pixels from the top of the plot. */
export function drawYAxis({ context }: Surface, plot: Plot, places: readonly { readonly y: number; readonly text: string }[]): void {
  context.font = FONT;
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  context.lineWidth = 1;
  for (const { y, text } of places) {
    const at = Math.round(plot.top + y) + 0.5;
    context.strokeStyle = colour('line');
    context.globalAlpha = 0.5;
    context.beginPath();
    context.moveTo(plot.left, at);
    context.lineTo(plot.left + plot.width, at);
    context.stroke();
    context.globalAlpha = 1;
    context.fillStyle = colour('faint');
    context.fillText(text, plot.left - 6, Math.min(plot.top + plot.height - 5, Math.max(plot.top + 5, at)));
  }
}

/** Times below a plot. */
export function drawTimeAxis({ context }: Surface, plot: Plot, span: TimeSpan): void {
  context.font = FONT;
  context.textBaseline = 'top';
  context.fillStyle = colour('faint');
  context.strokeStyle = colour('line');
  const bottom = plot.top + plot.height;
  for (const time of ticks(span.from, span.to, plot.width / 110)) {
    const x = Math.round(plot.left + xOf(time, span, plot.width)) + 0.5;
    context.beginPath();
    context.moveTo(x, bottom);
    context.lineTo(x, bottom + 4);
    context.stroke();
    const text = timeText(time, span.to - span.from);
    const half = context.measureText(text).width / 2;
    context.textAlign = 'center';
    context.fillText(text, Math.min(plot.left + plot.width - half, Math.max(plot.left + half, x)), bottom + 6);
  }
}

export function frame({ context }: Surface, plot: Plot): void {
  context.strokeStyle = colour('line');
  context.lineWidth = 1;
  context.strokeRect(plot.left - 0.5, plot.top - 0.5, plot.width + 1, plot.height + 1);
}
