/**
 * Values from tokens, as QEMU's parser makes them, with its texts for garbage. A fault in the grammar is told when the brackets
 * are balanced again (the first one only); a stray byte is told at once and ends what was open. Memory is bounded: by the bytes and
 * the number of the tokens of one value, and by its depth.
 */
import { MiB } from '../base/bytes.js';
import { JsonLexer, type TokenKind } from './lexer.js';
import { decodeForPrint, decodeOne, isCharacter } from './utf8.js';
import { newDict, parseDouble, parseInteger, type Json } from './value.js';

const MAX_BYTES = 64 * MiB;
const MAX_TOKENS = 2 * 1024 * 1024;
const MAX_DEPTH = 1024;

/** What a stream of JSON is cut into: a value, or the sentence that QEMU says of it. */
export type JsonItem = { readonly value: Json; readonly error?: undefined } | { readonly error: string };

interface OpenContainer {
  readonly dict: Record<string, Json> | null;
  readonly list: Json[];
  key: string | null;
  expects: 'value or end' | 'value' | 'colon' | 'separator';
}

/** Cuts bytes, in pieces of any size, into values. */
export class JsonStreamParser {
  readonly #emit: (item: JsonItem) => void;
  readonly #lexer: JsonLexer;
  #open: OpenContainer[] = [];
  #braces = 0;
  #brackets = 0;
  #bytes = 0;
  #tokens = 0;
  #fault: string | null = null;
  #value: Json = null;

  constructor(emit: (item: JsonItem) => void) {
    this.#emit = emit;
    this.#lexer = new JsonLexer((kind, bytes) => this.#token(kind, bytes), MAX_BYTES);
  }

  feed(data: Uint8Array): void {
    this.#lexer.feed(data);
  }

  /** There are no more bytes: a value that stands unfinished is a fault. */
  end(): void {
    this.#lexer.end();
    if (this.#tokens > 0) this.#finish({ error: `JSON parse error, ${this.#fault ?? 'premature EOI'}` });
  }

  #token(kind: TokenKind, bytes: Uint8Array): void {
    if (kind === 'stray') return this.#finish({ error: `JSON parse error, stray '${decodeForPrint(bytes)}'` });
    this.#bytes += bytes.byteLength;
    this.#tokens++;
    if (kind === '{') this.#braces++;
    else if (kind === '}') this.#braces--;
    else if (kind === '[') this.#brackets++;
    else if (kind === ']') this.#brackets--;
    if (kind === 'too long' || this.#bytes > MAX_BYTES) return this.#finish({ error: 'JSON token size limit exceeded' });
    if (this.#tokens > MAX_TOKENS) return this.#finish({ error: 'JSON token count limit exceeded' });
    if (this.#braces + this.#brackets > MAX_DEPTH) return this.#finish({ error: 'JSON nesting depth limit exceeded' });
    if (this.#fault === null) this.#parse(kind, bytes);
    const balanced = this.#braces <= 0 && this.#brackets <= 0;
    if (!balanced && this.#braces >= 0 && this.#brackets >= 0) return;
    this.#finish(this.#fault === null ? { value: this.#value } : { error: `JSON parse error, ${this.#fault}` });
  }

  #finish(item: JsonItem): void {
    this.#open = [];
    this.#braces = 0;
    this.#brackets = 0;
    this.#bytes = 0;
    this.#tokens = 0;
    this.#fault = null;
    this.#value = null;
    this.#emit(item);
  }

  #parse(kind: TokenKind, bytes: Uint8Array): void {
    const top = this.#open.at(-1);
    if (top === undefined || top.expects === 'value') return this.#parseValue(kind, bytes);
    const close = top.dict === null ? ']' : '}';
    switch (top.expects) {
      case 'value or end': return kind === close ? this.#close() : this.#parseValue(kind, bytes);
      case 'colon':
        if (kind === ':') top.expects = 'value';
        else this.#fault = 'missing : in object pair';
        return;
      default:
        if (kind === close) this.#close();
        else if (kind === ',') top.expects = 'value';
        else this.#fault = `expected separator in ${top.dict === null ? 'list' : 'dict'}`;
    }
  }

  #parseValue(kind: TokenKind, bytes: Uint8Array): void {
    switch (kind) {
      case '{':
      case '[':
        this.#open.push({ dict: kind === '{' ? newDict() : null, list: [], key: null, expects: 'value or end' });
        return;
      case 'string': {
        const text = parseString(bytes);
        if (typeof text === 'string') this.#add(text);
        else this.#fault = text.fault;
        return;
      }
      case 'integer': return this.#add(parseInteger(decodeForPrint(bytes)));
      case 'double': return this.#add(parseDouble(decodeForPrint(bytes)));
      case 'keyword': {
        const word = decodeForPrint(bytes);
        if (word === 'null') this.#add(null);
        else if (word === 'true' || word === 'false') this.#add(word === 'true');
        else this.#fault = `invalid keyword '${word}'`;
        return;
      }
      default: this.#fault = 'expecting value';
    }
  }

  #close(): void {
    const { dict, list } = this.#open.pop()!;
    this.#add(dict ?? list);
  }

  /** A value is complete: a key, a member, an item, or the whole. */
  #add(value: Json): void {
    const top = this.#open.at(-1);
    if (top === undefined) {
      this.#value = value;
    } else if (top.dict === null) {
      top.list.push(value);
      top.expects = 'separator';
    } else if (top.key === null) {
      if (typeof value !== 'string') this.#fault = 'key is not a string in object';
      else top.key = value;
      top.expects = 'colon';
    } else {
      if (Object.hasOwn(top.dict, top.key)) this.#fault = 'duplicate key';
      else top.dict[top.key] = value;
      top.key = null;
      top.expects = 'separator';
    }
  }
}

/** The one value of a text, such as `json:…` or the argument of `--blockdev`. */
export function parseJson(text: string): JsonItem {
  let found: JsonItem | null = null;
  const parser = new JsonStreamParser((item) => {
    if (found === null) found = item;
    else if (found.error === undefined) found = { error: 'Expecting at most one JSON value' };
  });
  parser.feed(Buffer.from(text));
  parser.end();
  return found ?? { error: 'Expecting a JSON value' };
}

const SHORT: Readonly<Record<string, string>> = { '"': '"', "'": "'", '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };

/** Of a token with its quotes. */
function parseString(token: Uint8Array): string | { readonly fault: string } {
  const buffer = Buffer.from(token.buffer, token.byteOffset, token.byteLength);
  const plain = buffer.toString('latin1', 1, buffer.length - 1);
  // eslint-disable-next-line no-control-regex
  if (/^[ -[\]-\x7f]*$/.test(plain)) return plain;
  const parts: string[] = [];
  for (let at = 1; at < token.length - 1;) {
    const run = plainRun(buffer, at);
    if (run > at) {
      parts.push(buffer.toString('latin1', at, run));
      at = run;
    } else if (buffer[at] === 0x5c) {
      const { text, next, fault } = parseEscape(buffer, at);
      if (fault !== undefined) return { fault };
      parts.push(text);
      at = next;
    } else {
      const { codePoint, next } = decodeOne(buffer, at);
      if (codePoint < 0) return { fault: 'invalid UTF-8 sequence in string' };
      parts.push(String.fromCodePoint(codePoint));
      at = next;
    }
  }
  return parts.join('');
}

function plainRun(buffer: Buffer, from: number): number {
  let at = from;
  while (at < buffer.length - 1 && buffer[at]! < 0x80 && buffer[at] !== 0x5c) at++;
  return at;
}

interface Escape {
  readonly text: string;
  readonly next: number;
  readonly fault?: string;
}

function parseEscape(buffer: Buffer, at: number): Escape {
  const letter = String.fromCharCode(buffer[at + 1]!);
  if (letter !== 'u') {
    const text = SHORT[letter];
    return text === undefined ? { text: '', next: at, fault: 'invalid escape sequence in string' } : { text, next: at + 2 };
  }
  let codePoint = hexOf(buffer, at + 2);
  let next = at + 6;
  if (codePoint >= 0xd800 && codePoint <= 0xdbff && buffer[next] === 0x5c && buffer[next + 1] === 0x75) {
    const trailing = hexOf(buffer, next + 2);
    const isPair = trailing >= 0xdc00 && trailing <= 0xdfff;
    codePoint = isPair ? 0x1_0000 + (codePoint - 0xd800) * 0x400 + (trailing - 0xdc00) : -1;
    if (isPair) next += 6;
  }
  if (isCharacter(codePoint)) return { text: String.fromCodePoint(codePoint), next };
  return { text: '', next, fault: `${decodeForPrint(buffer.subarray(at, next))} is not a valid Unicode character` };
}

/** Of four digits, or -1. */
function hexOf(buffer: Buffer, at: number): number {
  const digits = buffer.toString('latin1', at, at + 4);
  return /^[0-9a-fA-F]{4}$/.test(digits) ? Number.parseInt(digits, 16) : -1;
}
