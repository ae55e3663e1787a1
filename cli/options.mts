/**
 * The command line of one command. `scan` splits it into words and raw option values; `interpret` gives them their
 * types. Commands that start often use `scan`; the others use yargs in its place (see yargs-scan), with equal results.
 */
import { messageOf, parseSize } from '../src/index.js';
import { UsageError, type CommandSpec, type OptionSpec, type ParsedArgs, type PositionalSpec } from './command.mjs';
import { didYouMean } from './suggest.mjs';

export interface RawArgs {
  /** Everything that is no option, in order. */
  readonly words: readonly string[];
  /** By long name; a flag's value is 'true' or 'false'. */
  readonly values: ReadonlyMap<string, readonly string[]>;
  /** Long names of the options, one for each time that one was given; only the small parser knows. */
  readonly given?: readonly string[];
}

/** Whether a word is an option and not a value: `-` (standard input) and negative numbers are values. */
function looksLikeOption(word: string): boolean {
  return /^-[^0-9]/.test(word);
}

export function scan(spec: CommandSpec, argv: readonly string[]): RawArgs {
  const words: string[] = [];
  const values = new Map<string, string[]>();
  const given: string[] = [];
  const rest = [...argv];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === '--') {
      words.push(...rest);
      break;
    }
    if (word.startsWith('--')) given.push(scanLong(spec, word, rest, values));
    else if (looksLikeOption(word)) given.push(...scanShort(spec, word, rest, values));
    else words.push(word);
  }
  return { words, values, given };
}

function scanLong(spec: CommandSpec, word: string, rest: string[], values: Map<string, string[]>): string {
  const equals = word.indexOf('=');
  const name = equals < 0 ? word.slice(2) : word.slice(2, equals);
  const option = Object.hasOwn(spec.options, name) ? spec.options[name] : undefined;
  if (option === undefined) throw unknownOption(spec, name);
  take(name, option, equals < 0 ? undefined : word.slice(equals + 1), rest, values);
  return name;
}

/** `-x`, `-x VALUE`, `-xVALUE`, `-x=VALUE`, and several flags in one word. */
function scanShort(spec: CommandSpec, word: string, rest: string[], values: Map<string, string[]>): string[] {
  const given: string[] = [];
  for (let at = 1; at < word.length; at++) {
    const letter = word.charAt(at);
    const found = Object.entries(spec.options).find(([, option]) => option.alias === letter);
    if (found === undefined) throw unknownOption(spec, letter);
    const [name, option] = found;
    given.push(name);
    const tail = word.slice(at + 1);
    if (option.type === 'boolean' && !tail.startsWith('=')) {
      take(name, option, undefined, rest, values);
      continue;
    }
    take(name, option, tail === '' ? undefined : tail.replace(/^=/, ''), rest, values);
    break;
  }
  return given;
}

function take(name: string, option: OptionSpec, attached: string | undefined, rest: string[], values: Map<string, string[]>): void {
  const taken = attached === undefined ? [] : [attached];
  if (option.type === 'boolean') {
    if (attached === undefined) taken.push('true');
  } else {
    const isValue = (): boolean => rest[0] !== undefined && !looksLikeOption(rest[0]);
    while ((taken.length === 0 || isGreedy(option)) && isValue()) taken.push(rest.shift()!);
    if (taken.length === 0) throw missingValue(name, option);
  }
  values.set(name, option.array === true ? [...(values.get(name) ?? []), ...taken] : taken);
}

function isGreedy(option: OptionSpec): boolean {
  return option.array === true && option.repeated !== true;
}

export function unknownOption(spec: CommandSpec, name: string): UsageError {
  const dashed = name.length === 1 ? `-${name}` : `--${name}`;
  const known = [...Object.keys(spec.options).map((option) => `--${option}`), '--help'];
  return new UsageError(`unknown option '${dashed}'${didYouMean(dashed, known)}`);
}

export function missingValue(name: string, option: OptionSpec): UsageError {
  return new UsageError(`option '--${name}' needs a value: --${name} ${placeholder(name, option)}`);
}

/** What help calls the value of an option. */
export function placeholder(name: string, option: OptionSpec): string {
  if (option.value !== undefined) return option.value;
  if (option.choices !== undefined) return option.choices.join('|');
  return option.type === 'string' ? name.toUpperCase() : option.type.toUpperCase();
}

/** Checks and converts what a scanner found. */
export function interpret(spec: CommandSpec, raw: RawArgs): ParsedArgs {
  const args: Record<string, unknown> = {};
  for (const [name, option] of Object.entries(spec.options)) {
    const values = raw.values.get(name);
    if (values === undefined && option.required === true) throw new UsageError(`option '--${name}' is required`);
    args[camelCase(name)] = values === undefined ? absent(option) : present(`--${name}`, option, values);
  }
  interpretWords(spec, raw, args);
  return args;
}

function absent(option: OptionSpec): unknown {
  if (option.array === true) return [];
  return option.type === 'boolean' ? false : option.default;
}

function present(what: string, spec: OptionSpec | PositionalSpec, values: readonly string[]): unknown {
  const converted = values.map((value) => convert(what, spec, value));
  // as with most tools, the last of several wins
  return spec.array === true ? converted : converted.at(-1);
}

function interpretWords(spec: CommandSpec, raw: RawArgs, args: Record<string, unknown>): void {
  const words = [...raw.words];
  for (const [name, positional] of Object.entries(spec.positionals)) {
    const values = positional.array === true ? words.splice(0) : words.splice(0, 1);
    if (values.length === 0 && positional.optional !== true) {
      throw new UsageError(`${name.toUpperCase()} is missing${greedyHint(spec, raw)}`);
    }
    if (values.length > 0) args[camelCase(name)] = present(name.toUpperCase(), positional, values);
    else args[camelCase(name)] = positional.array === true ? [] : undefined;
  }
  if (words.length > 0) throw new UsageError(`unexpected argument '${words[0]}'`);
}

/** The words after an array option are its values: the likely reason where a positional is missing. */
function greedyHint(spec: CommandSpec, raw: RawArgs): string {
  const greedy = [...raw.values].find(([name, values]) => spec.options[name]?.array === true && values.length > 1);
  return greedy === undefined ? '' : ` (all words after --${greedy[0]} are its values, so it comes last)`;
}

function convert(what: string, spec: OptionSpec | PositionalSpec, text: string): unknown {
  if (spec.choices !== undefined && !spec.choices.includes(text)) {
    throw new UsageError(`${what}: expected one of ${spec.choices.join(', ')}, got '${text}'${didYouMean(text, spec.choices)}`);
  }
  switch (spec.type) {
    case 'number': return checkBounds(what, spec, parseInteger(what, text));
    case 'size': return checkBounds(what, spec, parseBytes(what, text));
    case 'boolean': return parseFlag(what, text);
    default: return text;
  }
}

function parseFlag(what: string, text: string): boolean {
  if (text !== 'true' && text !== 'false') throw new UsageError(`${what} is a flag and takes no value, got '${text}'`);
  return text === 'true';
}

function parseInteger(what: string, text: string): number {
  const value = /^-?\d+$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value)) throw new UsageError(`${what}: expected a whole number, got '${text}'`);
  return value;
}

function parseBytes(what: string, text: string): number {
  try {
    return parseSize(text, what);
  } catch (error) {
    throw new UsageError(messageOf(error));
  }
}

function checkBounds(what: string, spec: OptionSpec | PositionalSpec, value: number): number {
  const { min = 0, max = Number.MAX_SAFE_INTEGER } = spec;
  if (value >= min && value <= max) return value;
  const wanted = spec.max === undefined ? `at least ${min}` : `${min} to ${max}`;
  throw new UsageError(`${what}: expected ${wanted}, got ${value}`);
}

function camelCase(name: string): string {
  return name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
}
