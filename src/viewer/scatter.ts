import { SECTOR_BYTES } from '../trace/record.js';
import { compileFilter } from './filter.js';
import type { IoIndex } from './io-index.js';
import { DISCARD, FLUSH, OPS } from './operations.js';
import { firstAtOrAfter } from './order.js';
import { edgesOf, type BinQuery } from './window.js';

/** Colours are told apart by `colour`; discards and flushes are always marks of their own. */
export type ColourBy = 'op' | 'process' | 'layer';
/** Classes of colour at most; what comes after shares the last. */
export const COLOUR_CLASSES = 8;

export interface ScatterQuery extends BinQuery {
  readonly rows: number;
  readonly sectorFrom: number;
  readonly sectorTo: number;
  readonly colour: ColourBy;
}

/** Offset over time in cells: only those that a request touched, in order of class. Row 0 is `sectorFrom`. */
export interface ScatterBins {
  readonly classes: readonly string[];
  readonly rows: number;
  readonly x: Uint16Array;
  readonly y: Uint16Array;
  /** Index into `classes`; `classes.length` for discards. */
  readonly kind: Uint8Array;
  /** Requests that touched the cell, up to 65535. */
  readonly hits: Uint16Array;
  /** Flushes by column. */
  readonly flushes: Uint32Array;
  readonly matched: number;
}

/** Which colour each request has: a column of the index, and names for its first values. */
export interface Colouring {
  readonly names: readonly string[];
  readonly column: Uint8Array | Uint16Array;
}

export function colouring(index: IoIndex, colour: ColourBy): Colouring {
  if (colour === 'op') return { names: OPS, column: index.op };
  const all = colour === 'layer' ? index.devices.map(({ name }) => name) : index.processes.map(({ pid, name }) => `${name || '?'} (${pid})`);
  const names = all.length <= COLOUR_CLASSES ? all : [...all.slice(0, COLOUR_CLASSES - 1), 'others'];
  return { names, column: colour === 'layer' ? index.device : index.process };
}

/** Beside the classes of colour: what is no mark in the map. */
const FLUSHED = 254;
const PASSED_OVER = 255;

/** One pass: each request adds 1 where its range begins and takes it away where it ends, and the columns are summed up once. */
export function binScatter(index: IoIndex, query: ScatterQuery): ScatterBins {
  const { columns, rows } = query;
  const { names } = colouring(index, query.colour);
  const planeOf = planes(index, query, names.length);
  const cells = new Int32Array((names.length + 1) * columns * (rows + 1));
  const flushes = new Uint32Array(columns);
  const edges = edgesOf(index.at, index.table.count, query, columns);
  let matched = 0;
  for (let column = 0; column < columns; column++) matched += markColumn(index, query, planeOf, edges, column, cells, flushes);
  return { classes: names, rows, ...occupied(cells, names.length + 1, columns, rows), flushes, matched };
}

/** Returns how many requests count. */
function markColumn(
  { group, table: { sector, bytes } }: IoIndex, { columns, rows, sectorFrom, sectorTo }: ScatterQuery, planeOf: Uint8Array,
  edges: Uint32Array, column: number, cells: Int32Array, flushes: Uint32Array,
): number {
  const perSector = rows / Math.max(1, sectorTo - sectorFrom);
  const planeCells = columns * (rows + 1);
  const last = edges[column + 1]!;
  let [matched, flushed] = [0, 0];
  for (let row = edges[column]!; row < last; row++) {
    const plane = planeOf[group[row]!]!;
    if (plane === PASSED_OVER) continue;
    matched++;
    if (plane === FLUSHED) {
      flushed++;
      continue;
    }
    const begin = sector[row]! - sectorFrom;
    const begins = begin * perSector;
    const ends = (begin + bytes[row]! / SECTOR_BYTES) * perSector;
    if (ends <= 0 || begins >= rows) continue;
    // both are small by now: `| 0` is the quickest way to a whole number
    const top = begins > 0 ? begins | 0 : 0;
    const below = ends < rows ? rows - ((rows - ends) | 0) : rows;
    const base = plane * planeCells + column * (rows + 1);
    cells[base + top]!++;
    cells[base + (below > top ? below : top + 1)]!--;
  }
  flushes[column] = flushed;
  return matched;
}

/** By group: the class that its requests are drawn as, or FLUSHED, or PASSED_OVER. */
function planes(index: IoIndex, { colour, filter }: ScatterQuery, classes: number): Uint8Array {
  const pass = compileFilter(index, filter);
  return Uint8Array.from(index.groups, ({ op, device, process }, group) => {
    if (pass[group] === 0) return PASSED_OVER;
    if (op === FLUSH) return FLUSHED;
    return op === DISCARD ? classes : Math.min(classes - 1, { op, layer: device, process }[colour]);
  });
}

function occupied(cells: Int32Array, planeCount: number, columns: number, rows: number): Pick<ScatterBins, 'x' | 'y' | 'kind' | 'hits'> {
  const count = sumUp(cells, rows);
  const x = new Uint16Array(count);
  const y = new Uint16Array(count);
  const kind = new Uint8Array(count);
  const hits = new Uint16Array(count);
  let [next, place] = [0, 0];
  for (let plane = 0; plane < planeCount; plane++) {
    for (let column = 0; column < columns; column++, place++) {
      for (let row = 0; row < rows; row++, place++) {
        const found = cells[place]!;
        if (found === 0) continue;
        x[next] = column;
        y[next] = row;
        kind[next] = plane;
        hits[next++] = Math.min(found, 0xffff);
      }
    }
  }
  return { x, y, kind, hits };
}

/** Of each column; returns how many cells are not empty. */
function sumUp(cells: Int32Array, rows: number): number {
  let count = 0;
  for (let place = 0; place < cells.length; place++) {
    let sum = 0;
    for (const end = place + rows; place < end; place++) {
      sum += cells[place]!;
      cells[place] = sum;
      if (sum > 0) count++;
    }
  }
  return count;
}

/** Requests as they are, for windows with few of them. */
export interface ScatterPoints {
  readonly classes: readonly string[];
  /** Rows of the table. */
  readonly row: Uint32Array;
  readonly from: Float64Array;
  /** Completed; the end of the trace for what never was. */
  readonly to: Float64Array;
  readonly sector: Float64Array;
  readonly sectors: Float64Array;
  readonly op: Uint8Array;
  readonly kind: Uint8Array;
}

/** Requests before the window that are looked at, since they may reach into it. */
const LOOK_BACK = 4096;

/** Null where more than `limit` requests are in the window. */
export function scatterPoints(index: IoIndex, query: ScatterQuery, limit: number): ScatterPoints | null {
  const rows = rowsAcross(index, query, compileFilter(index, query.filter), limit);
  if (rows === null) return null;
  const { table } = index;
  const { names, column } = colouring(index, query.colour);
  return {
    classes: names,
    row: Uint32Array.from(rows),
    from: Float64Array.from(rows, (row) => index.at[row]!),
    to: Float64Array.from(rows, (row) => (table.completed[row]! >= 0 ? table.completed[row]! : table.endNs)),
    sector: Float64Array.from(rows, (row) => table.sector[row]!),
    sectors: Float64Array.from(rows, (row) => table.bytes[row]! / SECTOR_BYTES),
    op: Uint8Array.from(rows, (row) => index.op[row]!),
    kind: Uint8Array.from(rows, (row) => Math.min(column[row]!, names.length - 1)),
  };
}

function rowsAcross(index: IoIndex, { from, to }: ScatterQuery, pass: Uint8Array, limit: number): number[] | null {
  const { table, at } = index;
  const first = firstAtOrAfter(at, table.count, from);
  const last = firstAtOrAfter(at, table.count, to);
  const found: number[] = [];
  for (let row = Math.max(0, first - LOOK_BACK); row < last; row++) {
    if (row < first && !(table.completed[row]! > from)) continue;
    if (pass[index.group[row]!] === 0) continue;
    if (found.length >= limit) return null;
    found.push(row);
  }
  return found;
}
