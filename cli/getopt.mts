/**
 * Command lines as getopt_long(3) reads them, with its messages: clusters of short options, `--long=value`, unique
 * beginnings of long options, options after words, `--` for the end.
 */
export interface LongOption {
  readonly name: string;
  /** Whether it takes a value. */
  readonly value: boolean;
  /** One letter, for `-x`. */
  readonly short?: string;
}

/** One step of the command line: an option (by its long name) or a word. */
export type GetoptItem =
  | { readonly kind: 'option'; readonly name: string; readonly value: string | null; readonly words: string }
  | { readonly kind: 'word'; readonly word: string }
  /** A word behind `--`. */
  | { readonly kind: 'rest'; readonly word: string };

/** The message lacks the program's name, which getopt puts before it. */
export class GetoptError extends Error {}

/** Yields the options as they come and words where they stand, so that the caller acts on what is before an error. */
export function* getopt(options: readonly LongOption[], argv: readonly string[]): Generator<GetoptItem> {
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at]!;
    if (word === '--') {
      for (const rest of argv.slice(at + 1)) yield { kind: 'rest', word: rest };
      return;
    }
    if (word.startsWith('--')) {
      const { name, value } = readLong(options, word, argv[at + 1]);
      const separate = value !== null && !word.includes('=');
      if (separate) at++;
      yield { kind: 'option', name, value, words: separate ? `${word} ${value}` : word };
    } else if (word.startsWith('-') && word !== '-') {
      at += yield* readCluster(options, word, argv[at + 1]);
    } else {
      yield { kind: 'word', word };
    }
  }
}

function readLong(options: readonly LongOption[], word: string, next: string | undefined): { name: string; value: string | null } {
  const equals = word.indexOf('=');
  const given = equals < 0 ? word.slice(2) : word.slice(2, equals);
  const option = findLong(options, given, word);
  if (!option.value) {
    if (equals >= 0) throw new GetoptError(`option '--${option.name}' doesn't allow an argument`);
    return { name: option.name, value: null };
  }
  const value = equals >= 0 ? word.slice(equals + 1) : next;
  if (value === undefined) throw new GetoptError(`option '--${option.name}' requires an argument`);
  return { name: option.name, value };
}

function findLong(options: readonly LongOption[], given: string, word: string): LongOption {
  const exact = options.find(({ name }) => name === given);
  if (exact !== undefined) return exact;
  const possible = options.filter(({ name }) => name.startsWith(given));
  if (possible.length === 1) return possible[0]!;
  if (possible.length === 0) throw new GetoptError(`unrecognized option '${word}'`);
  throw new GetoptError(`option '${word}' is ambiguous; possibilities: ${possible.map(({ name }) => `'--${name}'`).join(' ')}`);
}

/** `-xyz`, `-xVALUE`, `-x VALUE`. Returns how many further words it took. */
function* readCluster(options: readonly LongOption[], word: string, next: string | undefined): Generator<GetoptItem, number> {
  for (let at = 1; at < word.length; at++) {
    const letter = word.charAt(at);
    const option = options.find(({ short }) => short === letter);
    if (option === undefined) throw new GetoptError(`invalid option -- '${letter}'`);
    if (!option.value) {
      yield { kind: 'option', name: option.name, value: null, words: word };
      continue;
    }
    const attached = word.slice(at + 1);
    const value = attached === '' ? next : attached;
    if (value === undefined) throw new GetoptError(`option requires an argument -- '${letter}'`);
    yield { kind: 'option', name: option.name, value, words: attached === '' ? `${word} ${value}` : word };
    return attached === '' ? 1 : 0;
  }
  return 0;
}
