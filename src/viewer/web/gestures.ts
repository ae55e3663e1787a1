import type { TimeSpan } from '../window.js';
import { GUTTER, xOf } from './axes.js';
import { h } from './dom.js';
import { timeText } from './numbers.js';
import type { Stage } from './stage.js';

/** Lines and bands over all panels at once: a finding's region, what is being chosen, the cursor, the request that was picked. */
export function overlay(stage: Stage): HTMLElement {
  const parts = { region: h('div', { class: 'region' }), brush: h('div', { class: 'brush' }), picked: h('div', { class: 'picked' }), cursor: h('div', { class: 'cursor' }) };
  const over = h('div', { class: 'over', 'aria-hidden': 'true' }, ...Object.values(parts));
  const place = (part: HTMLElement, span: TimeSpan | null): void => {
    part.hidden = span === null;
    if (span === null) return;
    const left = xOf(span.from, stage.look.span, 100);
    part.style.left = `${left}%`;
    if (span.to > span.from) part.style.width = `${Math.max(0.1, xOf(span.to, stage.look.span, 100) - left)}%`;
  };
  const update = (): void => {
    const { cursor, brush, region } = stage.marks;
    place(parts.region, region);
    place(parts.brush, brush);
    place(parts.cursor, cursor === null ? null : { from: cursor, to: cursor });
    const picked = stage.picked?.family.find(({ row }) => row === stage.picked?.row)?.times[0]?.[1];
    place(parts.picked, picked === undefined ? null : { from: picked, to: picked });
  };
  for (const topic of ['look', 'marks', 'picked', 'view'] as const) stage.on(topic, update);
  update();
  return over;
}

/** A drag shorter than this is a click. */
const CLICK_PIXELS = 4;
const WHEEL_FACTOR = 1.0015;

export interface Clicked {
  readonly panel: string | undefined;
  readonly time: number;
  /** Within the panel's picture. */
  readonly y: number;
}

/** The pointer over the panels: a drag chooses a stretch of time and shows it, the wheel zooms, a click picks. */
export function pointerGestures(panels: HTMLElement, stage: Stage, onClick: (clicked: Clicked) => void): void {
  let begun: { x: number; time: number; pan: boolean; span: TimeSpan } | null = null;
  const timeAt = (event: MouseEvent, span = stage.look.span): number => {
    const x = event.clientX - panels.getBoundingClientRect().left - GUTTER;
    return span.from + Math.min(1, Math.max(0, x / stage.width)) * (span.to - span.from);
  };
  panels.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    begun = { x: event.clientX, time: timeAt(event), pan: event.shiftKey, span: stage.look.span };
    panels.setPointerCapture(event.pointerId);
  });
  panels.addEventListener('pointermove', (event) => {
    stage.mark({ cursor: timeAt(event) });
    if (begun === null || Math.abs(event.clientX - begun.x) < CLICK_PIXELS) return;
    if (begun.pan) {
      const moved = timeAt(event, begun.span) - begun.time;
      stage.zoom({ from: begun.span.from - moved, to: begun.span.to - moved });
    } else {
      const now = timeAt(event);
      stage.mark({ brush: { from: Math.min(now, begun.time), to: Math.max(now, begun.time) } });
    }
  });
  panels.addEventListener('pointerup', (event) => {
    const { brush } = stage.marks;
    const clicked = begun !== null && Math.abs(event.clientX - begun.x) < CLICK_PIXELS;
    const pan = begun?.pan === true;
    begun = null;
    if (clicked) {
      const panel = document.elementsFromPoint(event.clientX, event.clientY).map((element) => element.closest<HTMLElement>('[data-panel]')).find((element) => element !== null);
      const picture = panel?.querySelector('canvas')?.getBoundingClientRect();
      onClick({ panel: panel?.dataset['panel'], time: timeAt(event), y: event.clientY - (picture?.top ?? 0) });
    } else if (brush !== null && !pan) stage.zoom(brush);
  });
  panels.addEventListener('pointercancel', () => {
    begun = null;
    stage.mark({ brush: null });
  });
  panels.addEventListener('wheel', (event) => {
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) stage.pan(event.deltaX / stage.width);
    else stage.scale(WHEEL_FACTOR ** event.deltaY, timeAt(event));
  }, { passive: false });
}

export const KEYS: readonly (readonly [keys: string, does: string])[] = [
  ['← →', 'move the cursor (Shift: by more)'], ['B', 'begin to choose at the cursor, Enter shows what was chosen'], ['Enter', 'pick the request at the cursor'],
  ['+ −', 'zoom at the cursor'], ['A D', 'go back and on'], ['Home', 'all of the trace'], ['N P', 'next and former finding'], ['Esc', 'let go'],
];

/** The same by keys, while the panels have the focus. */
export function keyGestures(panels: HTMLElement, stage: Stage, announce: (text: string) => void, nextFinding: (step: 1 | -1) => void): void {
  let anchor: number | null = null;
  const moveCursor = (share: number): void => {
    const { from, to } = stage.look.span;
    const cursor = Math.min(to, Math.max(from, (stage.marks.cursor ?? (from + to) / 2) + (to - from) * share));
    stage.mark({ cursor, brush: anchor === null ? null : { from: Math.min(anchor, cursor), to: Math.max(anchor, cursor) } });
    announce(timeText(cursor, to - from));
  };
  const letGo = (): void => {
    anchor = null;
    stage.mark({ brush: null, region: null });
    stage.unpick();
  };
  const enter = (): void => {
    const { brush, cursor } = stage.marks;
    anchor = null;
    if (brush !== null && brush.to > brush.from) stage.zoom(brush);
    // at any offset: keys choose a time only
    else void stage.pickNear(cursor ?? (stage.look.span.from + stage.look.span.to) / 2, 0, (stage.look.span.to - stage.look.span.from) / stage.width, Number.MAX_VALUE);
  };
  const begin = (): void => {
    anchor = stage.marks.cursor ?? (stage.look.span.from + stage.look.span.to) / 2;
    moveCursor(0);
  };
  const actions: Readonly<Record<string, () => void>> = {
    '+': () => stage.scale(0.5), '=': () => stage.scale(0.5), '-': () => stage.scale(2), _: () => stage.scale(2), a: () => stage.pan(-0.25), d: () => stage.pan(0.25),
    Home: () => stage.zoom(stage.overview.span), Enter: enter, b: begin, n: () => nextFinding(1), p: () => nextFinding(-1), Escape: letGo,
  };
  panels.addEventListener('keydown', (event) => {
    if (event.target !== panels || event.ctrlKey || event.altKey || event.metaKey) return;
    const arrow = event.key === 'ArrowLeft' ? -1 : event.key === 'ArrowRight' ? 1 : 0;
    const action = arrow === 0 ? actions[event.key.length === 1 ? event.key.toLowerCase() : event.key] : () => moveCursor(arrow * (event.shiftKey ? 0.1 : 0.01));
    if (action === undefined) return;
    event.preventDefault();
    action();
  });
}
