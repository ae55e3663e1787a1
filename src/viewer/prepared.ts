/** What a page carries of a trace that is too large to be carried whole: views made ahead, and a part of the requests. */
import { deflateSync } from 'node:zlib';
import type { IoTable } from '../trace/traced-io.js';
import { aroundRegion, viewOf, type OverviewFacts, type PreparedView, type ShownFinding } from './answers.js';
import type { TraceModel } from './model.js';
import { OPS } from './operations.js';
import type { TimeSpan } from './window.js';
import { encode } from './wire.js';

const COLUMNS = 480;
const HEAT_COLUMNS = 120;
const ROWS = 120;
/** Halvings of the trace at most. */
const MAX_LEVELS = 9;
function prepare(model: TraceModel, span: TimeSpan, devices: readonly number[]): PreparedView {
  const view = viewOf(model, {
    ...span, columns: COLUMNS, heatColumns: HEAT_COLUMNS, rows: ROWS, sectors: null, latency: 'q2c', colour: model.devices.length > 1 ? 'layer' : 'op', filter: { ops: OPS, devices },
  });
  return { devices, view };
}

const packedBytes = (view: PreparedView): number => deflateSync(encode(view), { level: 1 }).length;

/**
 * All of the trace, the regions of the findings, then halves, quarters and so on: windows of each level overlap by half, so that any window of half their
 * length lies within one. As many whole levels as fit into `budget` bytes, compressed.
 */
export function prepareViews(model: TraceModel, findings: readonly ShownFinding[], budget: number): PreparedView[] {
  const { span, bottomDevices } = model;
  const views = [prepare(model, span, bottomDevices), ...findings.filter(({ region: { from, to } }) => to > from)
    .map((finding) => prepare(model, aroundRegion(finding.region), finding.devices.length > 0 ? finding.devices : bottomDevices))];
  let used = views.reduce((sum, view) => sum + packedBytes(view), 0);
  for (let level = 1; level <= MAX_LEVELS; level++) {
    const length = (span.to - span.from) / 2 ** level;
    const fresh: PreparedView[] = [];
    for (let place = 0; place < 2 ** (level + 1) - 1 && used < budget; place++) {
      const from = span.from + (place * length) / 2;
      const view = prepare(model, { from, to: from + length }, bottomDevices);
      used += packedBytes(view);
      fresh.push(view);
    }
    if (used >= budget) break;
    views.push(...fresh);
  }
  return views;
}

/** Some requests of a table: the evidence with all that belongs to it, and of the others one in so many. */
export function reduce(model: TraceModel, facts: OverviewFacts, rows: number): { table: IoTable; facts: OverviewFacts } {
  const { table } = model;
  const kept = new Set(facts.findings.flatMap(({ evidence }) => evidence).flatMap((row) => model.family(row).members.map((member) => member.row)));
  const step = Math.max(1, Math.ceil(table.count / rows));
  for (let row = 0; row < table.count; row += step) kept.add(row);
  const order = Uint32Array.from(kept).sort();
  const places = new Map([...order].map((row, place) => [row, place]));
  const pick = <T extends Float64Array | Uint32Array | Uint16Array | Int32Array>(column: T, to: T): T => {
    order.forEach((row, place) => { to[place] = column[row]!; });
    return to;
  };
  const count = order.length;
  const times = (column: Float64Array): Float64Array => pick(column, new Float64Array(count));
  const words = (column: Uint32Array): Uint32Array => pick(column, new Uint32Array(count));
  const links = (column: Int32Array): Int32Array => pick(column, new Int32Array(count)).map((row) => (row < 0 ? -1 : places.get(row) ?? -1));
  return {
    table: {
      ...table, count, device: words(table.device), sector: times(table.sector), bytes: words(table.bytes), category: words(table.category), pid: words(table.pid),
      queued: times(table.queued), gotRequest: times(table.gotRequest), inserted: times(table.inserted), issued: times(table.issued), completed: times(table.completed),
      error: pick(table.error, new Uint16Array(count)), cause: pick(table.cause, new Uint16Array(count)), parent: links(table.parent), mergedInto: links(table.mergedInto),
    },
    facts: { ...facts, findings: facts.findings.map((finding) => ({ ...finding, evidence: finding.evidence.flatMap((row) => places.get(row) ?? []) })) },
  };
}
