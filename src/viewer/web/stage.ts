import { aroundRegion, type Overview, type RequestDetail, type ShownFinding, type View, type ViewQuery } from '../answers.js';
import type { Filter } from '../filter.js';
import { OPS, type Op } from '../operations.js';
import type { ColourBy } from '../scatter.js';
import type { LatencyKind } from '../traffic.js';
import type { TimeSpan } from '../window.js';
import type { Source } from './source.js';

/** What is looked at, and how. Changing it brings a new view. */
export interface Look {
  readonly span: TimeSpan;
  readonly sectors: { readonly from: number; readonly to: number } | null;
  readonly colour: ColourBy;
  readonly latency: LatencyKind;
  readonly ops: readonly Op[];
  readonly devices: readonly number[];
  /** null: of all processes. */
  readonly pid: number | null;
}

/** What lies over the panels. Changing it moves a few lines. */
export interface Marks {
  readonly cursor: number | null;
  readonly brush: TimeSpan | null;
  readonly region: TimeSpan | null;
}

/** Something the page does when `topic` has changed. */
type Topic = 'look' | 'view' | 'marks' | 'picked' | 'problem' | 'overview';

/** What is narrower is not seen. */
const COLUMN_PIXELS = 2;
const HEAT_PIXELS = 4;
const CELL_ROWS = 120;
/** Nobody sees a nanosecond apart: windows are not narrower. */
const LEAST_SPAN_NS = 200;

/** The state of the page, and the one place that asks for views: one at a time, and only the latest wanted. */
export class Stage {
  #overview: Overview;
  #look: Look;
  #marks: Marks = { cursor: null, brush: null, region: null };
  #view: View | null = null;
  #picked: RequestDetail | null = null;
  #problem: string | null = null;
  #width = 800;
  #abort: AbortController | null = null;
  readonly #listeners = new Map<Topic, (() => void)[]>();

  constructor(readonly source: Source, overview: Overview) {
    this.#overview = overview;
    this.#look = {
      span: overview.span, sectors: null, colour: overview.bottomDevices.length > 1 ? 'layer' : 'op', latency: 'q2c', ops: OPS, devices: overview.bottomDevices, pid: null,
    };
  }

  get overview(): Overview { return this.#overview; }
  get look(): Look { return this.#look; }
  get marks(): Marks { return this.#marks; }
  get view(): View | null { return this.#view; }
  get picked(): RequestDetail | null { return this.#picked; }
  get problem(): string | null { return this.#problem; }
  /** Of the plots, in pixels. */
  get width(): number { return this.#width; }

  on(topic: Topic, listener: () => void): void {
    this.#listeners.set(topic, [...(this.#listeners.get(topic) ?? []), listener]);
  }

  get filter(): Filter {
    const { ops, devices, pid } = this.#look;
    return { ops, devices, pids: pid === null ? undefined : [pid] };
  }

  change(changes: Partial<Look>): void {
    this.#look = { ...this.#look, ...changes };
    this.#tell('look');
    void this.refresh();
  }

  mark(changes: Partial<Marks>): void {
    this.#marks = { ...this.#marks, ...changes };
    this.#tell('marks');
  }

  /** The trace goes on. A window that reached its end goes along, and so do layers that nobody chose. */
  renew(overview: Overview): void {
    const before = this.#overview;
    const { span, devices } = this.#look;
    this.#overview = overview;
    this.#tell('overview');
    const wasWhole = span.from <= before.span.from;
    const moved = Math.max(overview.span.to - span.to, overview.span.from - span.from);
    const follows = span.to >= before.span.to;
    const now = follows ? { from: wasWhole ? overview.span.from : span.from + moved, to: overview.span.to } : span;
    this.change({ span: now, devices: devices === before.bottomDevices ? overview.bottomDevices : devices });
  }

  async resize(width: number): Promise<void> {
    if (width === this.#width && this.#view !== null) return;
    this.#width = width;
    await this.refresh();
  }

  /** Shows this much of the trace, within the trace. */
  zoom({ from, to }: TimeSpan): void {
    const whole = this.overview.span;
    const length = Math.min(whole.to - whole.from, Math.max(LEAST_SPAN_NS, to - from));
    const begin = Math.min(Math.max(whole.from, (from + to - length) / 2), whole.to - length);
    this.mark({ brush: null });
    this.change({ span: { from: begin, to: begin + length } });
  }

  /** In the direction of time where above 0; 1 is the whole window. */
  pan(share: number): void {
    const { from, to } = this.#look.span;
    const whole = this.overview.span;
    const move = Math.min(Math.max((to - from) * share, whole.from - from), whole.to - to);
    this.change({ span: { from: from + move, to: to + move } });
  }

  /** Smaller than 1 shows less; what is at `around` stays where it is. */
  scale(factor: number, around?: number): void {
    const { from, to } = this.#look.span;
    const fixed = around ?? this.#marks.cursor ?? (from + to) / 2;
    const centre = Math.min(Math.max(fixed, from), to);
    this.zoom({ from: centre - (centre - from) * factor, to: centre + (to - centre) * factor });
  }

  /** The region of a finding with a little around it, on the layers it speaks of. */
  showFinding({ region, devices }: ShownFinding): void {
    this.mark({ region });
    this.#look = { ...this.#look, sectors: null, ops: OPS, pid: null, devices: devices.length > 0 ? devices : this.overview.bottomDevices };
    this.zoom(aroundRegion(region));
  }

  async pickNear(time: number, sector: number, timeUnit: number, sectorUnit: number): Promise<void> {
    await this.#pick(this.source.nearest({ time, sector, timeUnit, sectorUnit, filter: this.filter }));
  }

  async pick(row: number): Promise<void> {
    await this.#pick(this.source.request(row));
  }

  unpick(): void {
    this.#picked = null;
    this.#tell('picked');
  }

  /** Asks for what is looked at; a view that is still awaited is not wanted any more. */
  async refresh(): Promise<void> {
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    const started = performance.now();
    try {
      const view = await this.source.view(this.#query(), abort.signal);
      if (this.#abort !== abort) return;
      this.#view = view;
      // a page with views made ahead has not each window
      if (view.from !== this.#look.span.from || view.to !== this.#look.span.to) {
        this.#look = { ...this.#look, span: { from: view.from, to: view.to } };
        this.#tell('look');
      }
      this.#setProblem(null);
      this.#tell('view');
      // painted when the frame after this one begins
      requestAnimationFrame(() => requestAnimationFrame(() => reportRedraw(performance.now() - started)));
    } catch (error) {
      if (!abort.signal.aborted) this.#setProblem(error instanceof Error ? error.message : String(error));
    }
  }

  #query(): ViewQuery {
    const { span, sectors, colour, latency } = this.#look;
    return {
      ...span, sectors, colour, latency, columns: Math.ceil(this.#width / COLUMN_PIXELS), heatColumns: Math.ceil(this.#width / HEAT_PIXELS), rows: CELL_ROWS, filter: this.filter,
    };
  }

  async #pick(found: Promise<RequestDetail | null>): Promise<void> {
    try {
      this.#picked = await found;
      this.#tell('picked');
    } catch (error) {
      this.#setProblem(error instanceof Error ? error.message : String(error));
    }
  }

  #setProblem(problem: string | null): void {
    this.#problem = problem;
    this.#tell('problem');
  }

  #tell(topic: Topic): void {
    for (const listener of this.#listeners.get(topic) ?? []) listener();
  }
}

/** For tests and for who wonders: how long the last redraw took, and how many there were. */
function reportRedraw(ms: number): void {
  const { dataset } = document.documentElement;
  dataset['redrawMs'] = ms.toFixed(1);
  dataset['redraws'] = String(Number(dataset['redraws'] ?? 0) + 1);
}
