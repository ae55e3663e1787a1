/** The same command lines through yargs, for commands where its 50 ms do not matter; and the script of shell completion. */
import type { Options } from 'yargs';
import { UsageError, type CommandSpec, type OptionSpec } from './command.mjs';
import { missingValue, unknownOption, type RawArgs } from './options.mjs';

function toYargs(option: OptionSpec): Options {
  const value: Options = option.type === 'boolean' ? { type: 'boolean' } : { type: 'string', requiresArg: true };
  return {
    ...value,
    ...(option.alias === undefined ? {} : { alias: option.alias }),
    ...(option.choices === undefined ? {} : { choices: option.choices }),
    array: option.array ?? false,
    ...(option.repeated === true ? { nargs: 1 } : {}),
    description: option.help,
  };
}

/** An ES module, which the bundle, CommonJS, can only import so. */
async function loadYargs() {
  return (await import('yargs')).default;
}

/** Evens out what yargs reads in its own way: `-fraw` is `-f raw`, and names like `--constructor` are unknown, not built in. */
function normalize(spec: CommandSpec, argv: readonly string[]): string[] {
  const end = argv.indexOf('--');
  const options = end < 0 ? argv : argv.slice(0, end);
  const takesValue = (letter: string): boolean => Object.values(spec.options).some((option) => option.alias === letter && option.type !== 'boolean');
  const normalized = options.map((word) => {
    const long = /^--([^=]*)/.exec(word)?.[1];
    if (long !== undefined && !Object.hasOwn(spec.options, long)) throw unknownOption(spec, long);
    const [, letter, attached] = /^-([a-zA-Z])([^=].*)$/.exec(word) ?? [];
    return letter !== undefined && takesValue(letter) ? `-${letter}=${attached}` : word;
  });
  return end < 0 ? normalized : [...normalized, ...argv.slice(end)];
}

/** Like options.scan. Types are left to `interpret`, so that both ways give the same values and messages. */
export async function scanWithYargs(spec: CommandSpec, argv: readonly string[]): Promise<RawArgs> {
  const yargs = await loadYargs();
  const parser = yargs(normalize(spec, argv)).detectLocale(false).help(false).version(false).exitProcess(false).showHelpOnFail(false)
    .parserConfiguration({
      'camel-case-expansion': false, 'dot-notation': false, 'boolean-negation': false, 'parse-numbers': false,
      'parse-positional-numbers': false, 'duplicate-arguments-array': true, 'flatten-duplicate-arrays': true, 'strip-aliased': true,
    })
    .fail((message: string, error: Error | undefined) => { throw translate(spec, message, error); });
  for (const [name, option] of Object.entries(spec.options)) {
    const { choices: _interpretChecksThem, ...declared } = toYargs(option);
    parser.option(name, declared);
  }
  const parsed: Record<string, unknown> = await parser.parseAsync();
  return { words: asList(parsed['_']), values: collect(spec, parsed) };
}

function collect(spec: CommandSpec, parsed: Record<string, unknown>): Map<string, string[]> {
  const values = new Map<string, string[]>();
  for (const [name, value] of Object.entries(parsed)) {
    if (name === '_' || name === '$0') continue;
    if (!Object.hasOwn(spec.options, name)) throw unknownOption(spec, name);
    if (value !== undefined) values.set(name, asList(value));
  }
  return values;
}

function asList(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [String(value)];
}

function translate(spec: CommandSpec, message: string, error: Error | undefined): Error {
  const name = /^Not enough arguments following: (\S+)/.exec(message)?.[1];
  const found = Object.entries(spec.options).find(([long, option]) => long === name || option.alias === name);
  return found === undefined ? (error ?? new UsageError(message)) : missingValue(...found);
}

/** The shell's half of completion; what it asks for comes from complete.mts. */
export async function completionScript(): Promise<void> {
  const yargs = await loadYargs();
  yargs().scriptName('quiesce').detectLocale(false).help(false).version(false).exitProcess(false).completion('completion', false).showCompletionScript();
}
