/** What the web page asks of a trace and what it is told, whether a server answers or the page itself, from what it carries. */
import type { Depth } from './depth.js';
import type { Filter } from './filter.js';
import type { TracedDevice, TracedProcess } from './io-index.js';
import type { TraceModel } from './model.js';
import { letters } from './operations.js';
import type { Related } from './relations.js';
import type { ColourBy, ScatterBins, ScatterPoints } from './scatter.js';
import type { Shapes } from './shapes.js';
import type { LatencyKind, Traffic } from './traffic.js';
import type { TimeSpan } from './window.js';

/** How far a trace has been read; `total` null where nobody knows. `ready` and `failed` are the ends. */
export interface LoadingState {
  readonly phase: 'reading' | 'ready' | 'failed';
  readonly done: number;
  readonly total: number | null;
  readonly unit: 'records' | 'bytes';
  /** Why it failed, in a sentence. */
  readonly problem?: string;
  /** Counts what came after the trace was first ready; not there where nothing comes any more. */
  readonly version?: number;
}

/** What a diagnosis found, ready to be shown. */
export interface ShownFinding {
  readonly severity: 'critical' | 'warning' | 'note';
  readonly title: string;
  /** What was seen, in sentences. */
  readonly text: string;
  readonly cure: string;
  /** Where to look. */
  readonly region: TimeSpan;
  readonly devices: readonly number[];
  /** Rows of the table that prove it. */
  readonly evidence: readonly number[];
}

/** What is shown of a finding: its region, and a little to either side. */
export function aroundRegion({ from, to }: TimeSpan): TimeSpan {
  const around = Math.max((to - from) * 0.08, 200);
  return { from: from - around, to: to + around };
}

/** The first that a page asks for. */
export interface Overview {
  readonly name: string;
  readonly span: TimeSpan;
  readonly requests: number;
  /** Records read; null where nobody counted. */
  readonly records: number | null;
  /** Sentences on what could not be read or paired. */
  readonly remarks: readonly string[];
  readonly devices: readonly TracedDevice[];
  readonly processes: readonly TracedProcess[];
  readonly bottomDevices: readonly number[];
  readonly findings: readonly ShownFinding[];
}

export interface ViewQuery extends TimeSpan {
  readonly columns: number;
  readonly heatColumns: number;
  readonly rows: number;
  /** null: all that the chosen devices have. */
  readonly sectors: { readonly from: number; readonly to: number } | null;
  readonly colour: ColourBy;
  readonly latency: LatencyKind;
  readonly filter: Filter;
}

/** All panels of one window. */
export interface View extends TimeSpan {
  readonly sectorFrom: number;
  readonly sectorTo: number;
  /** Few requests come as they are, and then there are no bins. */
  readonly points: ScatterPoints | null;
  readonly scatter: ScatterBins | null;
  readonly traffic: Traffic;
  readonly depth: Depth;
  readonly shapes: Shapes;
}

/** A view made ahead, and the layers it is of. */
export interface PreparedView {
  readonly devices: readonly number[];
  readonly view: View;
}

const MAX_POINTS = 3000;

export function viewOf(model: TraceModel, query: ViewQuery): View {
  const { sectorFrom, sectorTo } = query.sectors === null ? model.sectorRange(query.filter.devices) : { sectorFrom: query.sectors.from, sectorTo: query.sectors.to };
  const scatterQuery = { ...query, sectorFrom, sectorTo };
  const points = model.points(scatterQuery, MAX_POINTS);
  return {
    from: query.from, to: query.to, sectorFrom, sectorTo, points, scatter: points === null ? model.scatter(scatterQuery) : null,
    traffic: model.traffic(query), depth: model.depth(query), shapes: model.shapes(query),
  };
}

/** One request with all that is known of it. */
export interface RequestFacts {
  readonly row: number;
  readonly device: string;
  readonly sector: number;
  readonly bytes: number;
  readonly letters: string;
  readonly pid: number;
  readonly process: string;
  readonly error: number;
  readonly cause: string;
  /** By blkparse's letters, in order, those that are known; ns. */
  readonly times: readonly (readonly [letter: string, time: number])[];
}

export interface RequestDetail {
  readonly row: number;
  readonly family: readonly (RequestFacts & Pick<Related, 'level' | 'how'>)[];
  /** There are more relatives than are told. */
  readonly cut: boolean;
}

const STEPS = [['Q', 'queued'], ['G', 'gotRequest'], ['I', 'inserted'], ['D', 'issued'], ['C', 'completed']] as const;

export function factsOf({ table, index }: TraceModel, row: number): RequestFacts {
  const bytes = table.bytes[row]!;
  return {
    row, bytes, device: index.devices[index.device[row]!]!.name, sector: table.sector[row]!, letters: letters(table.category[row]!, bytes), pid: table.pid[row]!,
    process: table.processes.get(table.pid[row]!) ?? '', error: table.error[row]!, cause: table.causes[table.cause[row]!] ?? '',
    times: STEPS.map(([letter, name]) => [letter, table[name][row]!] as const).filter(([, time]) => time >= 0),
  };
}

/** Null for a row that the table has not. */
export function detailOf(model: TraceModel, row: number): RequestDetail | null {
  if (!Number.isInteger(row) || row < 0 || row >= model.table.count) return null;
  const { members, cut } = model.family(row);
  return { row, cut, family: members.map(({ row: member, level, how }) => Object.assign(factsOf(model, member), { level, how })) };
}

/** One line as blkparse has it. */
export interface EventLine {
  readonly row: number;
  readonly time: number;
  readonly action: string;
  readonly device: string;
  readonly pid: number;
  readonly process: string;
  readonly letters: string;
  readonly sector: number;
  readonly sectors: number;
  readonly error: number;
}

/** What happened to the first `limit` requests of the window, in order of time, and where to go on. */
export function eventLines(model: TraceModel, span: TimeSpan, filter: Filter, limit: number): { lines: EventLine[]; next: number | null } {
  const rows = model.rows(span, filter, limit + 1);
  const next = rows.length > limit ? model.index.at[rows[limit]!]! : null;
  const lines = rows.slice(0, limit).flatMap((row) => {
    const facts = factsOf(model, row);
    const merged = model.table.mergedInto[row]! >= 0;
    // what was merged never went on by itself
    return (merged ? facts.times.slice(0, 1) : facts.times).map(([action, time]): EventLine => ({
      row, time, action: merged ? 'Q M' : action, device: facts.device.split(' ', 1)[0]!, pid: facts.pid, process: facts.process, letters: facts.letters,
      sector: facts.sector, sectors: Math.floor(facts.bytes / 512), error: action === 'C' ? facts.error : 0,
    }));
  });
  return { lines: lines.sort((a, b) => a.time - b.time || a.row - b.row), next };
}

export interface OverviewFacts {
  readonly name: string;
  readonly records: number | null;
  readonly remarks: readonly string[];
  readonly findings: readonly ShownFinding[];
}

export function overviewOf(model: TraceModel, { name, records, remarks, findings }: OverviewFacts): Overview {
  return {
    name, records, remarks, findings, span: model.span, requests: model.table.count, devices: model.devices, processes: model.processes.slice(0, MAX_NAMED),
    bottomDevices: model.bottomDevices,
  };
}

/** Processes that a page lists. */
const MAX_NAMED = 500;
