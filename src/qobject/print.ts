/** JSON text, byte for byte as QEMU 7.2 prints it: `", "` and `": "`, or one member per line; ASCII only; `%.17g` for doubles. */
import { orderedKeys } from './dict-order.js';
import { isList, JsonDouble, type Json } from './value.js';
import { isCharacter } from './utf8.js';

export interface PrintOptions {
  /** One member per line, four spaces per level. */
  readonly pretty?: boolean | undefined;
}

/** Undefined members are left out, as members that QEMU has not set. */
export function printJson(value: Json, options: PrintOptions = {}): string {
  return print(value, options.pretty === true ? '\n' : null);
}

/** `newline` is a line's end and the indentation of this level, null in the compact form. */
function print(value: Json, newline: string | null): string {
  switch (typeof value) {
    case 'string': return printString(value);
    case 'number': return Number.isSafeInteger(value) && !Object.is(value, -0) ? String(value) : printDouble(value);
    case 'bigint':
    case 'boolean': return String(value);
    default:
  }
  if (value === null) return 'null';
  if (value instanceof JsonDouble) return printDouble(value.value);
  const inner = newline === null ? null : `${newline}    `;
  if (isList(value)) return wrap('[', value.map((item) => print(item, inner)), ']', newline);
  const members: string[] = [];
  for (const key of orderedKeys(value)) {
    const member = value[key];
    if (member !== undefined) members.push(`${printString(key)}: ${print(member, inner)}`);
  }
  return wrap('{', members, '}', newline);
}

function wrap(open: string, items: readonly string[], close: string, newline: string | null): string {
  if (newline === null) return open + items.join(', ') + close;
  const inner = `${newline}    `;
  return open + (items.length === 0 ? '' : inner) + items.join(`,${inner}`) + newline + close;
}

const SHORT: Readonly<Record<string, string>> = { '"': '\\"', '\\': '\\\\', '\b': '\\b', '\f': '\\f', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function printString(text: string): string {
  // what needs an escape: a quote, a backslash, and all that is no printable ASCII
  return `"${text.replace(/["\\]|[^ -~]/gu, (character) => SHORT[character] ?? escape(character.codePointAt(0)!))}"`;
}

function escape(codePoint: number): string {
  if (!isCharacter(codePoint)) return unit(0xfffd);
  if (codePoint <= 0xffff) return unit(codePoint);
  const beyond = codePoint - 0x1_0000;
  return unit(0xd800 + Math.floor(beyond / 0x400)) + unit(0xdc00 + (beyond % 0x400));
}

function unit(value: number): string {
  return `\\u${value.toString(16).toUpperCase().padStart(4, '0')}`;
}

/** As C's `%.17g`. */
function printDouble(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : (value < 0 ? '-inf' : 'inf');
  if (value === 0) return Object.is(value, -0) ? '-0' : '0';
  const [mantissa, exponent] = value.toExponential(16).split('e') as [string, string];
  const power = Number(exponent);
  if (power >= -4 && power < 17) return trimZeros(value.toFixed(Math.max(16 - power, 0)));
  return `${trimZeros(mantissa)}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
}

function trimZeros(digits: string): string {
  return digits.includes('.') ? digits.replace(/\.?0+$/, '') : digits;
}
