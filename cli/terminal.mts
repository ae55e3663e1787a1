/** The terminal of this process for full-screen programs: keys in, bytes out, and everything as it was when it ends or stands still. */
import { openSync, writeSync } from 'node:fs';
import { ReadStream } from 'node:tty';
import { KeyDecoder, wrapHostError } from '../src/index.js';

/** The alternate screen, without cursor and without wrapping; and back. */
const ENTER = '\u001b[?1049h\u001b[?25l\u001b[?7l\u001b[2J';
// from the upper left corner: tmux would scroll what is above the cursor into its history if the size has changed
const LEAVE = '\u001b[0m\u001b[2J\u001b[H\u001b[?7h\u001b[?25h\u001b[?1049l';
/** An ESC that nothing follows for so long was the key. */
const ESCAPE_MS = 50;

export interface TerminalEvents {
  key(name: string): void;
  /** Another size, or anything may be on the screen. */
  redraw(): void;
  /** The terminal is gone. */
  end(): void;
}

export class FullScreen {
  readonly #events: TerminalEvents;
  readonly #keys: ReadStream;
  readonly #decoder = new KeyDecoder();
  readonly #onExit = (): void => this.#leave();
  readonly #onResize = (): void => this.#events.redraw();
  readonly #onSuspend = (): void => this.suspend();
  readonly #onContinue = (): void => this.#enter();
  #escape: NodeJS.Timeout | null = null;
  #shown = false;
  #blocked = false;

  private constructor(keys: ReadStream, events: TerminalEvents) {
    this.#keys = keys;
    this.#events = events;
  }

  /** `keysFromTty`: standard input is data. Throws where there is no terminal to read keys from. */
  static open(keysFromTty: boolean, events: TerminalEvents): FullScreen {
    const screen = new FullScreen(keysFromTty ? controllingTerminal() : process.stdin, events);
    screen.#listen();
    screen.#enter();
    return screen;
  }

  get size(): { readonly columns: number; readonly rows: number } {
    return { columns: process.stdout.columns || 80, rows: process.stdout.rows || 24 };
  }

  /** Whether what was written last is still on its way: a slow terminal is not given more. */
  get isBusy(): boolean {
    return this.#blocked;
  }

  write(bytes: string): void {
    if (!this.#shown || bytes === '') return;
    this.#blocked = !process.stdout.write(bytes);
    if (this.#blocked) process.stdout.once('drain', () => {
      this.#blocked = false;
      this.#events.redraw();
    });
  }

  /** Gives the shell its terminal, as Ctrl-Z does; goes on from here when it is continued. */
  suspend(): void {
    this.#leave();
    process.removeListener('SIGTSTP', this.#onSuspend);
    // all of the pipeline: what feeds us stands still with us
    process.kill(0, 'SIGTSTP');
    process.on('SIGTSTP', this.#onSuspend);
    // where nothing stopped us (no job control), nothing continues us either
    setTimeout(() => { if (!this.#shown) this.#enter(); }, ESCAPE_MS);
  }

  close(): void {
    this.#leave();
    process.removeListener('exit', this.#onExit);
    process.removeListener('SIGTSTP', this.#onSuspend);
    process.removeListener('SIGCONT', this.#onContinue);
    process.stdout.removeListener('resize', this.#onResize);
    if (this.#escape !== null) clearTimeout(this.#escape);
    this.#keys.removeAllListeners();
    this.#keys.pause();
    if (this.#keys !== process.stdin) this.#keys.destroy();
  }

  #listen(): void {
    this.#keys.setEncoding('utf8');
    this.#keys.on('data', (data) => this.#received(String(data)));
    this.#keys.once('end', () => this.#events.end());
    this.#keys.once('error', () => this.#events.end());
    process.stdout.on('resize', this.#onResize);
    process.on('SIGTSTP', this.#onSuspend);
    process.on('SIGCONT', this.#onContinue);
    // whatever ends the process, the terminal is given back
    process.on('exit', this.#onExit);
  }

  #received(text: string): void {
    if (this.#escape !== null) clearTimeout(this.#escape);
    this.#escape = null;
    for (const key of this.#decoder.push(text)) this.#events.key(key);
    if (this.#decoder.isWaiting) this.#escape = setTimeout(() => { for (const key of this.#decoder.flush()) this.#events.key(key); }, ESCAPE_MS);
  }

  #enter(): void {
    this.#keys.setRawMode(true);
    // continued after a SIGSTOP, which let nobody leave, it is there still
    if (!this.#shown) writeNow(ENTER);
    this.#shown = true;
    this.#events.redraw();
  }

  #leave(): void {
    if (!this.#shown) return;
    this.#shown = false;
    try {
      this.#keys.setRawMode(false);
    } catch {
      // the terminal is gone, and with it what could be given back
    }
    writeNow(LEAVE);
  }
}

/** Ends and stops do not wait for a stream. */
function writeNow(bytes: string): void {
  try {
    writeSync(1, bytes);
  } catch {
    // gone, or so slow that it takes nothing now
  }
}

function controllingTerminal(): ReadStream {
  try {
    return new ReadStream(openSync('/dev/tty', 'r'));
  } catch (error) {
    throw wrapHostError(error, 'there is no terminal to read keys from');
  }
}

export type ColourChoice = 'auto' | 'always' | 'never';

/** What the terminal can show, from the environment. */
export function coloursOf(choice: ColourChoice, isTerminal: boolean, env: Readonly<NodeJS.ProcessEnv> = process.env): 'none' | '16' | '256' {
  const { NO_COLOR = '', TERM = '', COLORTERM = '' } = env;
  if (choice === 'never' || (choice === 'auto' && (!isTerminal || NO_COLOR !== '' || TERM === 'dumb'))) return 'none';
  return COLORTERM !== '' || /256|direct|kitty|alacritty/.test(TERM) || !isTerminal ? '256' : '16';
}

/** Whether the locale writes UTF-8. */
export function isUtf8(env: Readonly<NodeJS.ProcessEnv> = process.env): boolean {
  return /utf-?8/i.test(env['LC_ALL'] || env['LC_CTYPE'] || env['LANG'] || '');
}
