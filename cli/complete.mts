/** What may follow the words typed so far, for the script of `quiesce completion`. Nothing: the shell offers files. */
import type { CommandSpec } from './command.mjs';
import type { CommandEntry } from './commands.mjs';

/** `words`: `quiesce` first, what is being typed last. */
export async function complete(entries: Readonly<Record<string, CommandEntry>>, words: readonly string[]): Promise<readonly string[]> {
  const before = words.slice(1, -1);
  const current = words.at(-1) ?? '';
  return (await offered(entries, before, current)).filter((word) => word.startsWith(current));
}

async function offered(entries: Readonly<Record<string, CommandEntry>>, before: readonly string[], current: string): Promise<readonly string[]> {
  const path = [before.slice(0, 2).join(' '), before[0] ?? ''].find((name) => Object.hasOwn(entries, name));
  if (path !== undefined) return follows((await entries[path]!.load()).command.spec, before.slice(path.split(' ').length), current);
  const paths = Object.keys(entries).map((name) => name.split(' '));
  if (before.length === 0) return [...new Set(paths.map(([first]) => first!)), '--help', '--version'];
  return before.length === 1 ? paths.filter(([first]) => first === before[0]).map(([, second]) => second!) : [];
}

function follows(spec: CommandSpec, before: readonly string[], current: string): readonly string[] {
  const last = before.at(-1) ?? '';
  const option = Object.entries(spec.options).find(([name, { alias }]) => last === `--${name}` || (alias !== undefined && last === `-${alias}`))?.[1];
  if (option !== undefined && option.type !== 'boolean') return option.choices ?? [];
  if (current.startsWith('-')) return [...Object.keys(spec.options).map((name) => `--${name}`), '--help'];
  return Object.values(spec.positionals).flatMap(({ choices = [] }) => choices);
}
