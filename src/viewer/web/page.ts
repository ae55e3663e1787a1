/** The page of a trace: findings first, panels on one axis of time, the request that was picked, and the list of events. */
import type { LoadingState } from '../answers.js';
import { drawTimeAxis, EDGE, GUTTER } from './axes.js';
import { controls, themeSwitch } from './controls.js';
import { carriedSource } from './carried.js';
import { detailPane } from './detail.js';
import { h, surface } from './dom.js';
import { eventsTable } from './events-table.js';
import { findingsList } from './findings.js';
import { KEYS, keyGestures, overlay, pointerGestures } from './gestures.js';
import { heatPanel } from './heat-panel.js';
import { histograms } from './histograms.js';
import { depthPanel, iopsPanel, throughputPanel } from './lines-panel.js';
import { spanText, whole } from './numbers.js';
import { overviewStrip } from './overview-strip.js';
import { scatterPanel, SCATTER_HEIGHT, sectorAt } from './scatter-panel.js';
import { serverSource, type Source } from './source.js';
import { Stage } from './stage.js';

const POLL_MS = 100;
const FOLLOW_MS = 1000;
const AXIS_HEIGHT = 24;

async function start(): Promise<void> {
  const app = document.querySelector<HTMLElement>('#app')!;
  try {
    const source = await carriedSource() ?? serverSource();
    const state = await waitUntilRead(app, source);
    const asked = performance.now();
    const stage = new Stage(source, await source.overview());
    document.title = `${stage.overview.name} – Quiesce trace`;
    stage.on('view', firstPaint(asked));
    app.replaceChildren(...build(stage));
    await stage.resize(plotWidth());
    if (state.version !== undefined) await follow(stage, state.version);
  } catch (error) {
    app.replaceChildren(h('p', { class: 'loading problem', role: 'alert' }, error instanceof Error ? error.message : String(error)));
  }
}

/** Tells, once, how long it took from the trace being ready to it being painted. */
function firstPaint(asked: number): () => void {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    requestAnimationFrame(() => requestAnimationFrame(() => { document.documentElement.dataset['firstPaintMs'] = (performance.now() - asked).toFixed(1); }));
  };
}

async function waitUntilRead(app: HTMLElement, source: Source): Promise<LoadingState> {
  const bar = h('progress', { 'aria-label': 'Reading the trace' });
  const text = h('p', { role: 'status' }, 'Reading the trace');
  app.replaceChildren(h('div', { class: 'loading' }, h('h1', {}, 'Quiesce trace'), text, bar));
  for (;;) {
    const state: LoadingState = await source.status();
    if (state.phase === 'failed') throw new Error(state.problem ?? 'the trace could not be read');
    if (state.phase === 'ready') return state;
    if (state.total !== null) {
      bar.max = state.total;
      bar.value = state.done;
    }
    text.textContent = `Reading the trace: ${whole(state.done)}${state.total === null ? '' : ` of ${whole(state.total)}`} ${state.unit}`;
    await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
  }
}

/** Shows what comes, until nothing comes any more. */
async function follow(stage: Stage, from: number): Promise<void> {
  for (let known: number | undefined = from; known !== undefined;) {
    await new Promise((resolve) => { setTimeout(resolve, FOLLOW_MS); });
    const { version, phase, problem } = await stage.source.status();
    if (phase === 'failed') throw new Error(problem);
    if (version !== known) stage.renew(await stage.source.overview());
    known = version;
  }
}

const plotWidth = (): number => {
  const panels = document.querySelector('.panels');
  return panels === null ? 800 : Math.max(200, Math.floor(panels.clientWidth - GUTTER - EDGE));
};

function build(stage: Stage): HTMLElement[] {
  const live = h('p', { class: 'hidden', role: 'status' });
  const announce = (text: string): void => { live.textContent = text; };
  let findings = findingsList(stage, announce);
  const main = panels(stage, announce, (by) => findings.step(by));
  const shapes = histograms();
  const strip = overviewStrip(stage);
  const redraw = (): void => {
    if (stage.view === null) return;
    strip.draw();
    main.draw();
    shapes.draw(stage.view);
  };
  stage.on('view', redraw);
  window.addEventListener('resize', () => void stage.resize(plotWidth()));
  const problem = h('p', { class: 'problem', role: 'alert', hidden: true });
  stage.on('problem', () => {
    problem.hidden = stage.problem === null;
    problem.textContent = stage.problem;
  });
  const theme = themeSwitch(redraw);
  const top = h('div', {});
  const told = (): { shown: string; listed: string } => {
    const { devices, processes, findings: found } = stage.overview;
    return { shown: JSON.stringify([devices.map(({ device }) => device), processes.map(({ pid }) => pid)]), listed: JSON.stringify(found) };
  };
  let built = told();
  let choices = controls(stage);
  const rebuild = (): void => top.replaceChildren(header(stage, theme), findings.element, choices);
  stage.on('overview', () => {
    const now = told();
    // what somebody is about to press stays as it is, where it can
    if (now.shown !== built.shown) choices = controls(stage);
    if (now.listed !== built.listed) findings = findingsList(stage, announce);
    if (now.shown === built.shown && now.listed === built.listed) top.firstElementChild!.replaceWith(header(stage, theme));
    else rebuild();
    built = now;
  });
  rebuild();
  return [
    top, problem,
    h('div', { class: 'work' }, h('div', {}, strip.element, main.element, shapes.element, eventsTable(stage)), h('div', { class: 'side' }, detailPane(stage), keyHelp())), live,
  ];
}

function header({ overview }: Stage, theme: HTMLElement): HTMLElement {
  const { name, requests, records, span, remarks } = overview;
  const counted = records === null ? '' : ` in ${whole(records)} records`;
  return h('header', { class: 'top' }, h('h1', {}, name), h('span', { class: 'faint' }, `${whole(requests)} requests${counted}, ${spanText(span.to - span.from)}`),
    ...remarks.map((remark) => h('span', { class: 'problem' }, remark)), h('span', { class: 'grow' }), theme);
}

function keyHelp(): HTMLElement {
  return h('details', { class: 'card' }, h('summary', {}, 'Keys, while the panels have the focus'),
    ...KEYS.map(([keys, does]) => h('p', {}, ...keys.split(' ').flatMap((key) => [h('kbd', {}, key), ' ']), does)),
    h('p', { class: 'faint' }, 'Drag to choose a stretch of time; Shift and drag to move; the wheel zooms; a click picks a request.'));
}

function panels(stage: Stage, announce: (text: string) => void, nextFinding: (by: 1 | -1) => void): { element: HTMLElement; draw: () => void } {
  const all = [scatterPanel(), throughputPanel(), iopsPanel(), heatPanel(), depthPanel()];
  const axis = h('canvas', { 'aria-hidden': 'true' });
  const element = h('div', {
    class: 'panels', tabindex: 0, role: 'application', 'aria-label': 'Panels over time. Arrow keys move the cursor, plus and minus zoom, Enter picks a request.',
  }, ...all.map((panel) => panel.element), axis, overlay(stage));
  pointerGestures(element, stage, ({ panel, time, y }) => {
    const { view } = stage;
    if (view === null) return;
    const timeUnit = (view.to - view.from) / stage.width;
    const inScatter = panel === 'scatter';
    void stage.pickNear(time, inScatter ? sectorAt(view, y) : 0, timeUnit, inScatter ? (view.sectorTo - view.sectorFrom) / SCATTER_HEIGHT : Number.MAX_VALUE);
  });
  keyGestures(element, stage, announce, nextFinding);
  const draw = (): void => {
    const { view } = stage;
    if (view === null) return;
    for (const panel of all) panel.draw(view, stage.width);
    const target = surface(axis, GUTTER + stage.width + EDGE, AXIS_HEIGHT);
    drawTimeAxis(target, { left: GUTTER, top: 0, width: stage.width, height: 0 }, view);
  };
  return { element, draw };
}

void start();
