/** As much of a terminal as the viewer uses: cursor addressing, clearing, styles (ignored), and wide characters. */
import { glyphsOf } from '../../src/viewer/terminal/text.js';

const ESC = String.fromCharCode(27);

export class FakeScreen {
  readonly #columns: number;
  #cells: string[][];

  constructor(columns: number, rows: number) {
    this.#columns = columns;
    this.#cells = this.#empty(rows);
  }

  /** Throws on a sequence that it does not know. */
  write(bytes: string): void {
    let [row, column] = [0, 0];
    for (const part of bytes.split(ESC).map((text, index) => index === 0 ? text : ESC + text)) {
      const [sequence, parameters, final] = new RegExp(`^${ESC}\\[([\\d;]*)([A-Za-z])`).exec(part) ?? ['', '', ''];
      if (part.startsWith(ESC) && !['H', 'm', 'J'].includes(final)) throw new Error(`the sequence ${JSON.stringify(part)}`);
      if (final === 'J') this.#cells = this.#empty(this.#cells.length);
      if (final === 'H') [row, column] = parameters.split(';').map((number) => Number(number) - 1) as [number, number];
      for (const { text, width } of glyphsOf(part.slice(sequence.length))) {
        if (row >= this.#cells.length || column + width > this.#columns) throw new Error(`wrote beside the screen: ${JSON.stringify(part)} at ${column},${row}`);
        this.#put(row, column, text, width);
        column += width;
      }
    }
  }

  lines(): string[] {
    return this.#cells.map((cells) => cells.join('').trimEnd());
  }

  #empty(rows: number): string[][] {
    return Array.from({ length: rows }, () => Array.from({ length: this.#columns }, () => ' '));
  }

  /** Half of a wide character that stood there goes. */
  #put(row: number, column: number, text: string, width: number): void {
    const cells = this.#cells[row]!;
    for (let at = column; at < column + width; at++) {
      if (cells[at] === '') cells[at - 1] = ' ';
      if (cells[at + 1] === '') cells[at + 1] = ' ';
    }
    cells[column] = text;
    if (width === 2) cells[column + 1] = '';
  }
}
