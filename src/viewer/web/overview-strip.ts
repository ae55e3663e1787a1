import type { View } from '../answers.js';
import { OPS } from '../operations.js';
import { EDGE, frame, GUTTER, xOf, type Plot } from './axes.js';
import { classColour, h, surface } from './dom.js';
import type { Stage } from './stage.js';

const HEIGHT = 34;

/** All of the trace, small, with the window that is shown as a part of it: to see where one is, and to take it elsewhere. */
export function overviewStrip(stage: Stage): { element: HTMLElement; draw: () => void } {
  const canvas = h('canvas');
  const shown = h('div', { class: 'shown' });
  const element = h('div', { class: 'overview', 'aria-hidden': 'true', title: 'All of the trace: requests completed. Click or drag to go there.' }, canvas, h('div', { class: 'over' }, shown));
  let whole: View | null = null;
  const draw = (): void => {
    const { view, overview: { span } } = stage;
    if (view !== null && view.from <= span.from && view.to >= span.to) whole = view;
    const target = surface(canvas, GUTTER + stage.width + EDGE, HEIGHT + 2);
    const plot: Plot = { left: GUTTER, top: 1, width: stage.width, height: HEIGHT };
    if (whole !== null) drawCounts(target.context, plot, whole);
    frame(target, plot);
  };
  const place = (): void => {
    const { span } = stage.overview;
    const left = xOf(stage.look.span.from, span, 100);
    shown.style.left = `${left}%`;
    shown.style.width = `${Math.max(0.3, xOf(stage.look.span.to, span, 100) - left)}%`;
  };
  const goTo = (event: PointerEvent): void => {
    const { span } = stage.overview;
    const share = (event.clientX - element.getBoundingClientRect().left - GUTTER) / stage.width;
    const half = (stage.look.span.to - stage.look.span.from) / 2;
    const at = Math.min(span.to - half, Math.max(span.from + half, span.from + share * (span.to - span.from)));
    stage.zoom({ from: at - half, to: at + half });
  };
  element.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    element.setPointerCapture(event.pointerId);
    goTo(event);
  });
  element.addEventListener('pointermove', (event) => { if (element.hasPointerCapture(event.pointerId)) goTo(event); });
  stage.on('look', place);
  place();
  return { element, draw };
}

function drawCounts(context: CanvasRenderingContext2D, plot: Plot, { traffic: { ios } }: View): void {
  const columns = ios.length / OPS.length;
  const sums = Array.from({ length: columns }, (_, column) => OPS.reduce((sum, __, op) => sum + ios[op * columns + column]!, 0));
  const most = Math.max(1, ...sums);
  context.fillStyle = classColour(7);
  sums.forEach((sum, column) => {
    const high = (sum / most) * plot.height;
    context.fillRect(plot.left + (column / columns) * plot.width, plot.top + plot.height - high, plot.width / columns + 0.3, high);
  });
}
