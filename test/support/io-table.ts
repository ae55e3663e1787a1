/** Made-up traces for tests of what shows them: guests' requests, and what three layers below made of them. */
import { Random } from '../../src/base/clock.js';
import { Category, deviceOf, QUIESCE_MAJOR, SECTOR_BYTES } from '../../src/trace/record.js';
import type { IoTable } from '../../src/trace/traced-io.js';

export const GUEST = deviceOf(QUIESCE_MAJOR, 0);
export const DATA = deviceOf(QUIESCE_MAJOR, 1);
export const METADATA = deviceOf(QUIESCE_MAJOR, 2);
export const HOST = deviceOf(QUIESCE_MAJOR, 3);

/** One request as tests write it; what is not said is not known or nothing. */
export interface MadeIo {
  readonly device?: number;
  readonly sector?: number;
  readonly bytes?: number;
  readonly category?: number;
  readonly pid?: number;
  readonly queued: number;
  readonly gotRequest?: number;
  readonly inserted?: number;
  readonly issued?: number;
  readonly completed?: number;
  readonly error?: number;
  /** Places in the list given. */
  readonly parent?: number;
  readonly mergedInto?: number;
  readonly cause?: string;
}

interface Columns extends IoTable {
  readonly causes: string[];
}

const NAMES: ReadonlyMap<number, string> = new Map([[GUEST, 'guest disk'], [DATA, 'qcow2 data'], [METADATA, 'qcow2 metadata'], [HOST, 'host file']]);
const PROCESSES: ReadonlyMap<number, string> = new Map([[100, 'fio'], [101, 'mirror'], [102, 'nbd-client'], [103, 'backup']]);

function columns(count: number, endNs: number): Columns {
  const times = (): Float64Array => new Float64Array(count).fill(Number.NaN);
  return {
    count, endNs, processes: PROCESSES, deviceNames: NAMES, causes: [''],
    device: new Uint32Array(count), sector: new Float64Array(count), bytes: new Uint32Array(count), category: new Uint32Array(count), pid: new Uint32Array(count),
    queued: times(), gotRequest: times(), inserted: times(), issued: times(), completed: times(), error: new Uint16Array(count),
    parent: new Int32Array(count).fill(-1), mergedInto: new Int32Array(count).fill(-1), cause: new Uint16Array(count),
  };
}

/** A table of these requests, which are in order of `queued`. */
export function tableOf(made: readonly MadeIo[], endNs = made.reduce((last, { queued, completed = 0 }) => Math.max(last, queued, completed), 0)): IoTable {
  const table = columns(made.length, endNs);
  made.forEach((io, row) => {
    table.device[row] = io.device ?? HOST;
    table.sector[row] = io.sector ?? 0;
    table.bytes[row] = io.bytes ?? 4096;
    table.category[row] = io.category ?? Category.READ;
    table.pid[row] = io.pid ?? 100;
    table.queued[row] = io.queued;
    for (const name of ['gotRequest', 'inserted', 'issued', 'completed'] as const) table[name][row] = io[name] ?? Number.NaN;
    table.error[row] = io.error ?? 0;
    table.parent[row] = io.parent ?? -1;
    table.mergedInto[row] = io.mergedInto ?? -1;
    const cause = io.cause ?? '';
    if (!table.causes.includes(cause)) table.causes.push(cause);
    table.cause[row] = table.causes.indexOf(cause);
  });
  return table;
}

/** Requests of one guest's request, with that itself. */
const GROUP = 4;
const DISK_SECTORS = 2 ** 27;
/** The process that reads and writes one block after the other. */
const SEQUENTIAL = 1;

function guestRequest(random: Random, sequential: number): { process: number; category: number; sector: number; bytes: number } {
  const process = random.next32() % 4;
  const dice = random.next32() % 100;
  const bytes = 4096 * 2 ** (random.next32() % 6);
  const sector = (random.next32() % (DISK_SECTORS / 8)) * 8;
  if (process === SEQUENTIAL) return { process, category: Category.WRITE, sector: sequential % DISK_SECTORS, bytes };
  if (dice === 0) return { process, category: Category.FLUSH + Category.WRITE, sector: 0, bytes: 0 };
  return { process, category: dice === 1 ? Category.DISCARD + Category.WRITE : dice < 40 ? Category.WRITE : Category.READ, sector, bytes };
}

/**
 * About `count` requests over `seconds`: a guest's request every so often, each with one of qcow2, one for its metadata and one
 * of the host file below it; four processes, one sequential; reads, writes, flushes, discards, errors, and a stall in which the depth grows.
 */
export function makeTable(count: number, { seed = 1, seconds = 10 } = {}): IoTable {
  const random = new Random(seed);
  const groups = Math.ceil(count / GROUP);
  const made = columns(groups * GROUP, seconds * 1e9);
  made.causes.push('l2-alloc', 'cow', 'refcount');
  const step = (seconds * 1e9) / (groups + 1);
  let sequential = 0;
  for (let group = 0; group < groups; group++) {
    const guest = guestRequest(random, sequential);
    if (guest.process === SEQUENTIAL) sequential = guest.sector + guest.bytes / SECTOR_BYTES;
    const stalled = group % 1000 > 900 ? 40 : 1;
    const queued = Math.floor((group + 0.5) * step);
    const latency = Math.floor((20_000 + (random.next32() % 100_000) ** 1.1) * stalled);
    for (let layer = 0; layer < GROUP; layer++) {
      const row = group * GROUP + layer;
      const metadata = layer === 2;
      made.device[row] = [GUEST, DATA, METADATA, HOST][layer]!;
      made.sector[row] = guest.sector + 128 * layer;
      made.bytes[row] = metadata ? 4096 : guest.bytes;
      made.category[row] = metadata ? Category.WRITE + Category.META : guest.category;
      made.pid[row] = 100 + guest.process;
      const at = queued + layer * 400;
      const issued = at + 300 + (random.next32() % 1000);
      made.queued[row] = at;
      made.gotRequest[row] = at + 100;
      made.inserted[row] = at + 200;
      made.issued[row] = issued;
      made.completed[row] = Math.min(made.endNs, issued + latency - layer * 500);
      made.error[row] = random.next32() % 5000 === 0 ? 5 : 0;
      made.parent[row] = layer === 0 ? -1 : group * GROUP + [0, 0, 0, 1][layer]!;
      made.cause[row] = metadata ? 1 + (random.next32() % 3) : 0;
    }
  }
  return inOrder(made);
}

/** Rows in order of `queued`, with the links between them. */
function inOrder(table: Columns): IoTable {
  const order = Array.from({ length: table.count }, (_, row) => row).sort((a, b) => table.queued[a]! - table.queued[b]!);
  const place = new Int32Array(table.count);
  order.forEach((row, to) => { place[row] = to; });
  const sorted = columns(table.count, table.endNs);
  sorted.causes.splice(0, 1, ...table.causes);
  const same = ['device', 'sector', 'bytes', 'category', 'pid', 'queued', 'gotRequest', 'inserted', 'issued', 'completed', 'error', 'cause'] as const;
  for (const name of same) order.forEach((row, to) => { sorted[name][to] = table[name][row]!; });
  for (const name of ['parent', 'mergedInto'] as const) {
    order.forEach((row, to) => { sorted[name][to] = table[name][row]! < 0 ? -1 : place[table[name][row]!]!; });
  }
  return sorted;
}
