import { BlockError } from '../base/errors.js';
import { detailOf, eventLines, overviewOf, viewOf, type OverviewFacts, type ViewQuery } from './answers.js';
import type { Filter } from './filter.js';
import type { Place, TraceModel } from './model.js';
import { OPS, type Op } from './operations.js';
import type { TimeSpan } from './window.js';

/** What a page may ask, each with its name. */
export type Question =
  | { readonly ask: 'overview' }
  | ({ readonly ask: 'view' } & ViewQuery)
  | ({ readonly ask: 'events'; readonly filter: Filter; readonly limit: number } & TimeSpan)
  | ({ readonly ask: 'nearest' } & Place)
  | { readonly ask: 'request'; readonly row: number };

/** Bounds of what one answer may cost. */
const MAX_COLUMNS = 4096;
const MAX_ROWS = 2048;
const MAX_EVENTS = 1000;
const MAX_LISTED = 10_000;

export function answer(model: TraceModel, facts: OverviewFacts, question: Question): unknown {
  switch (question.ask) {
    case 'overview': return overviewOf(model, facts);
    case 'view': return viewOf(model, question);
    case 'events': return eventLines(model, question, question.filter, question.limit);
    case 'nearest': return detailOf(model, model.nearest(question));
    case 'request': return detailOf(model, question.row);
  }
}

type Fields = Readonly<Record<string, unknown>>;

/** Of JSON that came over a socket. BlockError INVALID_ARGUMENT: it is no question, or costs too much. */
export function parseQuestion(value: unknown): Question {
  const fields = object(value, 'a question');
  switch (fields['ask']) {
    case 'overview': return { ask: 'overview' };
    case 'view': return { ask: 'view', ...viewQuery(fields) };
    case 'events': return { ask: 'events', ...span(fields), filter: filterOf(fields['filter']), limit: integer(fields, 'limit', MAX_EVENTS) };
    case 'nearest': return {
      ask: 'nearest', time: finite(fields, 'time'), sector: finite(fields, 'sector'), timeUnit: positive(fields, 'timeUnit'),
      sectorUnit: positive(fields, 'sectorUnit'), filter: filterOf(fields['filter']),
    };
    case 'request': return { ask: 'request', row: finite(fields, 'row') };
    default: throw refusal('nothing of that name can be asked');
  }
}

function viewQuery(fields: Fields): ViewQuery {
  const { sectors } = fields;
  return {
    ...span(fields), columns: integer(fields, 'columns', MAX_COLUMNS), heatColumns: integer(fields, 'heatColumns', MAX_COLUMNS / 4),
    rows: integer(fields, 'rows', MAX_ROWS), sectors: sectors === null ? null : span(object(sectors, "'sectors'")),
    colour: oneOf(fields, 'colour', ['op', 'process', 'layer']), latency: oneOf(fields, 'latency', ['q2c', 'd2c']), filter: filterOf(fields['filter']),
  };
}

const refusal = (what: string): BlockError => new BlockError('INVALID_ARGUMENT', what);

function object(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refusal(`${what} is an object`);
  return value as Fields;
}

function finite(fields: Fields, name: string): number {
  const value = fields[name];
  if (typeof value !== 'number' || !Number.isFinite(value)) throw refusal(`'${name}' is a number`);
  return value;
}

function positive(fields: Fields, name: string): number {
  const value = finite(fields, name);
  if (value <= 0) throw refusal(`'${name}' is above 0`);
  return value;
}

function integer(fields: Fields, name: string, most: number): number {
  const value = positive(fields, name);
  if (!Number.isInteger(value) || value > most) throw refusal(`'${name}' is an integer up to ${most}`);
  return value;
}

function span(fields: Fields): TimeSpan {
  const from = finite(fields, 'from');
  const to = finite(fields, 'to');
  if (to <= from) throw refusal("'to' is above 'from'");
  return { from, to };
}

function oneOf<const T extends string>(fields: Fields, name: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === fields[name]);
  if (found === undefined) throw refusal(`'${name}' is one of ${choices.join(', ')}`);
  return found;
}

function filterOf(value: unknown): Filter {
  const fields = object(value, "'filter'");
  const numbers = (name: string): readonly number[] | undefined => list(fields, name, (item): item is number => typeof item === 'number');
  return { pids: numbers('pids'), devices: numbers('devices'), ops: list(fields, 'ops', (item): item is Op => (OPS as readonly unknown[]).includes(item)) };
}

function list<T>(fields: Fields, name: string, is: (item: unknown) => item is T): readonly T[] | undefined {
  const value = fields[name];
  if (value === undefined) return undefined;
  if (!Array.isArray(value) || value.length > MAX_LISTED || !value.every(is)) throw refusal(`'${name}' is a list of what is to be shown`);
  return value;
}
