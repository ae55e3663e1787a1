/**
 * Names from traces, fit for a terminal: how many columns they take, and nothing in them that could move its cursor. Process names and
 * messages are bytes that anybody chose.
 */

/** Wide and full-width blocks of East Asian Width (Unicode, UAX 11), first and last code point. */
const WIDE: readonly (readonly [number, number])[] = [
  [0x1100, 0x115f], [0x2e80, 0x303e], [0x3041, 0x33ff], [0x3400, 0x4dbf], [0x4e00, 0x9fff], [0xa000, 0xa4cf], [0xa960, 0xa97f], [0xac00, 0xd7a3],
  [0xf900, 0xfaff], [0xfe30, 0xfe6f], [0xff01, 0xff60], [0xffe0, 0xffe6], [0x17000, 0x18cff], [0x1b000, 0x1b2ff], [0x20000, 0x3fffd],
];
const EMOJI = /\p{Emoji_Presentation}/u;
/** Stands on the character before it. */
const COMBINING = /[\p{Mn}\p{Me}]/u;
/** Invisible: joiners, direction marks and their like, which would turn around what stands beside them. */
const FORMAT = /[\p{Cf}\u{e0000}-\u{e0fff}]/u;
/** Controls, halves of surrogate pairs, private and unassigned code points: nobody knows what a terminal does with them. */
const UNSAFE = /[\p{Cc}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/u;
const MARKS_PER_CHARACTER = 2;

/** What takes one place on the screen: a character with its marks, and how many columns it takes. */
export interface Glyph {
  readonly text: string;
  readonly width: 1 | 2;
}

function isWide(character: string): boolean {
  const code = character.codePointAt(0)!;
  if (code < 0x1100) return false;
  return WIDE.some(([first, last]) => code >= first && code <= last) || EMOJI.test(character);
}

/** A text in places of the screen; what may not reach a terminal is replaced or left out. With `ascii`, so is all that is not ASCII. */
export function glyphsOf(text: string, ascii = false): Glyph[] {
  const glyphs: Glyph[] = [];
  let marks = 0;
  for (const character of text) {
    if (character >= ' ' && character <= '~') {
      glyphs.push({ text: character, width: 1 });
      marks = 0;
    } else if (FORMAT.test(character)) {
      continue;
    } else if (COMBINING.test(character)) {
      const before = glyphs.at(-1);
      if (ascii || before === undefined || marks++ >= MARKS_PER_CHARACTER) continue;
      glyphs[glyphs.length - 1] = { text: before.text + character, width: before.width };
    } else {
      glyphs.push(replaced(character, ascii));
      marks = 0;
    }
  }
  return glyphs;
}

function replaced(character: string, ascii: boolean): Glyph {
  if (ascii) return { text: ASCII_FORMS[character] ?? '?', width: 1 };
  if (UNSAFE.test(character)) return { text: '\ufffd', width: 1 };
  return { text: character, width: isWide(character) ? 2 : 1 };
}

/** What our own words use, where only ASCII can be shown. */
const ASCII_FORMS: Readonly<Record<string, string>> = {
  '…': '.', '·': '|', '–': '-', '—': '-', '→': '>', '←': '<', '↑': '^', '↓': 'v', 'µ': 'u', '│': '|', '─': '-', '▸': '>', '└': '`', '×': 'x', '●': '*', '≥': '>',
  '━': '=', '╌': '.', '▏': '|', '█': '#', '’': '\'', '“': '"', '”': '"', '\u00a0': ' ', '▶': '>', '├': '+', '┊': ':',
};

/** Columns that a text takes on the screen. */
export function widthOf(text: string): number {
  return glyphsOf(text).reduce((sum, { width }) => sum + width, 0);
}

/** At most `columns` wide; a text that is longer ends with `…`. */
export function clip(text: string, columns: number): string {
  const glyphs = glyphsOf(text);
  let width = 0;
  let fitting = '';
  let all = '';
  for (const glyph of glyphs) {
    width += glyph.width;
    if (width > columns) return columns > 0 ? `${fitting}…` : '';
    all += glyph.text;
    if (width <= columns - 1) fitting = all;
  }
  return all;
}

/** Exactly `columns` wide. */
export function fit(text: string, columns: number, side: 'left' | 'right' = 'left'): string {
  const clipped = clip(text, columns);
  const space = ' '.repeat(Math.max(0, columns - widthOf(clipped)));
  return side === 'left' ? clipped + space : space + clipped;
}

/** In lines of at most `columns`, broken between words. */
export function wrap(text: string, columns: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && widthOf(line) + 1 + widthOf(word) > columns) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
