/** QMP on the wire: one JSON object per line. What comes in is checked here; nothing above sees an untyped message. */
import { BlockError, messageOf } from '../base/errors.js';
import { MiB } from '../base/bytes.js';
import { printJson } from '../qobject/print.js';
import type { JsonDict } from '../qobject/value.js';

export type JsonObject = Readonly<Record<string, unknown>>;

export interface QmpEvent {
  readonly name: string;
  readonly data: JsonObject;
}

export type QmpMessage =
  | { readonly kind: 'greeting'; readonly version: string }
  | { readonly kind: 'event'; readonly event: QmpEvent }
  | { readonly kind: 'reply'; readonly id: unknown; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: unknown; readonly errorClass: string; readonly description: string };

export const MAX_LINE = 16 * MiB;
const NEWLINE = 0x0a;

/** Cuts a byte stream into lines. */
export class LineSplitter {
  #parts: Uint8Array[] = [];
  #bytes = 0;

  /** The lines that `data` completes, without their ends. */
  push(data: Uint8Array): string[] {
    const lines: string[] = [];
    let start = 0;
    for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE, start)) {
      this.#keep(data.subarray(start, end));
      lines.push(Buffer.concat(this.#parts).toString('utf8').trim());
      this.#parts = [];
      this.#bytes = 0;
      start = end + 1;
    }
    this.#keep(data.slice(start));
    return lines;
  }

  #keep(part: Uint8Array): void {
    this.#bytes += part.byteLength;
    if (this.#bytes > MAX_LINE) throw new BlockError('PROTOCOL', `the QMP peer sent a line of more than ${MAX_LINE} bytes`);
    if (part.byteLength > 0) this.#parts.push(part);
  }
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A reply that must be an object; `command` names the sender's fault. */
export function expectObject(command: string, value: unknown): JsonObject {
  if (isObject(value)) return value;
  throw new BlockError('PROTOCOL', `QEMU answered '${command}' with ${typeof value}, expected an object`);
}

export function expectList(command: string, value: unknown): JsonObject[] {
  if (Array.isArray(value) && value.every(isObject)) return value;
  throw new BlockError('PROTOCOL', `QEMU answered '${command}' with ${typeof value}, expected a list of objects`);
}

export function expectText(command: string, object: JsonObject, field: string): string {
  const value = object[field];
  if (typeof value === 'string') return value;
  throw new BlockError('PROTOCOL', `QEMU's answer to '${command}' has no text '${field}'`);
}

export function decodeMessage(line: string): QmpMessage {
  const message = parse(line);
  if (isObject(message['QMP'])) return { kind: 'greeting', version: decodeVersion(message['QMP']['version']) };
  if (typeof message['event'] === 'string') {
    const data = isObject(message['data']) ? message['data'] : {};
    return { kind: 'event', event: { name: message['event'], data } };
  }
  if ('return' in message) return { kind: 'reply', id: message['id'], value: message['return'] };
  const error = message['error'];
  if (isObject(error) && typeof error['class'] === 'string' && typeof error['desc'] === 'string') {
    return { kind: 'error', id: message['id'], errorClass: error['class'], description: error['desc'] };
  }
  throw new BlockError('PROTOCOL', `the QMP peer sent neither a greeting, an event nor a reply: ${excerpt(line)}`);
}

export function encodeCommand(command: string, args: JsonObject | undefined, id: number): string {
  return `${printJson({ execute: command, arguments: args as JsonDict | undefined, id })}\n`;
}

function parse(line: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new BlockError('PROTOCOL', `the QMP peer sent no JSON (${messageOf(error)}): ${excerpt(line)}`);
  }
  if (isObject(value)) return value;
  throw new BlockError('PROTOCOL', `the QMP peer sent no JSON object: ${excerpt(line)}`);
}

/** `7.2.22` of `{qemu: {major, minor, micro}, package}`, for messages only. */
function decodeVersion(version: unknown): string {
  const qemu = isObject(version) ? version['qemu'] : null;
  return isObject(qemu) ? [qemu['major'], qemu['minor'], qemu['micro']].join('.') : 'unknown';
}

function excerpt(line: string): string {
  return line.length > 80 ? `'${line.slice(0, 80)}…'` : `'${line}'`;
}
