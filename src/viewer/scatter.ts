import { SECTOR_BYTES } from '../trace/record.js';
import { compileFilter } from './filter.js';
import type { IoIndex } from './io-index.js';
import { DISCARD, FLUSH, OPS } from './operations.js';
import { firstAtOrAfter } from './order.js';
import type { BinQuery } from './window.js';

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

/** One pass: each request adds 1 where its range begins and takes it away where it ends, and the columns are summed up once. */
export function binScatter(index: IoIndex, query: ScatterQuery): ScatterBins {
  const { columns, rows } = query;
  const { names, column } = colouring(index, query.colour);
  const pass = compileFilter(index, query.filter);
  const planes: Int32Array[] = [];
  for (let plane = 0; plane <= names.length; plane++) planes.push(new Int32Array(columns * (rows + 1)));
  const flushes = new Uint32Array(columns);
  const last = firstAtOrAfter(index.at, index.table.count, query.to);
  const perSector = rows / Math.max(1, query.sectorTo - query.sectorFrom);
  const { at, group, op: ops, table: { sector, bytes } } = index;
  const { from, sectorFrom } = query;
  const perNs = columns / (query.to - from);
  let matched = 0;
  for (let row = firstAtOrAfter(at, index.table.count, from); row < last; row++) {
    if (pass[group[row]!] === 0) continue;
    matched++;
    // rounding may reach the column after the last
    const x = Math.min(columns - 1, Math.floor((at[row]! - from) * perNs));
    const op = ops[row]!;
    if (op === FLUSH) {
      flushes[x]!++;
      continue;
    }
    const begins = sector[row]! - sectorFrom;
    const low = Math.floor(begins * perSector);
    const high = Math.ceil((begins + bytes[row]! / SECTOR_BYTES) * perSector);
    if (high <= 0 || low >= rows) continue;
    const plane = planes[op === DISCARD ? names.length : Math.min(column[row]!, names.length - 1)]!;
    const top = Math.max(0, low);
    const begin = x * (rows + 1) + top;
    plane[begin]!++;
    plane[x * (rows + 1) + Math.min(rows, Math.max(top + 1, high))]!--;
  }
  return { classes: names, rows, ...occupied(planes, columns, rows), flushes, matched };
}

function occupied(planes: readonly Int32Array[], columns: number, rows: number): Pick<ScatterBins, 'x' | 'y' | 'kind' | 'hits'> {
  let count = 0;
  for (const plane of planes) count += sumUp(plane, columns, rows);
  const x = new Uint16Array(count);
  const y = new Uint16Array(count);
  const kind = new Uint8Array(count);
  const hits = new Uint16Array(count);
  let next = 0;
  planes.forEach((plane, of) => {
    for (let column = 0, place = 0; column < columns; column++, place++) {
      for (let row = 0; row < rows; row++, place++) {
        const found = plane[place]!;
        if (found === 0) continue;
        x[next] = column;
        y[next] = row;
        kind[next] = of;
        hits[next++] = Math.min(found, 0xffff);
      }
    }
  });
  return { x, y, kind, hits };
}

function sumUp(plane: Int32Array, columns: number, rows: number): number {
  let count = 0;
  for (let column = 0, place = 0; column < columns; column++, place++) {
    let sum = 0;
    for (let row = 0; row < rows; row++, place++) {
      sum += plane[place]!;
      plane[place] = sum;
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
