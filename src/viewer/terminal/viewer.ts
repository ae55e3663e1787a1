/** The viewer: keys in, changes of a terminal's screen out. Knows nothing of processes, signals and files. */
import type { ShownFinding } from '../answers.js';
import type { TraceModel } from '../model.js';
import { act } from './actions.js';
import { Grid, Painter } from './grid.js';
import { GUTTER, layoutOf } from './layout.js';
import { drawScreen } from './screen.js';
import type { Look, Scene, SourceState } from './scene.js';
import { clip } from './text.js';
import { firstView, followEnd, type View } from './view.js';

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/** What a source of requests has so far. */
export interface Shown {
  readonly model: TraceModel;
  readonly findings: readonly ShownFinding[];
  readonly source: SourceState;
}

export class TerminalViewer {
  readonly #look: Look;
  readonly #painter: Painter;
  #shown: Shown | null = null;
  #view: View | null = null;
  #waiting = 'reading…';

  constructor(look: Look) {
    this.#look = look;
    this.#painter = new Painter(look.colours);
  }

  /** What stands there until there is something to show. */
  wait(text: string): void {
    this.#waiting = text;
  }

  /** The trace as it is now: the view stays where it is, or follows the end of it. */
  show(shown: Shown): void {
    const before = this.#shown?.model ?? null;
    const { model, findings, source } = shown;
    this.#shown = shown;
    if (this.#view === null || before === null) {
      this.#view = firstView(model, source.live, this.#look.colours === 'none' || this.#look.ascii);
      if (source.live) this.#view = followEnd(this.#view, model);
      return;
    }
    const row = this.#view.row < 0 ? -1 : sameRequest(before, this.#view.row, model);
    const view = { ...this.#view, row, finding: Math.max(0, Math.min(this.#view.finding, findings.length - 1)) };
    // the last of what was followed is seen too
    this.#view = view.following ? { ...followEnd(view, model), following: source.live } : view;
  }

  key(name: string, { columns, rows }: TerminalSize): void {
    if (this.#shown === null || this.#view === null) return;
    const { model, findings, source } = this.#shown;
    const { map } = layoutOf(columns, rows, { findings: findings.length, table: false });
    this.#view = act(name, this.#view, { model, findings, live: source.live, mapColumns: Math.max(1, map.width - GUTTER), mapRows: Math.max(1, map.height - 1) });
  }

  /** The terminal may show anything: `paint` writes it whole. */
  forget(): void {
    this.#painter.forget();
  }

  /** The bytes that bring the terminal from what it shows to what it should. */
  paint({ columns, rows }: TerminalSize): string {
    return this.#painter.paint(this.#draw(columns, rows));
  }

  #draw(columns: number, rows: number): Grid {
    const scene = this.#scene();
    if (scene !== null) return drawScreen(columns, rows, scene);
    const grid = new Grid(columns, rows, this.#look.ascii);
    grid.write(1, 0, clip(this.#waiting, columns - 1));
    return grid;
  }

  #scene(): Scene | null {
    return this.#shown === null || this.#view === null ? null : { ...this.#shown, view: this.#view, look: this.#look };
  }
}

/** A live trace forgets its oldest requests and learns more about the others, so rows move. -1 for one that is gone. */
function sameRequest(before: TraceModel, row: number, now: TraceModel): number {
  const time = before.index.at[row]!;
  for (const at of now.rows({ from: time, to: time + 1 }, {}, 1000)) {
    if (now.table.sector[at] === before.table.sector[row] && now.table.device[at] === before.table.device[row]) return at;
  }
  return -1;
}
