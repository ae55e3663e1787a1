/** The last requests of a trace that goes on: memory is that of so many, however long it goes. */
import { Kind, NONE, type OpenIos } from '../trace/analysis/open-ios.js';
import type { PairingListener } from '../trace/analysis/pairing-listener.js';
import type { IoTable } from '../trace/traced-io.js';

const NUMBERS = ['device', 'bytes', 'category', 'pid'] as const;
const TIMES = ['sector', 'queued', 'gotRequest', 'inserted', 'issued', 'completed'] as const;
const SHORTS = ['error', 'cause'] as const;
const LINKS = ['parent', 'mergedInto'] as const;

type Columns = Record<(typeof NUMBERS)[number], Uint32Array> & Record<(typeof TIMES)[number], Float64Array>
  & Record<(typeof SHORTS)[number], Uint16Array> & Record<(typeof LINKS)[number], Int32Array>;

function columnsOf(rows: number): Columns {
  const made: Partial<Columns> = {};
  for (const name of NUMBERS) made[name] = new Uint32Array(rows);
  for (const name of TIMES) made[name] = new Float64Array(rows);
  for (const name of SHORTS) made[name] = new Uint16Array(rows);
  for (const name of LINKS) made[name] = new Int32Array(rows);
  return made as Columns;
}

/** What the table cannot know by itself. */
export type RollingFacts = Pick<IoTable, 'processes' | 'deviceNames' | 'causes' | 'endNs'>;

export class RollingTable implements PairingListener {
  readonly #ios: OpenIos;
  readonly #capacity: number;
  readonly #closed: Columns;
  /** The id whose columns a place holds, NONE for nobody's. */
  readonly #ids: Int32Array;

  /** Hears of what `ios` closes; keeps `capacity` requests. */
  constructor(ios: OpenIos, capacity: number) {
    this.#ios = ios;
    this.#capacity = capacity;
    this.#closed = columnsOf(capacity);
    this.#ids = new Int32Array(capacity).fill(NONE);
  }

  requestClosed(slot: number): void {
    const id = this.#ios.id[slot]!;
    const place = id % this.#capacity;
    // one that was open for so long that its place was taken is forgotten
    if (this.#ids[place]! > id) return;
    this.#ids[place] = id;
    this.#copy(slot, this.#closed, place);
  }

  /** Requests of which nothing more is known since they are too old are not there; those that are under way are. `rowOf` an id: -1 for none. */
  snapshot({ processes, deviceNames, causes, endNs }: RollingFacts): { readonly table: IoTable; readonly rowOf: (id: number) => number } {
    const first = Math.max(0, this.#ios.opens - this.#capacity);
    const rowOfId = new Int32Array(this.#ios.opens - first).fill(NONE);
    const slotOfId = this.#openSlots(first);
    let count = 0;
    for (let id = first; id < this.#ios.opens; id++) {
      if (this.#ids[id % this.#capacity] === id || slotOfId.has(id)) rowOfId[id - first] = count++;
    }
    const columns = columnsOf(count);
    for (let id = first; id < this.#ios.opens; id++) {
      const row = rowOfId[id - first]!;
      if (row === NONE) continue;
      const slot = slotOfId.get(id);
      if (slot === undefined) this.#move(id % this.#capacity, columns, row);
      else this.#copy(slot, columns, row);
      for (const name of LINKS) columns[name][row] = columns[name][row]! >= first ? rowOfId[columns[name][row]! - first]! : NONE;
    }
    return { table: { ...columns, count, causes, processes, deviceNames, endNs }, rowOf: (id) => rowOfId[id - first] ?? NONE };
  }

  #openSlots(first: number): Map<number, number> {
    const ios = this.#ios;
    const slots = new Map<number, number>();
    for (let slot = ios.oldest; slot !== NONE; slot = ios.newer[slot]!) if (ios.kind[slot] === Kind.IO && ios.id[slot]! >= first) slots.set(ios.id[slot]!, slot);
    return slots;
  }

  #copy(slot: number, to: Columns, row: number): void {
    const ios = this.#ios;
    for (const name of NUMBERS) to[name][row] = ios[name][slot]!;
    for (const name of TIMES) to[name][row] = ios[name][slot]!;
    for (const name of SHORTS) to[name][row] = ios[name][slot]!;
    for (const name of LINKS) to[name][row] = ios[name][slot]!;
    to.sector[row] = Math.max(0, ios.sector[slot]!);
  }

  #move(place: number, to: Columns, row: number): void {
    const from = this.#closed;
    for (const name of NUMBERS) to[name][row] = from[name][place]!;
    for (const name of TIMES) to[name][row] = from[name][place]!;
    for (const name of SHORTS) to[name][row] = from[name][place]!;
    for (const name of LINKS) to[name][row] = from[name][place]!;
  }
}
