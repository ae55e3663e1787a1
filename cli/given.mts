/** Options that would have no effect are refused: who gave one expects something of it. */
import { UsageError, type CommandContext } from './command.mjs';

/** `why` follows the names: `--cache and --backing are for files: …`. */
export function refuseGiven({ given }: Pick<CommandContext, 'given'>, names: readonly string[], why: (plural: boolean) => string): void {
  const found = names.filter((name) => given.includes(name)).map((name) => `--${name}`);
  if (found.length > 0) throw new UsageError(`${found.join(' and ')} ${why(found.length > 1)}`);
}

export const FOR_FILES = (plural: boolean): string => `${plural ? 'are' : 'is'} for files: a daemon has its nodes open`;
