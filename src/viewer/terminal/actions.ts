/** What each key does to the view. */
import type { ShownFinding } from '../answers.js';
import type { TraceModel } from '../model.js';
import {
  choose, fitSectors, jump, neighbour, nextColour, nextFilter, panSectors, panTime, PANELS, refiltered, sectorsShown, toggleFollowing, wholeTrace, zoomSectors, zoomTime,
  type View,
} from './view.js';

export interface ActionContext {
  readonly model: TraceModel;
  readonly findings: readonly ShownFinding[];
  /** Whether more may come, so that the view can follow. */
  readonly live: boolean;
  /** Cells of the map. */
  readonly mapColumns: number;
  readonly mapRows: number;
}

type Action = (view: View, context: ActionContext) => View;

const PAN = 0.25;
const ZOOM = 0.5;

const middle = ({ cross, span }: View): number => cross !== null && cross.time >= span.from && cross.time < span.to ? cross.time : (span.from + span.to) / 2;

const zoom = (factor: number): Action => (view, { model }) => zoomTime(view, model, factor, middle(view));
const pan = (screens: number): Action => (view, { model }) => panTime(view, model, screens);
const focus = (step: number): Action => (view) => ({ ...view, focus: PANELS[(PANELS.indexOf(view.focus) + step + PANELS.length) % PANELS.length]! });

function request(step: 1 | -1): Action {
  return (view, { model }) => {
    const [first = -1] = model.rows(view.span, view.filter, 1);
    return choose(view, model, view.row < 0 ? first : neighbour(view, model, view.row, step));
  };
}

/** Goes to a finding and shows its region. */
function finding(step: number): Action {
  return (view, { model, findings }) => {
    if (findings.length === 0) return view;
    // the first jump goes to the finding that is chosen already
    const at = view.focus === 'findings' || step === 0 ? view.finding + step : view.finding;
    const next = (at + findings.length) % findings.length;
    return jump({ ...view, finding: next, focus: 'findings' }, model, findings[next]!);
  };
}

/** Moves the cross by cells of the map; within the window. */
function cross(columns: number, rows: number): Action {
  return (view, { model, mapColumns, mapRows }) => {
    const { from, to } = view.span;
    const { sectorFrom, sectorTo } = sectorsShown(view, model);
    const time = middle(view) + ((to - from) / mapColumns) * columns;
    const sector = (view.cross?.sector ?? (sectorFrom + sectorTo) / 2) + ((sectorTo - sectorFrom) / mapRows) * rows;
    return {
      ...view, focus: 'map',
      cross: { time: Math.max(from, Math.min(time, to - (to - from) / mapColumns / 2)), sector: Math.max(sectorFrom, Math.min(sector, sectorTo - (sectorTo - sectorFrom) / mapRows / 2)) },
    };
  };
}

function takeNearest(view: View, { model, mapColumns, mapRows }: ActionContext): View {
  const { sectorFrom, sectorTo } = sectorsShown(view, model);
  const time = middle(view);
  const sector = view.cross?.sector ?? (sectorFrom + sectorTo) / 2;
  const row = model.nearest({
    time, sector, timeUnit: (view.span.to - view.span.from) / mapColumns, sectorUnit: (sectorTo - sectorFrom) / mapRows, filter: view.filter,
  });
  return row < 0 ? view : { ...view, row, cross: { time, sector } };
}

/** Where keys differ by panel. */
function byFocus(actions: { readonly findings: Action; readonly map: Action; readonly requests: Action }): Action {
  return (view, context) => actions[view.focus](view, context);
}

const upOrDown = (step: 1 | -1): Action => byFocus({
  findings: (view, { findings }) => ({ ...view, finding: Math.max(0, Math.min(view.finding + step, findings.length - 1)) }),
  map: (view, { model }) => panSectors(view, model, -step * PAN),
  requests: request(step),
});

const pages = (step: 1 | -1): Action => byFocus({
  findings: upOrDown(step), map: pan(step), requests: (view, context) => {
    let moved = view;
    for (let times = 0; times < 10; times++) moved = request(step)(moved, context);
    return moved;
  },
});

const ACTIONS: Readonly<Record<string, Action>> = {
  tab: focus(1), 'shift-tab': focus(-1),
  left: pan(-PAN), right: pan(PAN), 'shift-left': pan(-1), 'shift-right': pan(1), up: upOrDown(-1), down: upOrDown(1), 'page-up': pages(-1), 'page-down': pages(1),
  '+': zoom(ZOOM), '=': zoom(ZOOM), '-': zoom(1 / ZOOM), _: zoom(1 / ZOOM),
  '[': (view, { model }) => zoomSectors(view, model, ZOOM), ']': (view, { model }) => zoomSectors(view, model, 1 / ZOOM), z: (view, { model }) => fitSectors(view, model),
  h: cross(-1, 0), l: cross(1, 0), j: cross(0, -1), k: cross(0, 1), H: cross(-8, 0), L: cross(8, 0), J: cross(0, -4), K: cross(0, 4),
  '>': request(1), '.': request(1), '<': request(-1), ',': request(-1),
  n: finding(1), N: finding(-1),
  enter: byFocus({ findings: finding(0), map: takeNearest, requests: request(1) }), space: takeNearest,
  c: nextColour,
  o: (view, { model }) => nextFilter(view, model, 'ops'), p: (view, { model }) => nextFilter(view, model, 'pids'), d: (view, { model }) => nextFilter(view, model, 'devices'),
  x: (view) => refiltered(view, {}),
  m: (view) => ({ ...view, letters: !view.letters }),
  0: (view, { model }) => ({ ...view, sectors: null, span: wholeTrace(model) }),
  home: (view, { model }) => panTime(view, model, -Infinity), end: (view, { model }) => panTime(view, model, Infinity),
  f: (view, { live, model }) => live ? toggleFollowing(view, model) : view,
  '?': (view) => ({ ...view, help: !view.help }),
  escape: (view) => ({ ...view, help: false, row: -1, cross: null }),
};

/** The view after a key; the same object where the key means nothing. */
export function act(key: string, view: View, context: ActionContext): View {
  // whoever reads the help presses something to go on
  if (view.help) return { ...view, help: false };
  const action = Object.hasOwn(ACTIONS, key) ? ACTIONS[key] : undefined;
  return action === undefined ? view : action(view, context);
}
