/** How a block job is told to people. */
import { formatSize, type MirrorProgress } from '../src/index.js';
import type { CommandContext } from './command.mjs';
import type { Progress } from './progress.mjs';

/** `converge, 12 MiB dirty, copies 5 MiB/s, guests dirty 1 MiB/s, ready in 12 s`. */
export function convergenceText({ phase, dirty, copyRate, dirtyRate, etaMs, converges, guestRate }: NonNullable<MirrorProgress['convergence']>): string {
  return [
    phase, `${size(dirty)} dirty`, `copies ${size(copyRate)}/s`, `guests dirty ${size(dirtyRate)}/s`,
    ...guestRate === null ? [] : [`guests may dirty ${size(guestRate)}/s`],
    ...converges === false ? ['does not converge'] : etaMs === null ? [] : [`ready in ${seconds(etaMs)}`],
  ].join(', ');
}

/** Draws how a mirror gets on, or another block job. */
export function drawJob(bars: Progress, { done, total, ready, convergence, guestP99Ms, unverified }: MirrorProgress, type = 'mirror'): void {
  if (unverified !== null) return bars.show(total - Math.min(unverified, total), total, 'comparing', [`${size(unverified)} left`]);
  if (convergence === null) return bars.show(done, total, ready ? `${type} ready` : type, [`${size(done)} of ${size(total)}`]);
  const { phase, dirty, copyRate, dirtyRate, etaMs, converges } = convergence;
  bars.show(done, total, `${type} ${phase}`, [
    `${size(dirty)} dirty`, converges === false ? 'does not converge' : `ETA ${etaMs === null ? '?' : seconds(etaMs)}`, `${size(copyRate)}/s copied`,
    ...guestP99Ms === null ? [] : [`p99 ${guestP99Ms < 10 ? guestP99Ms.toFixed(1) : Math.round(guestP99Ms)} ms`], `${size(dirtyRate)}/s dirtied`,
  ]);
}

export function seconds(ms: number): string {
  return ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`;
}

export function percent(done: number, total: number): string {
  return total === 0 ? '-' : `${Math.floor(done / total * 100)}%`;
}

function size(bytes: number): string {
  return formatSize(Math.round(bytes));
}

const TELL_EVERY_MS = 1000;

/** For programs: what happens as one JSON object a line, and once a second how far it is. */
export class EventLines<T> {
  readonly #print: (line: string) => void;
  readonly #describe: (progress: T) => Record<string, unknown>;
  #toldMs = -Infinity;

  constructor(print: (line: string) => void, describe: (progress: T) => Record<string, unknown>) {
    this.#print = print;
    this.#describe = describe;
  }

  event(event: string, data: Readonly<Record<string, unknown>>): void {
    this.#print(JSON.stringify({ event, ...data }));
  }

  progress(progress: T): void {
    const now = performance.now();
    if (now - this.#toldMs < TELL_EVERY_MS) return;
    this.#toldMs = now;
    this.event('progress', this.#describe(progress));
  }
}

/** What the commands of one job tell meanwhile: a bar for people, lines for programs, and how it ended for both. */
export class JobTelling {
  /** Bytes of the job so far; null before it is known. */
  total: number | null = null;
  readonly onEvent: ((event: string, data: Readonly<Record<string, unknown>>) => void) | undefined;
  readonly #bars: Progress;
  readonly #label: string;
  readonly #lines: EventLines<{ readonly done: number; readonly total: number }> | null;
  readonly #out: CommandContext['out'];
  readonly #startedMs = performance.now();

  constructor(label: string, json: boolean, out: CommandContext['out'], bars: Progress) {
    this.#bars = bars;
    this.#label = label;
    this.#out = out;
    const lines = json ? new EventLines<{ readonly done: number; readonly total: number }>((line) => out.line(line), (progress) => ({ ...progress })) : null;
    this.#lines = lines;
    this.onEvent = lines === null ? undefined : (event, data) => lines.event(event, data);
  }

  readonly onProgress = (done: number, total: number): void => {
    if (this.total !== total) this.#bars.start(total, this.#label);
    this.total = total;
    this.#bars.update(done);
    this.#lines?.progress({ done, total });
  };

  end(facts: Readonly<Record<string, unknown>>, text: string): void {
    this.#bars.stop();
    this.#out.line(this.#lines === null ? text : JSON.stringify({ ...facts, seconds: Math.round(performance.now() - this.#startedMs) / 1000 }));
  }
}

/** Members that are not known are left out. */
export function describeProgress({ done, total, ready, convergence, guestP99Ms, unverified }: MirrorProgress): Record<string, unknown> {
  const known = { done, total, ready, ...convergence, guestP99Ms, unverified };
  return Object.fromEntries(Object.entries(known).filter(([, value]) => value !== null));
}
