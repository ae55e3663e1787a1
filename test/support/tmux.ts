/** A shell in a real terminal emulator, for programs that take the whole screen. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach } from '@jest/globals';
import { waitFor } from './cli.js';
import { repository, runOk } from './run.js';

export interface TmuxOptions {
  readonly columns: number;
  readonly rows: number;
  readonly env?: Readonly<Record<string, string>>;
}

/** TERM is tmux's own. */
const ENV = { LC_ALL: 'C.UTF-8', COLORTERM: 'truecolor', NO_COLOR: '' } as const;

export class Tmux {
  readonly #socket: string;

  constructor(socket: string) {
    this.#socket = socket;
  }

  /** A shell with the prompt `$ ` in the repository. */
  async start({ columns, rows, env = {} }: TmuxOptions): Promise<void> {
    const set = Object.entries({ ...ENV, ...env }).flatMap(([name, value]) => ['-e', `${name}=${value}`]);
    await this.#command('new-session', '-d', '-x', String(columns), '-y', String(rows), '-c', repository, ...set, "exec env PS1='$ ' bash --norc --noprofile");
    await this.until('the prompt', (lines) => lines[0]?.startsWith('$') === true);
  }

  /** What stands on the screen, without spaces at the ends of lines. */
  async lines(): Promise<string[]> {
    const { stdout } = await this.#command('capture-pane', '-p');
    return stdout.replace(/\n$/, '').split('\n').map((line) => line.trimEnd());
  }

  async text(): Promise<string> {
    return (await this.lines()).join('\n');
  }

  /** The same with escape sequences for colours. */
  async coloured(): Promise<string> {
    return (await this.#command('capture-pane', '-p', '-e')).stdout;
  }

  async isAlternate(): Promise<boolean> {
    return (await this.#command('display-message', '-p', '#{alternate_on}')).stdout.trim() === '1';
  }

  /** Processes that the shell has started. */
  async childPids(): Promise<number[]> {
    const shell = (await this.#command('display-message', '-p', '#{pane_pid}')).stdout.trim();
    const children = readFileSync(`/proc/${shell}/task/${shell}/children`, 'latin1').trim();
    return children === '' ? [] : children.split(' ').map(Number);
  }

  async type(text: string): Promise<void> {
    await this.#command('send-keys', '-l', text);
    await this.keys('Enter');
  }

  /** By tmux's names: `Tab`, `C-z`, `Left`, or characters. */
  async keys(...names: readonly string[]): Promise<void> {
    await this.#command('send-keys', ...names);
  }

  async resize(columns: number, rows: number): Promise<void> {
    await this.#command('resize-window', '-x', String(columns), '-y', String(rows));
  }

  /** Waits for a screen, and returns it. */
  async until(what: string, met: (lines: readonly string[]) => boolean): Promise<string[]> {
    let lines: string[] = [];
    try {
      await waitFor(what, async () => met(lines = await this.lines()), 40_000);
    } catch {
      throw new Error(`${what}: it never came; the screen is\n${lines.join('\n')}`);
    }
    return lines;
  }

  async untilText(text: string | RegExp): Promise<string[]> {
    return this.until(String(text), (lines) => {
      const all = lines.join('\n');
      return typeof text === 'string' ? all.includes(text) : text.test(all);
    });
  }

  /** What runs in it gets SIGHUP. */
  async end(): Promise<void> {
    await this.#command('kill-server');
  }

  #command(...args: readonly string[]): Promise<{ stdout: string }> {
    return runOk('tmux', ['-u', '-S', this.#socket, '-f', '/dev/null', ...args], { env: { ...ENV, TMUX: '' } }).then((stdout) => ({ stdout }));
  }
}

/** Terminals that end with the test. */
export function useTmux(): (options: TmuxOptions) => Promise<Tmux> {
  const started: Tmux[] = [];
  // not in a folder of the test, which may go first: without its socket nothing ends a server
  let folder: string | null = null;
  afterEach(async () => {
    for (const tmux of started.splice(0)) await tmux.end();
    if (folder !== null) rmSync(folder, { recursive: true, force: true });
    folder = null;
  });
  return async (options) => {
    folder ??= mkdtempSync(join(tmpdir(), 'quiesce-tmux-'));
    const tmux = new Tmux(join(folder, String(started.length)));
    started.push(tmux);
    await tmux.start(options);
    return tmux;
  };
}
