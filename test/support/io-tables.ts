/** Tables of requests made up in memory, for what draws them. */
import type { IoTable } from '../../src/trace/traced-io.js';
import { Category } from '../../src/trace/record.js';

export interface MadeUpIo {
  /** ns. */
  readonly at: number;
  /** ns from being queued to being completed; null: never. */
  readonly took?: number | null;
  readonly op?: 'R' | 'W' | 'F' | 'D';
  readonly sector?: number;
  readonly bytes?: number;
  readonly pid?: number;
  readonly device?: number;
  readonly error?: number;
  readonly parent?: number;
  readonly cause?: string;
}

export interface Names {
  readonly processes?: readonly (readonly [number, string])[];
  readonly devices?: readonly (readonly [number, string])[];
}

const CATEGORIES = { R: Category.READ, W: Category.WRITE, F: Category.WRITE + Category.FLUSH, D: Category.WRITE + Category.DISCARD } as const;

/** In the order given, which is that of time. */
export function ioTable(ios: readonly MadeUpIo[], { processes = [], devices = [] }: Names = {}): IoTable {
  const causes = ['', ...new Set(ios.flatMap(({ cause }) => cause === undefined ? [] : [cause]))];
  const column = (value: (io: MadeUpIo) => number): Float64Array => Float64Array.from(ios, value);
  const ended = ({ at, took = 100_000 }: MadeUpIo): number => took === null ? NaN : at + took;
  return {
    count: ios.length,
    device: Uint32Array.from(ios, ({ device = 8 * 0x10_0000 }) => device),
    sector: column(({ sector = 0 }) => sector),
    bytes: Uint32Array.from(ios, ({ op, bytes = 4096 }) => op === 'F' ? 0 : bytes),
    category: Uint32Array.from(ios, ({ op = 'R' }) => CATEGORIES[op]),
    pid: Uint32Array.from(ios, ({ pid = 1 }) => pid),
    queued: column(({ at }) => at),
    gotRequest: column(({ at }) => at + 1000),
    inserted: column(() => NaN),
    issued: column(({ at }) => at + 3000),
    completed: column(ended),
    error: Uint16Array.from(ios, ({ error = 0 }) => error),
    parent: Int32Array.from(ios, ({ parent = -1 }) => parent),
    mergedInto: new Int32Array(ios.length).fill(-1),
    cause: Uint16Array.from(ios, ({ cause = '' }) => causes.indexOf(cause)),
    causes,
    processes: new Map(processes),
    deviceNames: new Map(devices),
    endNs: ios.reduce((end, io) => Math.max(end, io.at, ended(io) || 0), 0),
  };
}

/** Writes one after the other, each with reads of its first and its last sector before it: the picture of read-modify-write. */
export function readModifyWrites(writes: number): IoTable {
  const ios: MadeUpIo[] = [];
  for (let write = 0; write < writes; write++) {
    const [at, sector] = [write * 1_000_000, 2048 + write * 40];
    ios.push({ at, sector, bytes: 512, took: 80_000 }, { at: at + 100_000, sector: sector + 40, bytes: 512, took: 80_000 }, { at: at + 200_000, op: 'W', sector, bytes: 41 * 512, took: 300_000 });
    if (write % 20 === 19) ios.push({ at: at + 600_000, op: 'F', took: 200_000 });
  }
  return ioTable(ios, { processes: [[1, 'qemu-system-x86']] });
}

/** A guest's requests, and what a format made of them on the host's file. */
export function layered(requests: number): IoTable {
  const [guest, host] = [4000 * 0x10_0000, 4000 * 0x10_0000 + 3];
  const ios: MadeUpIo[] = [];
  for (let request = 0; request < requests; request++) {
    const at = request * 400_000;
    const parent = ios.length;
    ios.push({ at, op: 'W', sector: request * 128, bytes: 65_536, device: guest, pid: 7, took: 350_000 });
    ios.push({ at: at + 20_000, op: 'W', sector: 4096 + request * 128, bytes: 65_536, device: host, pid: 7, took: 200_000, parent });
    if (request % 4 === 0) ios.push({ at: at + 240_000, op: 'W', sector: 512, bytes: 512, device: host, pid: 7, took: 60_000, parent, cause: 'l2-alloc' });
  }
  return ioTable(ios, { processes: [[7, 'nbd client 1']], devices: [[guest, 'guest disk vm.qcow2'], [host, 'host file vm.qcow2']] });
}
