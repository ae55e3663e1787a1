import { describe, expect, test } from '@jest/globals';
import { TraceModel } from '../../../../src/viewer/model.js';
import { act, type ActionContext } from '../../../../src/viewer/terminal/actions.js';
import type { ShownFinding } from '../../../../src/viewer/answers.js';
import { firstView, sectorsShown, type View } from '../../../../src/viewer/terminal/view.js';
import { ioTable, layered, readModifyWrites } from '../../../support/io-tables.js';

const FINDINGS: readonly ShownFinding[] = [
  { severity: 'critical', title: 'first', text: 'why', cure: 'Do it.', devices: [], region: { from: 10e6, to: 20e6 }, evidence: [32] },
  { severity: 'warning', title: 'second', text: 'why', cure: 'Do it.', devices: [], region: { from: 90e6, to: 91e6 }, evidence: [] },
];

function contextOf(model: TraceModel, live = false): ActionContext {
  return { model, findings: FINDINGS, live, mapColumns: 50, mapRows: 8 };
}

function press(view: View, context: ActionContext, ...keys: readonly string[]): View {
  return keys.reduce((now, key) => act(key, now, context), view);
}

const model = new TraceModel(readModifyWrites(200));
const context = contextOf(model);
const first = firstView(model, false, false);
const width = ({ span }: View): number => span.to - span.from;

describe('time', () => {
  test('begins with the whole trace', () => {
    expect(first.span.from).toBe(0);
    expect(first.span.to).toBeGreaterThan(model.table.endNs);
  });

  test('+ and - halve and double the window around its middle, or around the cross', () => {
    const near = press(first, context, '+');
    expect(width(near)).toBeCloseTo(width(first) / 2);
    expect(near.span.from).toBeCloseTo(width(first) / 4);
    expect(press(near, context, '-').span).toEqual(first.span);
    const cross = { ...first, cross: { time: width(first) / 10, sector: 0 } };
    expect(press(cross, context, '+').span.from).toBeCloseTo(width(first) / 20);
  });

  test('never out of the trace, never without a width', () => {
    expect(press(first, context, '-', '-', 'left', 'right', 'shift-right').span).toEqual(first.span);
    const deep = press(first, context, ...Array.from({ length: 60 }, () => '+'));
    expect(width(deep)).toBeGreaterThanOrEqual(99);
    const right = press(deep, context, 'end');
    expect(right.span.to).toBeCloseTo(first.span.to);
    expect(press(right, context, 'home').span.from).toBe(0);
    expect(width(press(right, context, 'home'))).toBeCloseTo(width(deep));
  });

  test('arrows pan by a quarter, 0 shows all again', () => {
    const near = press(first, context, '+', '+');
    const moved = press(near, context, 'right');
    expect(moved.span.from - near.span.from).toBeCloseTo(width(near) / 4);
    expect(press(moved, context, 'left').span.from).toBeCloseTo(near.span.from);
    expect(press(moved, context, '0').span).toEqual(first.span);
  });
});

describe('offsets', () => {
  test('begin with all that was touched', () => {
    expect(sectorsShown(first, model)).toEqual({ sectorFrom: 2048, sectorTo: 2048 + 199 * 40 + 41 });
  });

  test('[ and ] zoom, up and down pan, not below 0', () => {
    const near = press(first, context, '[');
    const shown = sectorsShown(near, model);
    expect(shown.sectorTo - shown.sectorFrom).toBeCloseTo((199 * 40 + 41) / 2);
    expect(sectorsShown(press(near, context, 'up'), model).sectorFrom).toBeGreaterThan(shown.sectorFrom);
    expect(sectorsShown(press(near, context, ...Array.from({ length: 20 }, () => 'down')), model).sectorFrom).toBe(0);
    expect(sectorsShown(press(first, context, ']', ']', ']'), model).sectorFrom).toBe(0);
  });

  test('z fits them to the window, and back', () => {
    const near = press(first, context, '+', '+', 'z');
    const { sectorFrom, sectorTo } = sectorsShown(near, model);
    expect(sectorTo - sectorFrom).toBeLessThan((199 * 40) / 3);
    expect(press(near, context, 'z').sectors).toBeNull();
  });
});

describe('requests', () => {
  test('> and < go from one to the next', () => {
    const one = press(first, context, '>');
    expect(one.row).toBe(0);
    expect(press(one, context, '>', '>', '<').row).toBe(1);
    expect(press(one, context, '<').row).toBe(0);
  });

  test('one that is not seen is brought into the window', () => {
    const deep = press(first, context, '>', ...Array.from({ length: 14 }, () => '+'));
    const next = press(deep, context, '>');
    expect(next.row).toBe(1);
    expect(next.span.from).toBeGreaterThan(deep.span.from);
    expect(width(next)).toBeCloseTo(width(deep));
    expect(model.index.at[1]).toBeGreaterThanOrEqual(next.span.from);
    expect(model.index.at[1]).toBeLessThan(next.span.to);
  });

  test('the cross stays in the window, Enter takes what is nearest', () => {
    const moved = press(first, context, 'h', 'j', ...Array.from({ length: 200 }, () => 'l'));
    expect(moved.cross!.time).toBeLessThan(moved.span.to);
    const at = { ...first, cross: { time: 100_200_000, sector: 2048 + 100 * 40 + 20 } };
    const taken = press(at, context, 'enter');
    expect(model.table.queued[taken.row]! / 1e6).toBeCloseTo(100.2, 0);
    expect(press({ ...at, cross: { time: 5e6, sector: 9000 } }, context, 'enter').row).toBeGreaterThanOrEqual(-1);
  });

  test('Escape forgets it', () => {
    expect(press(first, context, '>', 'escape')).toMatchObject({ row: -1, cross: null });
  });
});

describe('findings', () => {
  test('n jumps to the chosen one, its region and its first request', () => {
    const at = press(first, context, 'n');
    expect(at).toMatchObject({ focus: 'findings', finding: 0, row: 32 });
    expect(at.span.from).toBeLessThanOrEqual(10e6);
    expect(at.span.to).toBeGreaterThanOrEqual(20e6);
    expect(width(at)).toBeCloseTo(11e6);
    const next = press(at, context, 'n');
    expect(next.finding).toBe(1);
    expect(next.span.from).toBeLessThanOrEqual(90e6);
    expect(press(next, context, 'n').finding).toBe(0);
    expect(press(at, context, 'N').finding).toBe(1);
  });

  test('up, down and Enter in the list', () => {
    const list = press(first, context, 'shift-tab');
    expect(list.focus).toBe('findings');
    const second = press(list, context, 'down', 'down', 'down');
    expect(second.finding).toBe(1);
    expect(second.span).toEqual(first.span);
    expect(width(press(second, context, 'enter'))).toBeLessThan(2e6);
  });

  test('without any nothing happens', () => {
    expect(press(first, { ...context, findings: [] }, 'n')).toBe(first);
  });
});

describe('what is shown', () => {
  const layers = new TraceModel(layered(20));
  const start = firstView(layers, false, false);

  test('filters go through all that there is, and back to all', () => {
    const guest = press(start, contextOf(layers), 'd');
    expect(guest.filter.devices).toEqual([layers.devices[0]!.device]);
    expect(press(guest, contextOf(layers), 'd').filter.devices).toEqual([layers.devices[1]!.device]);
    expect(press(guest, contextOf(layers), 'd', 'd').filter.devices).toBeUndefined();
    expect(press(start, contextOf(layers), 'o').filter.ops).toEqual(['write']);
    expect(press(start, contextOf(layers), 'p').filter.pids).toEqual([7]);
    expect(press(guest, contextOf(layers), 'o', 'p', 'x').filter).toEqual({});
  });

  test('> keeps to what the filter lets through', () => {
    const host = press(start, contextOf(layers), 'd', 'd', '>', '>', '>');
    expect(layers.table.device[host.row]).toBe(layers.devices[1]!.device);
  });

  test('colours go round, help comes and goes', () => {
    expect(['c', 'c', 'c'].map((_, index) => press(start, contextOf(layers), ...Array.from({ length: index + 1 }, () => 'c')).colour)).toEqual(['process', 'layer', 'op']);
    const help = press(start, contextOf(layers), '?');
    expect(help.help).toBe(true);
    expect(press(help, contextOf(layers), '+')).toEqual(start);
  });

  test('keys that mean nothing change nothing', () => {
    for (const key of ['Q', 'é', 'constructor', 'toString', '\u0001']) expect(press(start, contextOf(layers), key)).toBe(start);
  });
});

test('f follows a live trace only, and a pan ends it', () => {
  expect(press(first, context, 'f').following).toBe(false);
  const live = contextOf(model, true);
  const near = press(first, live, '+', '+', 'f');
  expect(near.following).toBe(true);
  expect(near.span.to).toBeCloseTo(first.span.to);
  expect(press(near, live, 'left').following).toBe(false);
});

test('a trace without requests can be looked at with any key', () => {
  const empty = new TraceModel(ioTable([]));
  let view = firstView(empty, false, false);
  const keys = ['+', '-', 'left', 'right', 'up', 'down', '[', ']', 'z', 'h', 'j', 'k', 'l', '>', '<', 'n', 'enter', 'space', 'o', 'p', 'd', 'x', 'c', '0', 'home', 'end', 'f', 'tab', 'page-down'];
  for (const key of keys) view = act(key, view, { ...contextOf(empty), findings: [] });
  expect(Object.values(view.span).every(Number.isFinite)).toBe(true);
});
