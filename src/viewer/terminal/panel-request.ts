/** One request: what it is, how long each step took, and the waterfall of all that belongs to it across layers. */
import { SECTOR_BYTES } from '../../trace/record.js';
import type { TraceModel } from '../model.js';
import { letters } from '../operations.js';
import type { Related } from '../relations.js';
import type { Grid, Rect } from './grid.js';
import { bytes, moment, span } from './numbers.js';
import { kindLook, type Scene } from './scene.js';
import { Attribute, Colour } from './style.js';
import { clip, fit } from './text.js';

const HINT = 'No request is chosen: > and < go from one to the next, h j k l move the cross, Enter takes what is nearest.';

export function drawRequest(grid: Grid, rect: Rect, scene: Scene): void {
  if (rect.height <= 0) return;
  const { model, view } = scene;
  const end = rect.left + rect.width;
  if (view.row < 0 || view.row >= model.table.count) {
    grid.write(rect.left, rect.top, clip(HINT, rect.width), Colour.DIM, end);
    return;
  }
  grid.write(rect.left, rect.top, clip(` ${headline(model, view.row)}`, rect.width), Attribute.BOLD, end);
  if (rect.height > 1) grid.write(rect.left, rect.top + 1, clip(` ${stepsText(model, view.row)}`, rect.width), 0, end);
  if (rect.height > 2) drawWaterfall(grid, { ...rect, top: rect.top + 2, height: rect.height - 2 }, scene);
}

function processOf(model: TraceModel, row: number): string {
  const pid = model.table.pid[row]!;
  return `${model.table.processes.get(pid) ?? 'pid'} ${pid}`;
}

function place(model: TraceModel, row: number): string {
  const { sector, bytes: length } = model.table;
  return length[row] === 0 ? 'no data' : `${bytes(length[row]!)} at ${bytes(sector[row]! * SECTOR_BYTES)} (${sector[row]} + ${length[row]! / SECTOR_BYTES})`;
}

/** `W 20K at 1.02M (2080 + 41)  8,0  qemu 4711  at 0.512 s  l2-alloc`. */
export function headline(model: TraceModel, row: number): string {
  const { table, index } = model;
  const cause = table.causes[table.cause[row]!] ?? '';
  const error = table.error[row]! > 0 ? `  ERROR ${table.error[row]}` : '';
  return [
    `#${row} ${letters(table.category[row]!, table.bytes[row]!)} ${place(model, row)}`, model.devices[index.device[row]!]?.name ?? '', processOf(model, row),
    `at ${moment(index.at[row]!, 1000)} s`, ...cause === '' ? [] : [cause],
  ].join('  ') + error;
}

/** `Q→G 1.20 µs  G→D 3.10 µs  D→C 80.1 µs  Q→C 84.4 µs`: the steps that were recorded. */
export function stepsText({ table }: TraceModel, row: number): string {
  if (table.mergedInto[row]! >= 0) return `merged into #${table.mergedInto[row]}${known(table.completed[row]!) ? `, completed after ${span(table.completed[row]! - table.queued[row]!)}` : ''}`;
  const steps = ([['Q', table.queued], ['G', table.gotRequest], ['I', table.inserted], ['D', table.issued], ['C', table.completed]] as const)
    .map(([name, column]) => ({ name, time: column[row]! })).filter(({ time }) => known(time));
  const between = steps.slice(1).map(({ name, time }, before) => `${steps[before]!.name}→${name} ${span(time - steps[before]!.time)}`);
  const whole = steps.length > 2 ? [`${steps[0]!.name}→${steps.at(-1)!.name} ${span(steps.at(-1)!.time - steps[0]!.time)}`] : [];
  return [...between, ...whole, ...known(table.completed[row]!) ? [] : ['not completed in this trace']].join('  ');
}

function known(time: number): boolean {
  return !Number.isNaN(time);
}

/** A line for each request of the family: queued `╌`, at the device `━`. */
function drawWaterfall(grid: Grid, rect: Rect, { model, view, look }: Scene): void {
  const { members, cut } = model.family(view.row, 200);
  const shown = aroundItself(members, rect.height - (members.length > rect.height || cut ? 1 : 0));
  const begin = Math.min(...members.map(({ row }) => model.index.at[row]!));
  const end = Math.max(begin + 1, ...members.map(({ row }) => endOf(model, row)));
  const width = Math.max(16, Math.min(44, Math.floor(rect.width * 0.4)));
  const chart = { left: rect.left + width, width: rect.width - width - 10 };
  for (const [line, related] of shown.entries()) {
    const top = rect.top + line;
    const { row } = related;
    const style = kindLook('op', model.index.op[row]!, Infinity).style + (row === view.row ? Attribute.BOLD : 0);
    grid.write(rect.left, top, fit(` ${memberText(model, related)}`, width - 1), row === view.row ? Attribute.BOLD : 0, rect.left + width);
    const column = (time: number): number => Math.max(0, Math.min(chart.width - 1, Math.floor(((time - begin) / (end - begin)) * chart.width)));
    const [first, last] = [column(model.index.at[row]!), column(endOf(model, row))];
    const issued = column(known(model.table.issued[row]!) ? model.table.issued[row]! : model.index.at[row]!);
    for (let at = first; at <= last; at++) grid.set(chart.left + at, top, at < issued ? look.ascii ? '.' : '╌' : look.ascii ? '=' : '━', style);
    grid.write(chart.left + chart.width + 1, top, fit(span(model.table.completed[row]! - model.index.at[row]!), 9, 'right'), 0, rect.left + rect.width);
  }
  if (shown.length < members.length || cut) {
    grid.write(rect.left, rect.top + shown.length, ` … ${members.length - shown.length}${cut ? ' and' : ''} more that belong to it`, Colour.DIM, rect.left + rect.width);
  }
}

function endOf(model: TraceModel, row: number): number {
  const completed = model.table.completed[row]!;
  return known(completed) ? completed : model.table.endNs;
}

/** As many as fit, with the request itself among them. */
function aroundItself(members: readonly Related[], fitting: number): readonly Related[] {
  const at = members.findIndex(({ how }) => how === 'itself');
  const first = Math.max(0, Math.min(at - Math.floor(fitting / 2), members.length - fitting));
  return members.slice(first, first + Math.max(0, fitting));
}

function memberText(model: TraceModel, { row, level, how }: Related): string {
  const { table, index } = model;
  const cause = table.causes[table.cause[row]!] ?? '';
  const device = model.devices[index.device[row]!]?.name ?? '';
  return [
    `${' '.repeat(Math.min(level, 8))}${how === 'merged' ? '+' : ''}${letters(table.category[row]!, table.bytes[row]!)}`,
    ...table.bytes[row] === 0 ? [] : [bytes(table.bytes[row]!)], ...cause === '' ? [] : [cause], device,
  ].join(' ');
}
