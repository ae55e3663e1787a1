/**
 * Cuts bytes into JSON tokens as QEMU's lexer does: strings may have single quotes, keywords are any lower-case letters, a stray
 * byte is told once and then everything up to a structural or control character is skipped.
 */
export type TokenKind = '{' | '}' | '[' | ']' | ':' | ',' | 'string' | 'integer' | 'double' | 'keyword' | 'stray' | 'too long';

/** `bytes` are valid during the call only. */
type OnToken = (kind: TokenKind, bytes: Uint8Array) => void;

type State =
  | 'start' | 'recovery' | '"' | '"\\' | "'" | "'\\" | 'sign' | 'zero' | 'digits' | 'point' | 'fraction' | 'exponent' | 'exponent sign'
  | 'exponent digits' | 'letters';

/** A buffer of more bytes is let go with its token. */
const LARGE = 65_536;
const BACKSLASH = 0x5c;
const STRUCTURE: Readonly<Record<number, TokenKind>> = Object.fromEntries((['{', '}', '[', ']', ':', ','] as const).map((text) => [text.charCodeAt(0), text]));
/** What a number or keyword is, if its end is reached in this state. */
const ENDS: Readonly<Partial<Record<State, TokenKind>>> = {
  zero: 'integer', digits: 'integer', fraction: 'double', 'exponent digits': 'double', letters: 'keyword',
};

export class JsonLexer {
  readonly #emit: OnToken;
  readonly #maxToken: number;
  #state: State = 'start';
  #token = Buffer.alloc(64);
  #bytes = 0;

  /** A token of more than `maxToken` bytes is told as 'too long' and forgotten. */
  constructor(emit: OnToken, maxToken: number) {
    this.#emit = emit;
    this.#maxToken = maxToken;
  }

  feed(data: Uint8Array): void {
    for (let at = 0; at < data.length;) at = this.#step(data, at);
  }

  /** There are no more bytes: what stands unfinished is a token, or stray. */
  end(): void {
    const kind = ENDS[this.#state];
    if (kind !== undefined) this.#finish(kind);
    else if (this.#state !== 'start' && this.#state !== 'recovery') this.#finish('stray');
    this.#state = 'start';
  }

  /** Reads one byte, or a stretch of plain string; returns where to go on (the same place, where a byte ended a token before it). */
  #step(data: Uint8Array, at: number): number {
    const byte = data[at]!;
    switch (this.#state) {
      case 'start': return this.#begin(data, at);
      case 'recovery':
        if (ends(byte)) this.#state = 'start';
        return ends(byte) ? at : at + 1;
      case '"':
      case "'": return this.#string(data, at, this.#state);
      case '"\\':
      case "'\\": {
        this.#keep(data, at, at + 1);
        if (!isText(byte)) return this.#stray(at + 1);
        this.#state = this.#state === '"\\' ? '"' : "'";
        return this.#bounded(at + 1);
      }
      default: {
        const next = follow(this.#state, byte);
        if (next === null) {
          this.#finish(ENDS[this.#state]!);
          return at;
        }
        this.#keep(data, at, at + 1);
        if (next === 'stray') return this.#stray(at + 1);
        this.#state = next;
        return this.#bounded(at + 1);
      }
    }
  }

  #begin(data: Uint8Array, at: number): number {
    const byte = data[at]!;
    if (byte === 0x20 || byte === 0x09 || byte === 0x0d || byte === 0x0a) return at + 1;
    this.#keep(data, at, at + 1);
    const structure = STRUCTURE[byte];
    const first = structure === undefined ? firstState(byte) : undefined;
    if (structure !== undefined) this.#finish(structure);
    else if (first === undefined) this.#stray(at);
    else this.#state = first;
    return at + 1;
  }

  #string(data: Uint8Array, from: number, quote: '"' | "'"): number {
    const end = quote.charCodeAt(0);
    let at = from;
    while (at < data.length && isText(data[at]!) && data[at] !== end && data[at] !== BACKSLASH) at++;
    if (at === data.length) {
      this.#keep(data, from, at);
      return this.#bounded(at);
    }
    this.#keep(data, from, at + 1);
    if (!isText(data[at]!)) return this.#stray(at + 1);
    if (data[at] === end) {
      // a long string may come in one piece
      if (this.#bytes <= this.#maxToken) this.#finish('string');
    } else {
      this.#state = quote === '"' ? '"\\' : "'\\";
    }
    return this.#bounded(at + 1);
  }

  #keep(data: Uint8Array, from: number, to: number): void {
    const end = this.#bytes + (to - from);
    // what is too long need not be held until that is told
    if (end <= this.#maxToken) {
      if (end > this.#token.length) this.#token = Buffer.concat([this.#token], Math.min(end * 2, this.#maxToken));
      this.#token.set(data.subarray(from, to), this.#bytes);
    }
    this.#bytes = end;
  }

  #bounded(at: number): number {
    if (this.#bytes > this.#maxToken) this.#finish('too long');
    return at;
  }

  #stray(at: number): number {
    this.#finish('stray');
    this.#state = 'recovery';
    return at;
  }

  #finish(kind: TokenKind): void {
    const bytes = kind === 'too long' ? this.#token.subarray(0, 0) : this.#token.subarray(0, this.#bytes);
    if (this.#token.length > LARGE) this.#token = Buffer.alloc(64);
    this.#bytes = 0;
    this.#state = 'start';
    this.#emit(kind, bytes);
  }
}

/** May be inside a string. */
function isText(byte: number): boolean {
  return byte >= 0x20 && byte <= 0xfd;
}

/** Ends the skipping after a stray byte. */
function ends(byte: number): boolean {
  return (byte < 0x20 && byte !== 0x09) || byte >= 0xfe || STRUCTURE[byte] !== undefined;
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}

function isLetter(byte: number): boolean {
  return byte >= 0x61 && byte <= 0x7a;
}

function firstState(byte: number): State | undefined {
  if (byte === 0x22) return '"';
  if (byte === 0x27) return "'";
  if (byte === 0x2d) return 'sign';
  if (byte === 0x30) return 'zero';
  if (isDigit(byte)) return 'digits';
  return isLetter(byte) ? 'letters' : undefined;
}

type ByteClass = '0' | '1' | '.' | 'e' | 'E' | '-' | '+' | 'a' | 'other';

const DIGITS = (next: Next): Readonly<Partial<Record<ByteClass, Next>>> => ({ 0: next, 1: next });

type Next = State | 'stray';

/** What is not listed ends the token, where it may end there, and is stray otherwise. */
const FOLLOW: Readonly<Partial<Record<State, Readonly<Partial<Record<ByteClass, Next>>>>>> = {
  sign: { 0: 'zero', 1: 'digits' },
  zero: { ...DIGITS('stray'), '.': 'point' },
  digits: { ...DIGITS('digits'), '.': 'point', e: 'exponent', E: 'exponent' },
  point: DIGITS('fraction'),
  fraction: { ...DIGITS('fraction'), e: 'exponent', E: 'exponent' },
  exponent: { ...DIGITS('exponent digits'), '-': 'exponent sign', '+': 'exponent sign' },
  'exponent sign': DIGITS('exponent digits'),
  'exponent digits': DIGITS('exponent digits'),
  letters: { a: 'letters', e: 'letters' },
};

/** Null where the token ends before this byte. */
function follow(state: State, byte: number): Next | null {
  return FOLLOW[state]?.[classOf(byte)] ?? (ENDS[state] === undefined ? 'stray' : null);
}

function classOf(byte: number): ByteClass {
  if (isDigit(byte)) return byte === 0x30 ? '0' : '1';
  switch (byte) {
    case 0x2e: return '.';
    case 0x65: return 'e';
    case 0x45: return 'E';
    case 0x2d: return '-';
    case 0x2b: return '+';
    default: return isLetter(byte) ? 'a' : 'other';
  }
}
