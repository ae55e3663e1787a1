/** All that a screen is drawn from. */
import type { ShownFinding } from '../answers.js';
import type { Depth } from '../depth.js';
import type { Filter } from '../filter.js';
import type { TraceModel } from '../model.js';
import { OPS } from '../operations.js';
import { COLOUR_CLASSES, type ColourBy } from '../scatter.js';
import type { Traffic } from '../traffic.js';
import { Attribute, Colour, SERIES_COLOURS, type ColourDepth } from './style.js';
import type { View } from './view.js';

export interface SourceState {
  /** A file, a pipe, a daemon. */
  readonly name: string;
  /** More may come. */
  readonly live: boolean;
  /** What went wrong or was left out, '' for nothing. */
  readonly notice: string;
}

/** What the terminal can show. */
export interface Look {
  readonly ascii: boolean;
  readonly colours: ColourDepth;
}

export interface Scene {
  readonly model: TraceModel;
  readonly view: View;
  readonly findings: readonly ShownFinding[];
  readonly source: SourceState;
  readonly look: Look;
}

/** What the charts show of a scene, in as many columns as they have. */
export interface Charts {
  readonly traffic: Traffic;
  readonly depth: Depth;
  readonly columns: number;
}

export function chartsOf({ model, view }: Scene, columns: number): Charts {
  // of layers above each other, sums count the same data once only
  const filter: Filter = { ...view.filter, devices: view.filter.devices ?? factsOf(model).bottomDevices };
  const query = { ...view.span, columns, filter };
  return remembered(CHARTS, model, query, () => ({ traffic: model.traffic({ ...query, latency: 'q2c', heatColumns: columns }), depth: model.depth(query), columns }));
}

/** Of each trace, what was asked for last and the answer. */
export type Remembered<T> = WeakMap<TraceModel, { readonly question: string; readonly answer: T }>;

const CHARTS: Remembered<Charts> = new WeakMap();

/** Keys that only choose something else ask for the same again, and passes over millions of requests take time. */
export function remembered<T>(known: Remembered<T>, model: TraceModel, question: unknown, ask: () => T): T {
  const text = JSON.stringify(question);
  const before = known.get(model);
  if (before?.question === text) return before.answer;
  const answer = ask();
  known.set(model, { question: text, answer });
  return answer;
}

export interface LegendEntry {
  readonly label: string;
  readonly requests: number;
  readonly style: number;
  readonly letter: string;
}

const OP_COLOURS = [Colour.READ, Colour.WRITE, Colour.FLUSH, Colour.DISCARD, Colour.OTHER] as const;
const OP_LETTERS = 'RWFDo';

/** How requests of the class `kind` are drawn; with the last class, beyond `classes`, discards. */
export function kindLook(colour: ColourBy, kind: number, classes: number): { readonly style: number; readonly letter: string } {
  if (kind === classes) return { style: Colour.DISCARD, letter: 'D' };
  if (colour === 'op') return { style: OP_COLOURS[kind] ?? Colour.OTHER, letter: OP_LETTERS[kind] ?? 'o' };
  return { style: Colour.SERIES + (kind % SERIES_COLOURS), letter: (colour === 'process' ? 'abcdefgh' : '12345678').charAt(kind % SERIES_COLOURS) };
}

/** Operations that occur, processes or layers, of the whole trace; and last what failed, which has a mark of its own. */
export function legendOf(scene: Scene): LegendEntry[] {
  const { failed } = factsOf(scene.model);
  return [...kindsOf(scene), ...failed === 0 ? [] : [entry('failed', failed, FAILED)]];
}

export const FAILED = { style: Colour.ERROR + Attribute.BOLD, letter: '!' } as const;

function kindsOf({ model, view }: Scene): LegendEntry[] {
  if (view.colour === 'op') {
    const { opCounts } = factsOf(model);
    return OPS.flatMap((label, op) => opCounts[op] === 0 ? [] : [entry(label, opCounts[op]!, kindLook('op', op, OPS.length))]);
  }
  const named = view.colour === 'layer' ? model.devices.map(({ name, requests }) => ({ label: name, requests }))
    : model.processes.map(({ name, pid, requests }) => ({ label: name === '' ? `pid ${pid}` : `${name} ${pid}`, requests }));
  const own = named.length <= COLOUR_CLASSES ? named.length : COLOUR_CLASSES - 1;
  const others = named.slice(own).reduce((sum, { requests }) => sum + requests, 0);
  return [...named.slice(0, own), ...others === 0 ? [] : [{ label: `${named.length - own} others`, requests: others }]]
    .map(({ label, requests }, kind, { length }) => entry(label, requests, kindLook(view.colour, kind, length)));
}

function entry(label: string, requests: number, { style, letter }: Pick<LegendEntry, 'style' | 'letter'>): LegendEntry {
  return { label, requests, style, letter };
}

interface Facts {
  /** Requests by operation. */
  readonly opCounts: Float64Array;
  readonly failed: number;
  readonly bottomDevices: readonly number[];
}

const FACTS = new WeakMap<TraceModel, Facts>();

/** What takes a pass over all requests and no zoom changes: found once. */
function factsOf(model: TraceModel): Facts {
  const known = FACTS.get(model);
  if (known !== undefined) return known;
  const opCounts = new Float64Array(OPS.length);
  let failed = 0;
  for (let row = 0; row < model.table.count; row++) {
    opCounts[model.index.op[row]!]!++;
    if (model.table.error[row]! > 0) failed++;
  }
  const facts = { opCounts, failed, bottomDevices: model.bottomDevices };
  FACTS.set(model, facts);
  return facts;
}
