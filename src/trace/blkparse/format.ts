/** `-f` and `-F`: formats of a user's own, compiled once. */
import { BlockError } from '../../base/errors.js';
import { TWO_32 } from '../../base/bytes.js';
import { majorOf, minorOf, type RecordBatch } from '../record.js';
import { payloadHex, payloadInt, rwbs } from './fields.js';
import { padded, type TextBuffer } from './text.js';
import { NO_TIME, UNKNOWN_TIME } from './track.js';

/** What a line is about. */
export interface LineContext {
  readonly batch: RecordBatch;
  readonly index: number;
  readonly action: string;
  readonly cpu: number;
  readonly time: number;
  readonly elapsed: number;
  /** Of packet commands; null for all others. */
  readonly payload: Uint8Array | null;
  readonly name: Uint8Array;
  /** ns since 1970 of time 0. */
  readonly epochNs: bigint;
}

export type Piece = { readonly literal: Uint8Array } | { readonly field: string; readonly width: number; readonly hasWidth: boolean };

const ESCAPES: Readonly<Record<string, string>> = { b: '\b', n: '\n', r: '\r', t: '\t' };
/** Actions that may have a format of their own. */
export const FORMAT_ACTIONS: readonly string[] = ['A', 'B', 'C', 'D', 'F', 'G', 'I', 'M', 'P', 'Q', 'R', 'S', 'T', 'U', 'W', 'X'];

export function compileFormat(format: string): Piece[] {
  const pieces: Piece[] = [];
  let literal = '';
  for (let rest = format; rest !== '';) {
    const match = /^%(-?)(\d*)([^])|^\\([^]?)|^[^]/.exec(rest);
    const [whole, minus, digits = '', field, escaped] = match!;
    rest = rest.slice(whole.length);
    if (escaped !== undefined) {
      const meant = ESCAPES[escaped];
      if (meant === undefined) throw new BlockError('INVALID_ARGUMENT', `format '${format}': expected \\b, \\n, \\r or \\t, got '\\${escaped}'`);
      literal += meant;
    } else if (field === undefined || (field === '%' && whole === '%%')) literal += whole === '%%' ? '%' : whole;
    else {
      if (literal !== '') pieces.push({ literal: Buffer.from(literal) });
      literal = '';
      const width = Math.min(Number(digits), 4096);
      pieces.push({ field, width: minus === '-' && digits !== '' ? -width : width, hasWidth: digits !== '' });
    }
  }
  if (literal !== '') pieces.push({ literal: Buffer.from(literal) });
  return pieces;
}

/** `A,format`. */
export function parseActionFormat(spec: string): { readonly action: string; readonly pieces: readonly Piece[] } {
  const action = spec.slice(0, 1);
  if (!FORMAT_ACTIONS.includes(action)) throw new BlockError('INVALID_ARGUMENT', `format '${spec}': expected an action (one of ${FORMAT_ACTIONS.join('')}), a comma and a format`);
  if (spec[1] !== ',') throw new BlockError('INVALID_ARGUMENT', `format '${spec}': expected a comma behind the action`);
  return { action, pieces: compileFormat(spec.slice(2)) };
}

export function writeFormat(out: TextBuffer, pieces: readonly Piece[], context: LineContext): void {
  for (const piece of pieces) {
    if ('literal' in piece) out.text(piece.literal);
    else writeField(out, piece.field, piece.width, piece.hasWidth, context);
  }
}

function writeField(out: TextBuffer, field: string, width: number, hasWidth: boolean, context: LineContext): void {
  const { batch, index } = context;
  out.reserve(2 * Math.abs(width) + 64);
  const numeric = NUMBERS[field];
  if (numeric !== undefined) {
    out.number(numeric(batch, index, context), width);
    return;
  }
  switch (field) {
    case 'a': return out.text(padded(Buffer.from(context.action), width));
    case 'C': return out.text(padded(context.name, width));
    case 'd': return out.text(padded(rwbs(batch.category[index]!, batch.bytes[index]!), width));
    case 'D':
      out.number(majorOf(batch.device[index]!), 3);
      out.text(',');
      return out.number(minorOf(batch.device[index]!), -3);
    case 'P': return out.text(context.payload === null ? '' : payloadHex(context.payload));
    case 't': return out.text(String(context.time % 1e9).padStart(hasWidth ? Math.abs(width) : 9, '0'));
    case 'z': return out.text(padded(Buffer.from(wallTime(context.epochNs + BigInt(context.time))), width));
    default: return out.text(padded(Buffer.from(field), width));
  }
}

const NUMBERS: Readonly<Record<string, (batch: RecordBatch, index: number, context: LineContext) => number>> = {
  c: (_batch, _index, { cpu }) => cpu,
  e: (batch, index) => batch.error[index]!,
  m: (batch, index) => minorOf(batch.device[index]!),
  M: (batch, index) => majorOf(batch.device[index]!),
  n: (batch, index) => batch.bytes[index]! >>> 9,
  N: (batch, index) => batch.bytes[index]!,
  p: (batch, index) => batch.pid[index]!,
  s: (batch, index) => batch.sequence[index]!,
  S: (batch, index) => batch.sector[index]!,
  T: (_batch, _index, { time }) => Math.floor(time / 1e9) % TWO_32,
  u: (_batch, _index, { elapsed, action }) => {
    if (elapsed === NO_TIME) throw new BlockError('INVALID_ARGUMENT', `a format has %u, and an action ${action} of the trace has no elapsed time (only I, D and C have one, with -t)`);
    return elapsed === UNKNOWN_TIME ? 0 : Math.floor(elapsed / 1000);
  },
  U: (batch, index) => payloadInt(batch, index),
};

/** In the time zone of this machine. */
function wallTime(ns: bigint): string {
  const date = new Date(Number(ns / 1_000_000n));
  const two = (value: number): string => String(value).padStart(2, '0');
  const microseconds = ns / 1000n % 1_000_000n;
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(microseconds).padStart(6, '0')}`;
}
