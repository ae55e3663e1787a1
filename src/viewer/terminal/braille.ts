/** A canvas of dots, two wide and four high to a cell (Unicode's braille patterns), each dot in a class that becomes a colour. */
import type { Grid } from './grid.js';

/** Bits of the dots of a cell, by row and column. */
const DOTS = [0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80] as const;
export const DOT_COLUMNS = 2;
export const DOT_ROWS = 4;

/** What a canvas shows of a class of dots. */
export interface DotClass {
  readonly style: number;
  /** Shown instead of dots where there are no colours or no braille. */
  readonly letter: string;
}

export class DotCanvas {
  readonly columns: number;
  readonly rows: number;
  readonly #classes: number;
  readonly #dots: Uint8Array;
  /** How often each class hit each cell. */
  readonly #hits: Uint32Array;

  /** In cells; classes are numbers below `classes`. */
  constructor(columns: number, rows: number, classes: number) {
    this.columns = columns;
    this.rows = rows;
    this.#classes = classes;
    this.#dots = new Uint8Array(columns * rows);
    this.#hits = new Uint32Array(columns * rows * classes);
  }

  get dotColumns(): number {
    return this.columns * DOT_COLUMNS;
  }

  get dotRows(): number {
    return this.rows * DOT_ROWS;
  }

  /** Row 0 is at the top; `weight` is how many hit the dot. Out of the canvas, nothing. */
  dot(x: number, y: number, kind: number, weight = 1): void {
    if (x < 0 || y < 0 || x >= this.dotColumns || y >= this.dotRows) return;
    const cell = Math.floor(y / DOT_ROWS) * this.columns + Math.floor(x / DOT_COLUMNS);
    this.#dots[cell]! |= DOTS[(y % DOT_ROWS) * DOT_COLUMNS + (x % DOT_COLUMNS)]!;
    this.#hits[cell * this.#classes + kind]! += weight;
  }

  /** A rectangle of dots, corners included, cut to the canvas. */
  box(left: number, top: number, right: number, bottom: number, kind: number): void {
    for (let y = Math.max(0, top); y <= Math.min(bottom, this.dotRows - 1); y++) {
      for (let x = Math.max(0, left); x <= Math.min(right, this.dotColumns - 1); x++) this.dot(x, y, kind);
    }
  }

  /** The braille character of a cell, ' ' where it is empty. */
  cell(column: number, row: number): string {
    const dots = this.#dots[row * this.columns + column]!;
    return dots === 0 ? ' ' : String.fromCharCode(0x2800 + dots);
  }

  /** The class that hit a cell most, -1 for none; the later one of equals. */
  kind(column: number, row: number): number {
    const at = (row * this.columns + column) * this.#classes;
    let best = -1;
    let most = 1;
    for (let kind = 0; kind < this.#classes; kind++) {
      if (this.#hits[at + kind]! < most) continue;
      best = kind;
      most = this.#hits[at + kind]!;
    }
    return best;
  }

  /** Puts the canvas on a grid, as dots or as letters of the classes. */
  draw(grid: Grid, left: number, top: number, classes: readonly DotClass[], letters: boolean): void {
    for (let row = 0; row < this.rows; row++) {
      for (let column = 0; column < this.columns; column++) {
        const kind = this.kind(column, row);
        if (kind < 0) continue;
        const { style, letter } = classes[kind]!;
        grid.set(left + column, top + row, letters ? letter : this.cell(column, row), style);
      }
    }
  }
}
