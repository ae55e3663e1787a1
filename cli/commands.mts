/** Every command: one line of help, and where it is. A command's module loads only when it runs. */
import type { Command } from './command.mjs';

export interface CommandEntry {
  readonly summary: string;
  load(): Promise<{ readonly command: Command }>;
  /** Called hundreds of times by scripts: the small parser reads its command line, and yargs is not loaded. */
  readonly quick?: boolean;
}

/** By the words that call it, in the order of the help. */
export const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  completion: { summary: 'print a script that completes commands in your shell', load: () => import('./commands/completion.mjs') },
};
