/**
 * QEMU's older option strings (QemuOpts): `a=b,c=d`, a comma in a value doubled, the first value perhaps without its
 * key, and flags without a value (`server`, `nowait`), which are out of fashion.
 */
import { BlockError } from '../base/errors.js';
import { badId, isWellFormedId } from './ids.js';

export interface QemuOpts {
  readonly id: string | null;
  /** Later values of one name win. */
  readonly values: ReadonlyMap<string, string>;
  readonly help: boolean;
}

interface QemuOptsShape {
  /** What a first value without a key is. */
  readonly impliedKey?: string | undefined;
  /** Every other name is refused. */
  readonly known?: ReadonlySet<string> | undefined;
  readonly warn?: ((text: string) => void) | undefined;
}

export function parseQemuOpts(text: string, { impliedKey, known, warn }: QemuOptsShape): QemuOpts {
  const values = new Map<string, string>();
  let id: string | null = null;
  let help = false;
  for (const [index, part] of splitAtCommas(text).entries()) {
    const { name, value, flag } = readPart(part, index === 0 ? impliedKey : undefined);
    if (flag && (name === 'help' || name === '?')) {
      help = true;
      continue;
    }
    if (flag) warn?.(`short-form boolean option '${part}' deprecated\nPlease use ${name}=${value} instead`);
    if (name === 'id') {
      if (!isWellFormedId(value)) throw badId();
      id = value;
    } else if (known !== undefined && !known.has(name)) {
      throw invalid(`Invalid parameter '${name}'`);
    } else {
      values.set(name, value);
    }
  }
  return { id, values, help };
}

function readPart(part: string, implied: string | undefined): { name: string; value: string; flag: boolean } {
  const equals = part.indexOf('=');
  if (equals >= 0) return { name: part.slice(0, equals), value: part.slice(equals + 1), flag: false };
  if (implied !== undefined && part !== 'help' && part !== '?') return { name: implied, value: part, flag: false };
  if (part.startsWith('no') && part.length > 2) return { name: part.slice(2), value: 'off', flag: true };
  return { name: part, value: 'on', flag: true };
}

/** A doubled comma is a comma of the value. */
function splitAtCommas(text: string): string[] {
  if (text === '') return [];
  const parts: string[] = [''];
  for (let at = 0; at < text.length; at++) {
    if (text[at] !== ',') parts[parts.length - 1] += text[at]!;
    else if (text[at + 1] === ',') parts[parts.length - 1] += text[++at]!;
    else parts.push('');
  }
  return parts.at(-1) === '' ? parts.slice(0, -1) : parts;
}

/** `on` and `off`, and their other spellings. */
export function boolOption({ values }: QemuOpts, name: string): boolean | undefined {
  const text = values.get(name);
  if (text === undefined) return undefined;
  if (['on', 'yes', 'true', 'y'].includes(text)) return true;
  if (['off', 'no', 'false', 'n'].includes(text)) return false;
  throw invalid(`Parameter '${name}' expects 'on' or 'off'`);
}

export function invalid(message: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', message);
}

export function badSize(name: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', `Parameter '${name}' expects a non-negative number below 2^64`, {
    hint: 'Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.',
  });
}
