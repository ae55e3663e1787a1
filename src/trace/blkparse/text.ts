/** Text as bytes: one large buffer that numbers are written into digit by digit, for a string per field would take longer than reading the trace. */

const FLUSH_BYTES = 1024 * 1024;
const SPACE = 0x20;
const ZERO = 0x30;
const MINUS = 0x2d;

/** The four digits of each number below 10000. */
const QUADS = new Uint8Array(40_000);
for (let value = 0; value < 10_000; value++) {
  QUADS[4 * value] = ZERO + Math.floor(value / 1000);
  QUADS[4 * value + 1] = ZERO + Math.floor(value / 100) % 10;
  QUADS[4 * value + 2] = ZERO + Math.floor(value / 10) % 10;
  QUADS[4 * value + 3] = ZERO + value % 10;
}

export class TextBuffer {
  #bytes = new Uint8Array(FLUSH_BYTES + 4096);
  #length = 0;

  /** Whether it is time to take what there is. */
  get ripe(): boolean { return this.#length >= FLUSH_BYTES; }

  /** What was written since the last call; lent until something is written. */
  take(): Uint8Array {
    const taken = this.#bytes.subarray(0, this.#length);
    this.#length = 0;
    return taken;
  }

  /** Makes room, so that the next writes need not look for it. */
  reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(2 * this.#bytes.length, this.#length + bytes));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }

  byte(value: number): void {
    this.#bytes[this.#length++] = value;
  }

  /** Short ones, in room that is reserved. */
  raw(bytes: Uint8Array): void {
    const into = this.#bytes;
    let at = this.#length;
    for (let index = 0; index < bytes.length; index++) into[at++] = bytes[index]!;
    this.#length = at;
  }

  /** Of any length. */
  text(text: string | Uint8Array): void {
    const bytes = typeof text === 'string' ? Buffer.from(text, 'latin1') : text;
    this.reserve(bytes.length + 256);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** A whole number, at least `width` characters: spaces before it, or behind it where `width` is negative. */
  number(value: number, width = 0): void {
    const into = this.#bytes;
    const negative = value < 0;
    let rest = negative ? -value : value;
    let digits = negative ? 1 : 0;
    digits += rest < 1e5 ? (rest < 100 ? (rest < 10 ? 1 : 2) : rest < 1e4 ? (rest < 1e3 ? 3 : 4) : 5) : countDigits(rest);
    let at = this.#length;
    for (let pad = width - digits; pad > 0; pad--) into[at++] = SPACE;
    const start = at;
    at += digits;
    this.#length = at;
    while (rest >= 10_000) {
      const upper = Math.floor(rest / 10_000);
      const quad = 4 * (rest - upper * 10_000);
      at -= 4;
      into[at] = QUADS[quad]!;
      into[at + 1] = QUADS[quad + 1]!;
      into[at + 2] = QUADS[quad + 2]!;
      into[at + 3] = QUADS[quad + 3]!;
      rest = upper;
    }
    const first = negative ? start + 1 : start;
    for (let quad = 4 * rest + 3; at > first; quad--) into[--at] = QUADS[quad]!;
    if (negative) into[start] = MINUS;
    for (let pad = -width - digits; pad > 0; pad--) into[this.#length++] = SPACE;
  }

  /** Nine digits: what is behind the point of seconds. */
  nanoseconds(value: number): void {
    const into = this.#bytes;
    const at = this.#length;
    const upper = Math.floor(value / 10_000);
    const first = Math.floor(upper / 10_000);
    const middle = 4 * (upper - first * 10_000);
    const last = 4 * (value - upper * 10_000);
    into[at] = ZERO + first;
    into[at + 1] = QUADS[middle]!;
    into[at + 2] = QUADS[middle + 1]!;
    into[at + 3] = QUADS[middle + 2]!;
    into[at + 4] = QUADS[middle + 3]!;
    into[at + 5] = QUADS[last]!;
    into[at + 6] = QUADS[last + 1]!;
    into[at + 7] = QUADS[last + 2]!;
    into[at + 8] = QUADS[last + 3]!;
    this.#length = at + 9;
  }
}

function countDigits(value: number): number {
  let digits = 5;
  for (let bound = 1e5; value >= bound; bound *= 10) digits++;
  return digits;
}

/** As C's `%*s` (`-` for a negative width) pads bytes. */
export function padded(bytes: Uint8Array, width: number): Uint8Array {
  const missing = Math.abs(width) - bytes.length;
  if (missing <= 0) return bytes;
  const out = Buffer.alloc(Math.abs(width), SPACE);
  out.set(bytes, width < 0 ? 0 : missing);
  return out;
}
