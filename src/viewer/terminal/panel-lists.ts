/** Lists: findings first of all, and requests around the chosen one. */
import { SECTOR_BYTES } from '../../trace/record.js';
import type { ShownFinding } from '../answers.js';
import { letters } from '../operations.js';
import type { Grid, Rect } from './grid.js';
import { bytes, moment, plural, span } from './numbers.js';
import type { Scene } from './scene.js';
import { Attribute, Colour } from './style.js';
import { clip, fit, widthOf } from './text.js';

const SEVERITY = { critical: { style: Colour.ERROR, mark: '!!' }, warning: { style: Colour.WARN, mark: '! ' }, note: { style: Colour.DIM, mark: '- ' } } as const;

/** The chosen finding is told in full in the last line, where there is one to spare. */
export function drawFindings(grid: Grid, rect: Rect, { findings, view, source, model }: Scene): void {
  if (rect.height <= 0) return;
  const end = rect.left + rect.width;
  if (findings.length === 0) {
    const text = model.table.count === 0 ? source.live ? 'Waiting for requests…' : 'There are no requests in this trace.' : 'No findings: nothing here looks like a known trouble.';
    grid.write(rect.left, rect.top, clip(` ${text}`, rect.width), Colour.DIM, end);
    return;
  }
  const told = view.focus === 'findings' && rect.height > 1 ? 1 : 0;
  const lines = Math.min(findings.length, rect.height - told);
  const first = Math.max(0, Math.min(view.finding - Math.floor(lines / 2), findings.length - lines));
  for (let line = 0; line < lines; line++) {
    const { severity, title, text } = findings[first + line]!;
    const isChosen = first + line === view.finding && view.focus === 'findings';
    const { style, mark } = SEVERITY[severity];
    const more = line === lines - 1 && first + lines < findings.length ? `  (${plural(findings.length - first - lines, 'more', 'more')})` : '';
    const at = grid.write(rect.left, rect.top + line, `${isChosen ? '▸' : ' '}${mark} `, style + Attribute.BOLD, end);
    const colon = title.length < end - at - 4 && text !== '' ? `: ${text}` : '';
    grid.write(at, rect.top + line, `${fit(`${title}${colon}`, end - at - widthOf(more))}${more}`, isChosen ? Attribute.REVERSE : 0, end);
  }
  if (told === 1) grid.write(rect.left, rect.top + lines, clip(`    ${findings[view.finding]!.cure} ${findings[view.finding]!.text}`, rect.width), Colour.DIM, end);
}

export function findingText({ severity, title, text, cure }: ShownFinding): readonly string[] {
  return [`${SEVERITY[severity].mark} ${title}`, text, cure].filter((part) => part !== '');
}

interface Column {
  readonly name: string;
  readonly width: number;
  readonly side: 'left' | 'right';
}

const COLUMNS: readonly Column[] = [
  { name: 'time s', width: 13, side: 'right' }, { name: 'op', width: 4, side: 'left' }, { name: 'offset', width: 8, side: 'right' }, { name: 'size', width: 6, side: 'right' },
  { name: 'took', width: 9, side: 'right' }, { name: 'process', width: 16, side: 'left' }, { name: 'layer', width: 20, side: 'left' }, { name: 'why', width: 20, side: 'left' },
];

/** As many columns as fit, rows around the chosen one (or from the beginning of the window). */
export function drawRequests(grid: Grid, rect: Rect, scene: Scene): void {
  const { model, view } = scene;
  const columns = COLUMNS.filter((_, index) => COLUMNS.slice(0, index + 1).reduce((sum, { width }) => sum + width + 1, 0) <= rect.width);
  const line = (row: number, cells: readonly string[], style: number): void => {
    let left = rect.left;
    for (const [index, { width, side }] of columns.entries()) {
      grid.write(left, row, fit(cells[index]!, width, side), style, rect.left + rect.width);
      left += width + 1;
    }
  };
  line(rect.top, columns.map(({ name }) => name), Colour.DIM);
  const rows = rowsAround(scene, rect.height - 1);
  for (const [index, row] of rows.entries()) line(rect.top + 1 + index, cellsOf(scene, row), row === view.row ? Attribute.REVERSE : 0);
  if (rows.length === 0) grid.write(rect.left, rect.top + 1, model.table.count === 0 ? '' : ' none in this window', Colour.DIM, rect.left + rect.width);
}

function rowsAround({ model, view }: Scene, wanted: number): readonly number[] {
  if (view.row < 0) return model.rows(view.span, view.filter, wanted);
  const from = model.index.at[view.row]!;
  const after = model.rows({ from, to: Infinity }, view.filter, wanted);
  const before: number[] = [];
  const half = Math.floor(wanted / 2);
  // requests of one moment are few, so this finds the row itself soon
  const itself = Math.max(0, after.indexOf(view.row));
  const missing = Math.max(half - itself, wanted - after.length);
  for (let width = 1e5; before.length < missing && from > 0; width *= 8) {
    before.splice(0, before.length, ...model.rows({ from: Math.max(0, from - width), to: from }, view.filter, 4096).slice(-missing));
    if (width > from) break;
  }
  const all = [...before, ...after];
  const at = all.indexOf(view.row);
  const first = Math.max(0, Math.min(at - half, all.length - wanted));
  return all.slice(first, first + wanted);
}

function cellsOf({ model }: Scene, row: number): readonly string[] {
  const { table, index } = model;
  const pid = table.pid[row]!;
  const failed = table.error[row]! > 0 ? `error ${table.error[row]}` : '';
  return [
    moment(index.at[row]!, 1000), letters(table.category[row]!, table.bytes[row]!), bytes(table.sector[row]! * SECTOR_BYTES), bytes(table.bytes[row]!),
    table.mergedInto[row]! >= 0 ? 'merged' : span(table.completed[row]! - index.at[row]!), `${table.processes.get(pid) ?? 'pid'} ${pid}`,
    model.devices[index.device[row]!]?.name ?? '', failed || (table.causes[table.cause[row]!] ?? ''),
  ];
}
