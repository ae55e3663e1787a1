import { defineCommand } from '../command.mjs';
import { completionScript } from '../yargs-scan.mjs';

export const command = defineCommand({
  description: 'Prints a script that completes commands and options in bash, zsh or fish (the shell that SHELL names).',
  positionals: {},
  options: {},
  examples: [
    { line: 'quiesce completion >> ~/.bashrc', does: 'complete in every new shell' },
    { line: 'source <(quiesce completion)', does: 'complete in this shell' },
  ],
  run: () => completionScript(),
});
