/** Progress on standard error, for people only: without a terminal nothing is shown and cli-progress is not loaded. */
import type { SingleBar } from 'cli-progress';
import { formatSize } from '../src/index.js';

export interface Progress {
  /** Begins a bar over `total` bytes (null = not known), ending the one before. */
  start(total: number | null, label: string): void;
  /** `done` bytes of the total, not the growth; what is done now may have another label. Cheap: drawn ten times a second at most. */
  update(done: number, label?: string): void;
  /** Draws `done` of a total that may change, with facts of which the first matter most: those that do not fit are left out. */
  show(done: number, total: number, label: string, facts: readonly string[]): void;
  /** Ends the bar and leaves it as it is. Does nothing where none runs. */
  stop(): void;
}

const silent: Progress = { start: () => undefined, update: () => undefined, show: () => undefined, stop: () => undefined };

export async function createProgress(stream: NodeJS.WriteStream = process.stderr): Promise<Progress> {
  if (!stream.isTTY) return silent;
  const { default: { SingleBar } } = await import('cli-progress');
  const columns = stream.columns || 80;
  return new ProgressBars(columns, (total, label, format) => new SingleBar({
    stream, format: format ?? (total === null ? OPEN_FORMAT : FORMAT), fps: 10, hideCursor: true, etaBuffer: 50,
    barsize: format !== undefined ? factsBar(columns) : Math.max(MIN_BAR, Math.min(MAX_BAR, columns - label.length - FACTS_WIDTH)),
    barCompleteChar: '█', barIncompleteChar: '░', stopOnComplete: false, gracefulExit: false,
  }));
}

const FORMAT = '{label} {bar} {percentage}%  {done} of {size}  {rate}/s  ETA {eta_formatted}';
/** Room for facts. */
const FACTS_FORMAT = '{label} {bar} {percentage}%  {facts}';

function factsBar(columns: number): number {
  return columns < 100 ? MIN_BAR : 12;
}

const OPEN_FORMAT = '{label}  {done}  {rate}/s';

const MIN_BAR = 5;
const MAX_BAR = 40;
/** All but label and bar, at its longest: a terminal cuts longer lines, and rate and ETA stand at the end. */
const FACTS_WIDTH = '  100%  1023 MiB of 1023 MiB  1023 MiB/s  ETA 59m59s'.length;

class ProgressBars implements Progress {
  readonly #open: (total: number | null, label: string, format?: string) => SingleBar;
  readonly #columns: number;
  #bar: SingleBar | null = null;
  #total: number | null = null;
  #startedMs = 0;
  #done = 0;
  #shows = false;

  constructor(columns: number, open: (total: number | null, label: string, format?: string) => SingleBar) {
    this.#columns = columns;
    this.#open = open;
  }

  start(total: number | null, label: string): void {
    this.stop();
    this.#startedMs = performance.now();
    this.#total = total;
    this.#done = 0;
    this.#bar = this.#open(total, label);
    this.#bar.start(total ?? 1, 0, { label, size: formatSize(total ?? 0), ...this.#facts() });
  }

  update(done: number, label?: string): void {
    this.#done = done;
    this.#bar?.update(this.#total === null ? 0 : Math.min(done, this.#total), { ...label === undefined ? {} : { label }, ...this.#facts() });
  }

  show(done: number, total: number, label: string, facts: readonly string[]): void {
    if (total === 0) return;
    const room = this.#columns - label.length - factsBar(this.#columns) - '  100%  '.length;
    let text = '';
    for (const fact of facts) if (text.length + fact.length + 2 <= room) text += `${text === '' ? '' : '  '}${fact}`;
    if (!this.#shows) {
      this.stop();
      this.#bar = this.#open(total, label, FACTS_FORMAT);
      this.#bar.start(total, 0, { label, facts: text });
      this.#shows = true;
    }
    this.#bar!.setTotal(total);
    this.#bar!.update(Math.min(done, total), { label, facts: text });
  }

  stop(): void {
    if (!this.#shows) this.#bar?.update(this.#facts());
    this.#shows = false;
    this.#bar?.stop();
    this.#bar = null;
  }

  #facts(): { done: string; rate: string } {
    const seconds = Math.max((performance.now() - this.#startedMs) / 1000, 0.001);
    return { done: formatSize(this.#done), rate: formatSize(Math.round(this.#done / seconds)) };
  }
}
