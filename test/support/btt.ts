/** What btt prints, as numbers. */
export interface BttText {
  /** `Q2C` and so on: seconds. */
  readonly rows: Readonly<Record<string, { readonly min: number; readonly avg: number; readonly max: number; readonly n: number }>>;
  /** Lines of the other sections by their title, for each device: the numbers in them. */
  readonly devices: Readonly<Record<string, readonly (readonly number[])[]>>;
}

export function parseBtt(text: string): BttText {
  const rows: Record<string, { min: number; avg: number; max: number; n: number }> = {};
  const devices: Record<string, number[][]> = {};
  let section = '';
  for (const line of text.split('\n')) {
    section = /^=+ (.*?) =+$/.exec(line)?.[1] ?? section;
    const [, name, ...numbers] = /^([A-Z]2[A-Z])\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+(\d+)$/.exec(line) ?? [];
    if (name !== undefined) {
      const [min, avg, max, n] = numbers.map(Number);
      rows[name] = { min: min!, avg: avg!, max: max!, n: n! };
    }
    const [, cells] = /^ ?\(\s*\d+,\s*\d+\)\s*\|(.*)$/.exec(line) ?? [];
    if (cells !== undefined) (devices[section] ??= []).push([...cells.matchAll(/\d+(?:\.\d+)?/g)].map(([number]) => Number(number)));
  }
  return { rows, devices };
}
