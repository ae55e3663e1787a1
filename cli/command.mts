/**
 * What a command is: a description that help, both parsers and the completion read, and a function that runs. The types
 * of a command's arguments follow from its description.
 */
import type { Output } from './output.mjs';
import type { Progress } from './progress.mjs';

/** `number` is an integer, `size` an integer of bytes with an optional suffix (64K, 10G). */
type ValueType = 'string' | 'number' | 'size';

interface ValueSpec {
  readonly help: string;
  /** `array`: one or more words. */
  readonly array?: boolean;
  readonly choices?: readonly string[];
  /** Bounds of a number or size, both included. */
  readonly min?: number;
  readonly max?: number;
}

export interface PositionalSpec extends ValueSpec {
  readonly type?: ValueType;
  readonly optional?: boolean;
}

export interface OptionSpec extends ValueSpec {
  readonly type: ValueType | 'boolean';
  /** One letter, for `-x`. */
  readonly alias?: string;
  /** What help calls the value: SIZE, IMAGE, … */
  readonly value?: string;
  readonly default?: string | number;
  readonly required?: boolean;
  /** An array that takes one word each time it is given, instead of all words after it. */
  readonly repeated?: boolean;
}

/** In the order of the command line; only the last may be an array or optional followed by optional ones. */
type PositionalSpecs = Readonly<Record<string, PositionalSpec>>;
/** By long name without dashes: `vm-state`. */
type OptionSpecs = Readonly<Record<string, OptionSpec>>;

export interface CommandSpec {
  /** Full sentences: what it does and what it promises. */
  readonly description: string;
  readonly positionals: PositionalSpecs;
  readonly options: OptionSpecs;
  /** What `--help` teaches: a command line and what it is for. */
  readonly examples: readonly { readonly line: string; readonly does: string }[];
  /** Exit code for a wrong command line; 2 unless the command gives 2 a meaning of its own. */
  readonly usageExitCode?: number;
}

export interface CommandContext {
  /** Long names of the options in the order of the command line; of quick commands only. */
  readonly given: readonly string[];
  /** Aborted by Ctrl-C or SIGTERM; its reason is the error to throw. A command that returns normally has succeeded. */
  readonly signal: AbortSignal;
  /** Standard output: results only. */
  readonly out: Output;
  /** One line to standard error: `quiesce: warning: …`. */
  readonly warn: (message: string) => void;
  /** One line for people who wait: on standard error if it is a terminal, nowhere otherwise. */
  readonly hint: (message: string) => void;
  /** Bars on standard error if it is a terminal, nothing otherwise. The frame stops them when the command ends. */
  readonly progress: () => Promise<Progress>;
}

/** Values by camelCase name. */
export type ParsedArgs = Readonly<Record<string, unknown>>;

export interface Command {
  readonly spec: CommandSpec;
  /** Resolves to the exit code (nothing = 0). */
  run(args: ParsedArgs, context: CommandContext): Promise<number | void>;
}

type CamelCase<Name extends string> = Name extends `${infer Head}-${infer Tail}` ? `${Head}${Capitalize<CamelCase<Tail>>}` : Name;

type Scalar<S> = S extends { type: 'boolean' } ? boolean
  : S extends { type: 'number' | 'size' } ? number
  : S extends { choices: readonly (infer Choice)[] } ? Choice : string;

type Value<S> = S extends { array: true } ? readonly Scalar<S>[] : Scalar<S>;

type PositionalValue<S> = S extends { optional: true } ? (S extends { array: true } ? Value<S> : Value<S> | undefined) : Value<S>;

type OptionValue<S> = S extends { array: true } | { type: 'boolean' } | { required: true } | { default: string | number }
  ? Value<S> : Value<S> | undefined;

/** What `run` gets: flags are false and arrays empty where not given, other options undefined or their default. */
type Args<P extends PositionalSpecs, O extends OptionSpecs> =
  & { readonly [Name in keyof P & string as CamelCase<Name>]: PositionalValue<P[Name]> }
  & { readonly [Name in keyof O & string as CamelCase<Name>]: OptionValue<O[Name]> };

interface CommandDefinition<P extends PositionalSpecs, O extends OptionSpecs> extends CommandSpec {
  readonly positionals: P;
  readonly options: O;
  run(args: Args<P, O>, context: CommandContext): Promise<number | void>;
}

export function defineCommand<const P extends PositionalSpecs, const O extends OptionSpecs>(definition: CommandDefinition<P, O>): Command {
  return {
    spec: definition,
    // the parser makes exactly the values that the description promises
    run: (args, context) => definition.run(args as Args<P, O>, context),
  };
}

/** A wrong command line: the frame adds where help is. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'UsageError';
  }
}
