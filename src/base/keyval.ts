/**
 * QEMU's `key=value,…` strings: keys with dots name places in a tree, fragments of digits are places in a list, a comma
 * in a value is doubled. All leaves are strings; the last of several values for one leaf counts.
 */
import { BlockError } from './errors.js';

export type Keyval = string | KeyvalObject | readonly Keyval[];
export interface KeyvalObject { readonly [key: string]: Keyval }

interface ParsedKeyval {
  readonly tree: KeyvalObject;
  /** `help` or `?` stood among the parameters. */
  readonly help: boolean;
}

type Draft = Map<string, string | Draft>;

const MAX_FRAGMENT = 127;
/** A QAPI name, perhaps with the prefix of a vendor. */
const NAME = /(?:__[A-Za-z0-9.-]+_)?[A-Za-z][A-Za-z0-9_-]*/y;
const INDEX = /[0-9]+/y;

/** Throws INVALID_ARGUMENT with QEMU's sentence. `impliedKey` is meant by a first value that has no key. */
export function parseKeyvalOrHelp(text: string, impliedKey?: string): ParsedKeyval {
  const root: Draft = new Map();
  let help = false;
  let implied = impliedKey;
  for (let at = 0; at < text.length; implied = undefined) {
    const end = indexOfEither(text, at);
    const bare = end > at && text[end] !== '=';
    if (bare && (text.slice(at, end) === 'help' || text.slice(at, end) === '?')) {
      help = true;
      at = end + 1;
      continue;
    }
    const key = bare && implied !== undefined ? implied : text.slice(at, end);
    const { place, name } = placeOf(root, key);
    if (!(bare && implied !== undefined)) {
      if (text[end] !== '=') refuse(`Expected '=' after parameter '${key}'`);
      at = end + 1;
    }
    const value = bare && implied !== undefined ? { text: text.slice(at, end), next: end + 1 } : readValue(text, at);
    const old = place.get(name);
    if (old !== undefined && typeof old !== 'string') refuse(`Parameters '${key}.*' used inconsistently`);
    place.set(name, value.text);
    at = value.next;
  }
  const tree = finished(root, '') as KeyvalObject;
  return { tree, help };
}

export function parseKeyval(text: string, impliedKey?: string): KeyvalObject {
  const { tree, help } = parseKeyvalOrHelp(text, impliedKey);
  if (help) refuse('Help is not available for this option');
  return tree;
}

function refuse(message: string): never {
  throw new BlockError('INVALID_ARGUMENT', message);
}

function indexOfEither(text: string, from: number): number {
  let at = from;
  while (at < text.length && text[at] !== '=' && text[at] !== ',') at++;
  return at;
}

/** The object that holds the last fragment of a key; made where it is not there yet. */
function placeOf(root: Draft, key: string): { place: Draft; name: string } {
  let place = root;
  let name = '';
  for (let at = 0; ;) {
    const pattern = at > 0 && isDigit(key[at]) ? INDEX : NAME;
    pattern.lastIndex = at;
    const fragment = pattern.exec(key)?.[0] ?? '';
    const end = at + fragment.length;
    if (fragment === '' || (end < key.length && key[end] !== '.')) refuse(`Invalid parameter '${key}'`);
    if (fragment.length > MAX_FRAGMENT) refuse(`Parameter${at > 0 || end < key.length ? ' fragment' : ''} '${fragment}' is too long`);
    if (at > 0) {
      const next = place.get(name) ?? new Map<string, string | Draft>();
      if (typeof next === 'string') refuse(`Parameters '${key.slice(0, at - 1)}.*' used inconsistently`);
      place.set(name, next);
      place = next;
    }
    name = fragment;
    if (end === key.length) return { place, name };
    at = end + 1;
  }
}

function readValue(text: string, from: number): { text: string; next: number } {
  let value = '';
  for (let at = from; ;) {
    const comma = text.indexOf(',', at);
    if (comma < 0) return { text: value + text.slice(at), next: text.length };
    value += text.slice(at, comma);
    if (text[comma + 1] !== ',') return { text: value, next: comma + 1 };
    value += ',';
    at = comma + 2;
  }
}

/** Turns drafts whose keys are all indexes into lists. */
function finished(draft: Draft, path: string): Keyval {
  const indexes = [...draft.keys()].filter((key) => isDigit(key[0]));
  if (indexes.length > 0 && indexes.length < draft.size) refuse(`Parameters '${path}*' used inconsistently`);
  const values = [...draft].map(([key, value]): [string, Keyval] => [key, typeof value === 'string' ? value : finished(value, `${path}${key}.`)]);
  if (indexes.length === 0) return Object.fromEntries(values);
  const list = new Map(values.map(([key, value]) => [Number(key), value]));
  const length = Math.min(draft.size + 1, Math.max(...list.keys()) + 1);
  return Array.from({ length }, (_, index) => list.get(index) ?? refuse(`Parameter '${path}${index}' missing`));
}

function isDigit(character: string | undefined): boolean {
  return character !== undefined && character >= '0' && character <= '9';
}
