/** Results on standard output: text, tables, JSON. */

export interface Column<T> {
  readonly title: string;
  readonly align?: 'left' | 'right';
  value(row: T): string | number | bigint;
}

export interface Output {
  line(text?: string): void;
  /** Resolves once they are written: what is given is not kept. */
  bytes(data: Uint8Array): Promise<void>;
  /** Pretty JSON; a bigint becomes a number where it fits into one exactly, else a string of digits. */
  json(value: unknown): void;
  table<T>(rows: readonly T[], columns: readonly Column<T>[]): void;
}

/** `done` is called once what was given is written, or with an error. */
type WriteOut = (data: string | Uint8Array, done?: (error?: Error | null) => void) => void;

export function createOutput(write: WriteOut): Output {
  return {
    bytes: (data) => new Promise((resolve, reject) => write(data, (error) => (error ? reject(error) : resolve()))),
    line: (text = '') => write(`${text}\n`),
    json: (value) => write(`${formatJson(value)}\n`),
    table: (rows, columns) => write(formatTable(rows, columns)),
  };
}

export function formatJson(value: unknown): string {
  return JSON.stringify(value, (_, field: unknown) => (typeof field === 'bigint' ? jsonBigint(field) : field), 2);
}

function jsonBigint(value: bigint): number | string {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value.toString();
}

export function formatTable<T>(rows: readonly T[], columns: readonly Column<T>[]): string {
  const cells = [columns.map((column) => column.title), ...rows.map((row) => columns.map((column) => String(column.value(row))))];
  const widths = columns.map((_, index) => Math.max(...cells.map((line) => line[index]!.length)));
  return cells.map((line) => {
    const padded = line.map((cell, index) => (columns[index]!.align === 'right' ? cell.padStart(widths[index]!) : cell.padEnd(widths[index]!)));
    return `${padded.join('  ').trimEnd()}\n`;
  }).join('');
}
