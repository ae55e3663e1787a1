import { basename } from 'node:path';
import { BlockError, loadTrace, messageOf, TerminalViewer, textReport, TraceModel, type ShownTrace } from '../../src/index.js';
import { defineCommand, type CommandContext } from '../command.mjs';
import { kindOfSource, openLive, type LiveSource } from '../live-trace.mjs';
import { coloursOf, FullScreen, isUtf8 } from '../terminal.mjs';

const FRAME_MS = 250;
/** Between two frames of a live trace: so many times as long as one takes. */
const FRAME_COSTS = 4;
/** Of a text that no terminal limits. */
const REPORT_COLUMNS = 100;
const NARROWEST = 40;

export const command = defineCommand({
  description: 'Shows where every I/O of a trace went: a map of offsets over time, latencies as a heat map, throughput, IOPS and queue depth on one time axis, ' +
    'findings first, and each request with its steps and what was made for it across layers. Full screen on a terminal (? lists the keys), one text where the output is a pipe. ' +
    'FILE is a trace as blktrace names it (FILE.blktrace.0, …), a dump of blkparse, a log of fio, - for a stream on standard input, or the QMP socket of a daemon of ours; the last two are shown as they come.',
  positionals: { file: { help: 'the trace, - for standard input, or the QMP socket of a daemon' } },
  options: {
    once: { type: 'boolean', help: 'print one text and end' },
    follow: { type: 'boolean', help: 'the trace is being written: show what comes' },
    color: { type: 'string', choices: ['auto', 'always', 'never'], default: 'auto', help: 'colours; auto obeys NO_COLOR' },
    ascii: { type: 'boolean', help: 'ASCII instead of braille and blocks, as where the locale is not UTF-8' },
  },
  examples: [
    { line: 'quiesce trace view vda', does: 'look at vda.blktrace.0, vda.blktrace.1, …' },
    { line: 'blktrace -d /dev/vda -o - | quiesce trace view -', does: 'watch a disk live' },
    { line: 'quiesce trace view /run/quiesce.qmp', does: 'watch the disks of a daemon; what it records for that is removed afterwards' },
    { line: 'quiesce trace view --once vda > report.txt', does: 'the same panels as text' },
  ],
  run: async ({ file, once, follow, color, ascii }, context) => {
    const isScreen = !once && process.stdout.isTTY && process.env['TERM'] !== 'dumb';
    const look = { ascii: ascii || !isUtf8(), colours: coloursOf(color, process.stdout.isTTY) };
    const kind = await kindOfSource(file);
    if (isScreen) return new Viewing({ file, kind, isLive: follow || kind !== 'file' }, new TerminalViewer(look), context).run();
    if (kind === 'daemon') throw new BlockError('NOT_SUPPORTED', `'${file}' is the socket of a daemon, whose I/O can be watched on a terminal only`);
    const columns = Math.max(NARROWEST, process.stdout.columns || Number(process.env['COLUMNS']) || REPORT_COLUMNS);
    const shown = await readWhole(file, context.signal, () => undefined);
    for (const line of textReport(shown, { ...look, columns })) context.out.line(line);
  },
});

function nameOf(file: string): string {
  return file === '-' ? 'standard input' : basename(file);
}


async function readWhole(file: string, signal: AbortSignal, onProgress: (text: string) => void): Promise<ShownTrace> {
  const { model, findings, remarks } = await loadTrace(file, {
    signal, onProgress: ({ done, total, unit }) => onProgress(`reading ${nameOf(file)}: ${total === null ? `${done} ${unit}` : `${Math.floor((done / total) * 100)} %`}`),
  });
  return { model, findings, source: { name: nameOf(file), live: false, notice: remarks.join(', ') } };
}

interface Viewed {
  readonly file: string;
  readonly kind: Awaited<ReturnType<typeof kindOfSource>>;
  readonly isLive: boolean;
}

/** A full-screen session. */
class Viewing {
  readonly #what: Viewed;
  readonly #viewer: TerminalViewer;
  readonly #context: CommandContext;
  readonly #ended = new AbortController();
  #screen: FullScreen | null = null;
  #source: LiveSource | null = null;
  #drawing = false;
  #stale = false;

  constructor(what: Viewed, viewer: TerminalViewer, context: CommandContext) {
    this.#what = what;
    this.#viewer = viewer;
    this.#context = context;
  }

  async run(): Promise<void> {
    const { signal } = this.#context;
    const end = (): void => this.#ended.abort();
    this.#screen = FullScreen.open(this.#what.file === '-' || !process.stdin.isTTY, { key: (name) => this.#key(name), redraw: () => this.#redrawAll(), end });
    signal.addEventListener('abort', end);
    const reading = this.#read();
    try {
      await Promise.race([reading, this.#untilEnded()]);
      await this.#untilEnded();
    } finally {
      end();
      this.#screen.close();
      // a pipe may be silent for ever; all else hears that this is the end
      if (this.#what.kind !== 'stream') await reading.catch(() => undefined);
      await this.#source?.close();
    }
    signal.throwIfAborted();
  }

  async #read(): Promise<void> {
    const { file } = this.#what;
    try {
      if (this.#what.isLive) await this.#readLive();
      else this.#viewer.show(await readWhole(file, this.#ended.signal, (text) => this.#wait(text)));
      this.#draw();
    } catch (error) {
      if (!this.#ended.signal.aborted) throw error;
    }
  }

  async #readLive(): Promise<void> {
    const { file, kind } = this.#what;
    const { signal } = this.#ended;
    this.#wait(`waiting for ${nameOf(file)}…`);
    const { trace } = this.#source = await openLive(file, kind, signal);
    let failure = '';
    const show = (live: boolean): void => {
      const { table, findings } = trace.now();
      this.#viewer.show({ model: new TraceModel(table), findings, source: { name: nameOf(file), live, notice: failure } });
      this.#draw();
    };
    show(true);
    // a busy disk gets fewer frames: most of the time is for reading
    const frame = (): void => {
      const started = performance.now();
      if (this.#stale) show(true);
      this.#stale = false;
      timer = setTimeout(frame, Math.max(FRAME_MS, (performance.now() - started) * FRAME_COSTS));
    };
    let timer = setTimeout(frame, FRAME_MS);
    try {
      await trace.read(() => { this.#stale = true; }, signal);
    } catch (error) {
      // what came before is worth being looked at
      if (trace.records === 0) throw error;
      failure = messageOf(error);
    } finally {
      clearTimeout(timer);
    }
    if (!signal.aborted) show(false);
  }

  #untilEnded(): Promise<void> {
    const { signal } = this.#ended;
    return new Promise((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve());
    });
  }

  #key(name: string): void {
    if (name === 'q' || name === 'ctrl-c') return this.#ended.abort();
    if (name === 'ctrl-z') return this.#screen!.suspend();
    if (name === 'ctrl-l') return this.#redrawAll();
    this.#viewer.key(name, this.#screen!.size);
    this.#draw();
  }

  #wait(text: string): void {
    this.#viewer.wait(text);
    this.#draw();
  }

  #redrawAll(): void {
    this.#viewer.forget();
    this.#draw();
  }

  /** Keys that come together are drawn once. */
  #draw(): void {
    if (this.#drawing) return;
    this.#drawing = true;
    setImmediate(() => {
      this.#drawing = false;
      if (this.#screen !== null && !this.#screen.isBusy && !this.#ended.signal.aborted) this.#screen.write(this.#viewer.paint(this.#screen.size));
    });
  }
}
