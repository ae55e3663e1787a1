/** What is looked at and how: the state that keys change. Pure; nothing here draws. */
import { SECTOR_BYTES } from '../../trace/record.js';
import type { ShownFinding } from '../answers.js';
import type { Filter } from '../filter.js';
import type { TraceModel } from '../model.js';
import { OPS } from '../operations.js';
import type { ColourBy } from '../scatter.js';
import type { TimeSpan } from '../window.js';

export const PANELS = ['findings', 'map', 'requests'] as const;
export type PanelName = (typeof PANELS)[number];
export const COLOUR_MODES: readonly ColourBy[] = ['op', 'process', 'layer'];

/** `sectorTo` excluded. */
export interface SectorSpan {
  readonly sectorFrom: number;
  readonly sectorTo: number;
}

export interface View {
  readonly span: TimeSpan;
  /** null: all that the shown layers have. */
  readonly sectors: SectorSpan | null;
  readonly colour: ColourBy;
  readonly filter: Filter;
  readonly focus: PanelName;
  /** The request that is told of, -1 for none; and where the cross stands. */
  readonly row: number;
  readonly cross: { readonly time: number; readonly sector: number } | null;
  readonly finding: number;
  /** Letters instead of dots in the map. */
  readonly letters: boolean;
  readonly help: boolean;
  /** The window ends where the trace does, and moves with it. */
  readonly following: boolean;
  /** How wide that window is at most, ns. */
  readonly followNs: number;
}

const FOLLOWED_NS = 30e9;

/** Nobody looks closer than this, ns. */
const SHORTEST_WINDOW = 100;
/** A page is the least that a map is high. */
const FEWEST_SECTORS = 8;

export function firstView(model: TraceModel, following: boolean, letters: boolean): View {
  return {
    span: wholeTrace(model), sectors: null, colour: 'op', filter: {}, focus: 'map', row: -1, cross: null, finding: 0, letters, help: false, following,
    followNs: FOLLOWED_NS,
  };
}

/** A live trace may have forgotten its beginning: the window begins with what is there. */
export function wholeTrace(model: TraceModel): TimeSpan {
  const { from, to } = model.span;
  const first = model.table.count === 0 ? from : model.index.at[0]!;
  // a beginning that is nearly the trace's is taken for it
  return { from: first - from < (to - from) * 0.05 ? from : first, to: Math.max(to, from + SHORTEST_WINDOW) };
}

/** Nearer (`factor` < 1) or farther, with `around` where it is on the screen. Never out of the trace. */
export function zoomTime(view: View, model: TraceModel, factor: number, around: number): View {
  const { from, to } = view.span;
  const whole = wholeTrace(model);
  const width = Math.max(SHORTEST_WINDOW, Math.min((to - from) * factor, whole.to - whole.from));
  const part = (around - from) / (to - from);
  return { ...view, following: false, span: windowAt(around - part * width, width, whole) };
}

export function panTime(view: View, model: TraceModel, screens: number): View {
  const { from, to } = view.span;
  return { ...view, following: false, span: windowAt(from + (to - from) * screens, to - from, wholeTrace(model)) };
}

/** A window of that width, within the trace. */
function windowAt(from: number, width: number, whole: TimeSpan): TimeSpan {
  const begin = Math.max(whole.from, Math.min(from, whole.to - width));
  return { from: begin, to: begin + width };
}

/** The end of the trace: all of it until it is longer than the window that follows. */
export function followEnd(view: View, model: TraceModel): View {
  const { from, to } = wholeTrace(model);
  return { ...view, span: { from: Math.max(from, to - view.followNs), to } };
}

/** Follows from here on, in a window as wide as the one that is seen. */
export function toggleFollowing(view: View, model: TraceModel): View {
  if (view.following) return { ...view, following: false };
  const { from, to } = view.span;
  const whole = wholeTrace(model);
  const isWhole = to - from >= (whole.to - whole.from) * 0.99;
  return followEnd({ ...view, following: true, followNs: isWhole ? view.followNs : to - from }, model);
}

/** What the vertical axis shows: never nothing. */
export function sectorsShown(view: View, model: TraceModel): SectorSpan {
  const { sectorFrom, sectorTo } = view.sectors ?? model.sectorRange(view.filter.devices);
  return { sectorFrom, sectorTo: Math.max(sectorTo, sectorFrom + FEWEST_SECTORS) };
}

export function zoomSectors(view: View, model: TraceModel, factor: number): View {
  const { sectorFrom, sectorTo } = sectorsShown(view, model);
  const around = view.cross?.sector ?? (sectorFrom + sectorTo) / 2;
  const width = Math.max(FEWEST_SECTORS, (sectorTo - sectorFrom) * factor);
  const part = (around - sectorFrom) / (sectorTo - sectorFrom);
  const from = Math.max(0, around - part * width);
  return { ...view, sectors: { sectorFrom: from, sectorTo: from + width } };
}

export function panSectors(view: View, model: TraceModel, screens: number): View {
  const { sectorFrom, sectorTo } = sectorsShown(view, model);
  const by = Math.max(-sectorFrom, (sectorTo - sectorFrom) * screens);
  return { ...view, sectors: { sectorFrom: sectorFrom + by, sectorTo: sectorTo + by } };
}

/** Offsets of what is queued in the window fill the map, or all offsets where they do already. */
export function fitSectors(view: View, model: TraceModel): View {
  if (view.sectors !== null) return { ...view, sectors: null };
  const { table } = model;
  let [from, to] = [Infinity, 0];
  for (const row of model.rows(view.span, view.filter, table.count)) {
    if (table.bytes[row] === 0) continue;
    from = Math.min(from, table.sector[row]!);
    to = Math.max(to, table.sector[row]! + table.bytes[row]! / SECTOR_BYTES);
  }
  return to === 0 ? view : { ...view, sectors: { sectorFrom: from, sectorTo: to } };
}

export function nextColour(view: View): View {
  return { ...view, colour: COLOUR_MODES[(COLOUR_MODES.indexOf(view.colour) + 1) % COLOUR_MODES.length]! };
}

/** The next value of a part of the filter: all, then each that the trace has, then all again. */
export function nextFilter(view: View, model: TraceModel, part: keyof Filter): View {
  const { filter } = view;
  if (part === 'ops') {
    const used = new Set(model.index.groups.map(({ op }) => op));
    return refiltered(view, { ...filter, ops: nextOf(filter.ops, OPS.filter((_, op) => used.has(op))) });
  }
  if (part === 'pids') return refiltered(view, { ...filter, pids: nextOf(filter.pids, model.processes.map(({ pid }) => pid)) });
  return refiltered(view, { ...filter, devices: nextOf(filter.devices, model.devices.map(({ device }) => device)) });
}

export function refiltered(view: View, filter: Filter): View {
  // what is filtered out is not told of any more
  return { ...view, filter, sectors: null, row: -1, cross: null };
}

function nextOf<T>(chosen: readonly T[] | undefined, all: readonly T[]): readonly T[] | undefined {
  const next = all[chosen === undefined ? 0 : all.indexOf(chosen[0]!) + 1];
  return next === undefined ? undefined : [next];
}

/** The next request after (`step` 1) or before (-1) a row that the filter lets through; the row itself where there is none. */
export function neighbour(view: View, model: TraceModel, row: number, step: 1 | -1): number {
  const { table, index } = model;
  const { ops, pids, devices } = view.filter;
  const passes = (at: number): boolean => (ops === undefined || ops.includes(OPS[index.op[at]!]!)) && (pids === undefined || pids.includes(table.pid[at]!))
    && (devices === undefined || devices.includes(table.device[at]!));
  for (let at = row + step; at >= 0 && at < table.count; at += step) if (passes(at)) return at;
  return row;
}

/** Chooses a request, and moves the window so that it is seen. */
export function choose(view: View, model: TraceModel, row: number): View {
  if (row < 0 || row >= model.table.count) return view;
  const { table, index } = model;
  const time = index.at[row]!;
  const { from, to } = view.span;
  const isSeen = time >= from && time < to;
  const half = (to - from) / 2;
  const shown = sectorsShown(view, model);
  const sector = table.bytes[row] === 0 ? view.cross?.sector ?? shown.sectorFrom : table.sector[row]! + table.bytes[row]! / SECTOR_BYTES / 2;
  return {
    ...view, row, cross: { time, sector }, following: view.following && isSeen,
    span: isSeen ? view.span : windowAt(time - half, to - from, wholeTrace(model)),
    sectors: sector >= shown.sectorFrom && sector < shown.sectorTo ? view.sectors : null,
  };
}

/** The region of a finding with some of what is around it, and its first request. */
export function jump(view: View, model: TraceModel, { region: { from, to }, evidence }: Pick<ShownFinding, 'region' | 'evidence'>): View {
  const whole = wholeTrace(model);
  const width = Math.min(whole.to - whole.from, Math.max(SHORTEST_WINDOW, (to - from) * 1.1));
  const middle = (from + to) / 2;
  const moved = { ...view, following: false, sectors: null, span: windowAt(middle - width / 2, width, whole) };
  return evidence.length === 0 ? moved : choose(moved, model, evidence[0]!);
}
