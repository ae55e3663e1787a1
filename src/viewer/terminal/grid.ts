/** A screen in memory, and the bytes that turn one into the next. */
import { styleSequence, type ColourDepth } from './style.js';
import { glyphsOf } from './text.js';

export interface Rect {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** Cells of one column each. The second one of a wide character is ''. */
export class Grid {
  readonly columns: number;
  readonly rows: number;
  readonly ascii: boolean;
  readonly texts: string[];
  readonly styles: Uint32Array;

  constructor(columns: number, rows: number, ascii = false) {
    this.columns = columns;
    this.rows = rows;
    this.ascii = ascii;
    this.texts = Array.from({ length: columns * rows }, () => ' ');
    this.styles = new Uint32Array(columns * rows);
  }

  /** One glyph that takes one column; out of the grid, nothing. Half of a wide character that stood there goes. */
  set(column: number, row: number, text: string, style = 0): void {
    if (column < 0 || row < 0 || column >= this.columns || row >= this.rows) return;
    const at = row * this.columns + column;
    if (text !== '' && this.texts[at] === '') this.texts[at - 1] = ' ';
    if (column + 1 < this.columns && this.texts[at + 1] === '') this.texts[at + 1] = ' ';
    this.texts[at] = text;
    this.styles[at] = style;
  }

  /** Writes a text and returns the column behind it. What does not fit before `end` is cut; a wide character is never halved. */
  write(column: number, row: number, text: string, style = 0, end = this.columns): number {
    const limit = Math.min(end, this.columns);
    if (row < 0 || row >= this.rows) return column;
    for (const { text: glyph, width } of glyphsOf(text, this.ascii)) {
      if (column + width > limit) break;
      this.set(column, row, glyph, style);
      if (width === 2) this.set(column + 1, row, '', style);
      column += width;
    }
    return column;
  }

  /** Changes the style of what stands there. */
  restyle({ left, top, width, height }: Rect, change: (style: number) => number): void {
    for (let row = Math.max(0, top); row < Math.min(this.rows, top + height); row++) {
      for (let column = Math.max(0, left); column < Math.min(this.columns, left + width); column++) {
        const at = row * this.columns + column;
        this.styles[at] = change(this.styles[at]!);
      }
    }
  }

  /** Lines of text, without spaces at their ends; with escape sequences of colours where there are some. */
  lines(depth: ColourDepth = 'none'): string[] {
    return Array.from({ length: this.rows }, (_, row) => depth === 'none' ? this.#plainLine(row) : this.#colouredLine(row, depth));
  }

  #plainLine(row: number): string {
    return this.texts.slice(row * this.columns, (row + 1) * this.columns).join('').trimEnd();
  }

  #colouredLine(row: number, depth: ColourDepth): string {
    let end = (row + 1) * this.columns;
    while (end > row * this.columns && this.texts[end - 1] === ' ') end--;
    let line = '';
    let style = 0;
    for (let at = row * this.columns; at < end; at++) {
      if (this.styles[at] !== style) line += styleSequence(style = this.styles[at]!, depth);
      line += this.texts[at];
    }
    return style === 0 ? line : `${line}\u001b[0m`;
  }
}

/** Knows what a terminal shows, and writes only the cells that change. */
export class Painter {
  readonly #depth: ColourDepth;
  #shown: Grid | null = null;

  constructor(depth: ColourDepth) {
    this.#depth = depth;
  }

  /** The terminal may show anything now: the next picture is written whole. */
  forget(): void {
    this.#shown = null;
  }

  /** The bytes that make the terminal show `next`; '' where it does already. */
  paint(next: Grid): string {
    const before = this.#shown;
    const same = before !== null && before.columns === next.columns && before.rows === next.rows;
    let bytes = '';
    let style = -1;
    for (let row = 0; row < next.rows; row++) {
      // the column where the cursor is, if it is in this row
      let cursor = -1;
      for (let column = 0; column < next.columns; column++) {
        const at = row * next.columns + column;
        const text = next.texts[at]!;
        // a wide character is written with its first cell
        if (text === '' || (same && before.texts[at] === text && before.styles[at] === next.styles[at])) continue;
        if (cursor !== column) bytes += `\u001b[${row + 1};${column + 1}H`;
        if (next.styles[at] !== style) bytes += styleSequence(style = next.styles[at]!, this.#depth);
        bytes += text;
        cursor = column + (next.texts[at + 1] === '' && column + 1 < next.columns ? 2 : 1);
      }
    }
    this.#shown = next;
    if (same) return bytes === '' ? '' : `${bytes}\u001b[0m`;
    return `\u001b[0m\u001b[2J${bytes}\u001b[0m`;
  }
}
