/**
 * A table as bytes, for a page that carries its trace: columns of numbers, each as differences to what is most likely, in 1 to 8 bytes. Times are exact.
 */
import type { IoTable } from '../trace/traced-io.js';
import type { Overview, OverviewFacts, PreparedView } from './answers.js';
import { decode, encode } from './wire.js';

/** Numbers in 7 bits a byte, the lowest first; the highest bit says that more follow. */
class NumberWriter {
  #bytes = new Uint8Array(1 << 16);
  #length = 0;

  /** Any integer up to 2^52 to either side: the sign goes into the lowest bit. */
  signed(value: number): void {
    this.unsigned(value < 0 ? -2 * value - 1 : 2 * value);
  }

  unsigned(value: number): void {
    if (this.#length + 8 > this.#bytes.length) {
      const larger = new Uint8Array(this.#bytes.length * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    let rest = value;
    for (; rest >= 128; rest = Math.floor(rest / 128)) this.#bytes[this.#length++] = (rest % 128) + 128;
    this.#bytes[this.#length++] = rest;
  }

  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }
}

class NumberReader {
  #next = 0;

  constructor(readonly bytes: Uint8Array) {}

  signed(): number {
    const value = this.unsigned();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  unsigned(): number {
    let value = 0;
    for (let unit = 1; ; unit *= 128) {
      const byte = this.bytes[this.#next++]!;
      if (byte < 128) return value + byte * unit;
      value += (byte - 128) * unit;
    }
  }
}

const STEPS = ['gotRequest', 'inserted', 'issued', 'completed'] as const;
const PLAIN = ['device', 'category', 'pid', 'error', 'cause'] as const;

interface Carried {
  readonly count: number;
  readonly endNs: number;
  readonly causes: readonly string[];
  readonly processes: readonly (readonly [number, string])[];
  readonly deviceNames: readonly (readonly [number, string])[];
  readonly facts: OverviewFacts;
  readonly columns: Readonly<Record<string, Uint8Array>>;
  readonly prepared: Prepared | null;
}

/** Instead of what cannot be told from a part of the requests. */
export interface Prepared {
  readonly overview: Overview;
  readonly views: readonly PreparedView[];
}

/** What `unpackTrace` makes the same table of. It compresses well. */
export function packTrace(table: IoTable, facts: OverviewFacts, prepared: Prepared | null = null): Uint8Array<ArrayBuffer> {
  const columns: Record<string, Uint8Array> = {};
  const write = (name: string, each: (to: NumberWriter, row: number) => void): void => {
    const to = new NumberWriter();
    for (let row = 0; row < table.count; row++) each(to, row);
    columns[name] = to.finish();
  };
  write('queued', timesOf(table.queued));
  for (const name of STEPS) write(name, stepOf(table, name));
  for (const name of PLAIN) write(name, (to, row) => to.unsigned(table[name][row]!));
  write('bytes', (to, row) => to.unsigned(table.bytes[row]!));
  let before = 0;
  write('sector', (to, row) => {
    to.signed(table.sector[row]! - before);
    before = table.sector[row]!;
  });
  // links are mostly to what is near
  for (const name of ['parent', 'mergedInto'] as const) write(name, (to, row) => to.unsigned(table[name][row]! < 0 ? 0 : 1 + zigzag(row - table[name][row]!)));
  const carried: Carried = {
    count: table.count, endNs: table.endNs, causes: table.causes, processes: [...table.processes], deviceNames: [...table.deviceNames], columns, prepared,
    facts: { name: facts.name, records: facts.records, remarks: facts.remarks, findings: facts.findings },
  };
  return encode(carried);
}

const zigzag = (value: number): number => (value < 0 ? -2 * value - 1 : 2 * value);
const unzigzag = (value: number): number => (value % 2 === 0 ? value / 2 : -(value + 1) / 2);

function timesOf(times: Float64Array): (to: NumberWriter, row: number) => void {
  let before = 0;
  return (to, row) => {
    const time = times[row]!;
    if (!(time >= 0)) return to.unsigned(0);
    to.unsigned(1 + zigzag(time - before));
    before = time;
  };
}

/** The last time that is known before a step of a request: what the step is told by. */
function baseOf(table: IoTable, name: (typeof STEPS)[number], row: number): number {
  for (let place = STEPS.indexOf(name) - 1; place >= 0; place--) {
    const time = table[STEPS[place]!][row]!;
    if (time >= 0) return time;
  }
  return table.queued[row]! >= 0 ? table.queued[row]! : 0;
}

function stepOf(table: IoTable, name: (typeof STEPS)[number]): (to: NumberWriter, row: number) => void {
  return (to, row) => {
    const time = table[name][row]!;
    to.unsigned(time >= 0 ? 1 + zigzag(time - baseOf(table, name, row)) : 0);
  };
}

export function unpackTrace(bytes: ArrayBuffer): { table: IoTable; facts: OverviewFacts; prepared: Prepared | null } {
  // only `packTrace` makes what stands in a page
  const { count, endNs, causes, processes, deviceNames, columns, facts, prepared } = decode(bytes) as Carried;
  const floats = (): Float64Array => new Float64Array(count);
  const table: IoTable = {
    count, endNs, causes, processes: new Map(processes), deviceNames: new Map(deviceNames), sector: floats(), bytes: new Uint32Array(count),
    device: new Uint32Array(count), category: new Uint32Array(count), pid: new Uint32Array(count), error: new Uint16Array(count), cause: new Uint16Array(count),
    queued: floats(), gotRequest: floats(), inserted: floats(), issued: floats(), completed: floats(), parent: new Int32Array(count), mergedInto: new Int32Array(count),
  };
  const read = (name: string, each: (from: NumberReader, row: number) => void): void => {
    const from = new NumberReader(columns[name]!);
    for (let row = 0; row < count; row++) each(from, row);
  };
  let before = 0;
  read('queued', (from, row) => {
    const told = from.unsigned();
    if (told > 0) before += unzigzag(told - 1);
    table.queued[row] = told === 0 ? Number.NaN : before;
  });
  for (const name of STEPS) {
    read(name, (from, row) => {
      const told = from.unsigned();
      table[name][row] = told === 0 ? Number.NaN : baseOf(table, name, row) + unzigzag(told - 1);
    });
  }
  for (const name of PLAIN) read(name, (from, row) => { table[name][row] = from.unsigned(); });
  read('bytes', (from, row) => { table.bytes[row] = from.unsigned(); });
  let sector = 0;
  read('sector', (from, row) => { table.sector[row] = sector += from.signed(); });
  for (const name of ['parent', 'mergedInto'] as const) {
    read(name, (from, row) => {
      const told = from.unsigned();
      table[name][row] = told === 0 ? -1 : row - unzigzag(told - 1);
    });
  }
  return { table, facts, prepared };
}
