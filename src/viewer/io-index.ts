import { majorOf, minorOf, SECTOR_BYTES } from '../trace/record.js';
import type { IoTable } from '../trace/traced-io.js';
import { latencyBucket } from './buckets.js';
import { OPS, opOf } from './operations.js';
import { orderByTime } from './order.js';

export interface TracedDevice {
  readonly device: number;
  /** `8,0`, and what a recording of ours says it is. */
  readonly name: string;
  readonly requests: number;
  /** Sectors that requests touched: [from, to). */
  readonly sectorFrom: number;
  readonly sectorTo: number;
}

export interface TracedProcess {
  readonly pid: number;
  readonly name: string;
  readonly requests: number;
}

/** What filters tell apart: indices into OPS, `devices` and `processes`. */
export interface Group {
  readonly op: number;
  readonly device: number;
  readonly process: number;
}

/** Rows in order of a time of theirs, with what each pass over them looks at. */
export interface Moments {
  readonly rows: Uint32Array;
  readonly times: Float64Array;
  readonly groups: Uint32Array;
}

/** When the device got each request and when it was done with it, in order of time. */
export interface DepthSteps {
  readonly times: Float64Array;
  /** One more than the request's group; below 0 where it ended. */
  readonly groups: Int32Array;
  /** Before each so many steps: how many of each group the device has, so that no window needs what lies further back. */
  readonly every: number;
  readonly known: Int32Array;
}

/** At least, and so many for each group, so that what is known stays small beside the steps. */
const STEPS_BETWEEN = 16_384;
const STEPS_PER_GROUP = 64;

/** What was completed. */
export interface Endings extends Moments {
  readonly bytes: Uint32Array;
  /** Buckets of Q to C and of D to C, NO_LATENCY where not known. */
  readonly q2c: Uint16Array;
  readonly d2c: Uint16Array;
}

/** Columns beside those of the table, made once, so that a redraw is no more than a few passes over a window. */
export interface IoIndex {
  readonly table: IoTable;
  /** By this time rows are in order: `queued`, or the first time that is known. */
  readonly at: Float64Array;
  /** Index into OPS. */
  readonly op: Uint8Array;
  /** Index into `devices`. */
  readonly device: Uint8Array;
  /** Index into `processes`. */
  readonly process: Uint16Array;
  /** Index into `groups`. */
  readonly group: Uint32Array;
  readonly groups: readonly Group[];
  readonly devices: readonly TracedDevice[];
  /** The busiest first. */
  readonly processes: readonly TracedProcess[];
  /** From here on, and until `completed`, the device has the request: `issued`; NaN where it never had it. */
  readonly begun: Float64Array;
  /** Requests that have begun, in order of `completed`. */
  readonly ends: Endings;
  readonly depthSteps: DepthSteps;
}

/** What comes after shares the last. */
const MAX_DEVICES = 255;
const MAX_PROCESSES = 65_535;

export function indexTable(table: IoTable): IoIndex {
  const { count } = table;
  const at = times(table);
  const op = new Uint8Array(count);
  for (let row = 0; row < count; row++) op[row] = opOf(table.category[row]!, table.bytes[row]!);
  const { devices, device } = devicesOf(table);
  const { processes, process } = processesOf(table);
  const begun = begins(table);
  const { group, groups } = groupsOf(count, { op, device, process });
  const ends = endings(table, begun, group);
  return {
    table, at, op, device, process, group, groups, devices, processes, begun, ends, depthSteps: depthSteps(moments(begun, begun, group), ends, groups.length),
  };
}

function depthSteps(begins: Moments, ends: Moments, groupCount: number): DepthSteps {
  const times = new Float64Array(begins.times.length + ends.times.length);
  const groups = new Int32Array(times.length);
  const every = Math.max(STEPS_BETWEEN, STEPS_PER_GROUP * groupCount);
  const known = new Int32Array((Math.floor(times.length / every) + 1) * groupCount);
  const now = new Int32Array(groupCount);
  let [up, down] = [0, 0];
  for (let place = 0; place < times.length; place++) {
    if (place % every === 0) known.set(now, (place / every) * groupCount);
    const goesUp = down === ends.times.length || (up < begins.times.length && begins.times[up]! <= ends.times[down]!);
    times[place] = goesUp ? begins.times[up]! : ends.times[down]!;
    const group = goesUp ? begins.groups[up++]! : ends.groups[down++]!;
    groups[place] = goesUp ? group + 1 : -1 - group;
    now[group] = now[group]! + (goesUp ? 1 : -1);
  }
  if (times.length % every === 0) known.set(now, (times.length / every) * groupCount);
  return { times, groups, every, known };
}

/** Of the rows whose `begun` is known. */
function moments(times: Float64Array, begun: Float64Array, group: Uint32Array): Moments {
  const known = times === begun ? times : times.map((time, row) => (Number.isNaN(begun[row]!) ? Number.NaN : time));
  const rows = orderByTime(known, begun.length);
  return { rows, times: gather(times, rows, new Float64Array(rows.length)), groups: gather(group, rows, new Uint32Array(rows.length)) };
}

function endings(table: IoTable, begun: Float64Array, group: Uint32Array): Endings {
  const all = moments(table.completed.subarray(0, table.count), begun, group);
  const q2c = new Uint16Array(all.rows.length);
  const d2c = new Uint16Array(all.rows.length);
  for (let place = 0; place < q2c.length; place++) {
    const row = all.rows[place]!;
    q2c[place] = latencyBucket(all.times[place]! - table.queued[row]!);
    d2c[place] = latencyBucket(all.times[place]! - begun[row]!);
  }
  return { ...all, q2c, d2c, bytes: gather(table.bytes, all.rows, new Uint32Array(all.rows.length)) };
}

function gather<T extends Float64Array | Uint32Array>(column: T, rows: Uint32Array, to: T): T {
  for (let place = 0; place < rows.length; place++) to[place] = column[rows[place]!]!;
  return to;
}

function groupsOf(count: number, columns: { readonly op: Uint8Array; readonly device: Uint8Array; readonly process: Uint16Array }): Pick<IoIndex, 'group' | 'groups'> {
  const group = new Uint32Array(count);
  const groups: Group[] = [];
  const found = new Map<number, number>();
  for (let row = 0; row < count; row++) {
    const [op, device, process] = [columns.op[row]!, columns.device[row]!, columns.process[row]!];
    const key = (process * MAX_DEVICES + device) * OPS.length + op;
    let index = found.get(key);
    if (index === undefined) {
      index = groups.push({ op, device, process }) - 1;
      found.set(key, index);
    }
    group[row] = index;
  }
  return { group, groups };
}

function times(table: IoTable): Float64Array {
  const { count, queued } = table;
  let known = true;
  for (let row = 0; row < count && known; row++) known = queued[row]! >= 0;
  if (known) return queued;
  const at = queued.slice(0, count);
  let before = 0;
  for (let row = 0; row < count; row++) {
    const first = [queued, table.gotRequest, table.inserted, table.issued, table.completed].find((column) => column[row]! >= 0);
    // whatever a recording holds, binary search needs an order
    before = Math.max(before, first?.[row] ?? before);
    at[row] = before;
  }
  return at;
}

/** When the device got each request. Where a trace has no issues at all (Q and C are enough for latencies), when it was queued. */
function begins(table: IoTable): Float64Array {
  const { count, issued, queued, mergedInto, error } = table;
  const begun = new Float64Array(count);
  let issues = false;
  for (let row = 0; row < count && !issues; row++) issues = issued[row]! >= 0;
  for (let row = 0; row < count; row++) {
    // what was merged is in flight as a part of another; an error without an issue is a refusal
    const never = mergedInto[row]! >= 0 || (error[row]! > 0 && !(issued[row]! >= 0));
    begun[row] = never ? Number.NaN : (issues ? issued : queued)[row]!;
  }
  return begun;
}

function devicesOf(table: IoTable): { devices: TracedDevice[]; device: Uint8Array } {
  const column = new Uint8Array(table.count);
  const found = new Map<number, { index: number; requests: number; from: number; to: number }>();
  let last = { index: -1, requests: 0, from: 0, to: 0 };
  let lastDevice = -1;
  for (let row = 0; row < table.count; row++) {
    const device = table.device[row]!;
    if (device !== lastDevice) {
      lastDevice = device;
      last = found.get(device) ?? { index: Math.min(found.size, MAX_DEVICES - 1), requests: 0, from: Infinity, to: 0 };
      found.set(device, last);
    }
    column[row] = last.index;
    last.requests++;
    const bytes = table.bytes[row]!;
    if (bytes === 0) continue;
    const sector = table.sector[row]!;
    if (sector < last.from) last.from = sector;
    if (sector + bytes / SECTOR_BYTES > last.to) last.to = sector + bytes / SECTOR_BYTES;
  }
  const devices = [...found].map(([device, { requests, from, to }]) => ({
    device, requests, sectorFrom: Math.min(from, to), sectorTo: to, name: deviceName(device, table.deviceNames.get(device)),
  }));
  return { devices: devices.slice(0, MAX_DEVICES), device: column };
}

function deviceName(device: number, told: string | undefined): string {
  const number = `${majorOf(device)},${minorOf(device)}`;
  return told === undefined || told === '' ? number : `${number} ${told}`;
}

function processesOf(table: IoTable): { processes: TracedProcess[]; process: Uint16Array } {
  const counts = new Map<number, number>();
  for (let row = 0; row < table.count; row++) counts.set(table.pid[row]!, (counts.get(table.pid[row]!) ?? 0) + 1);
  const sorted = [...counts].sort(([pid, a], [other, b]) => b - a || pid - other);
  const index = new Map(sorted.map(([pid], place) => [pid, Math.min(place, MAX_PROCESSES - 1)]));
  const process = new Uint16Array(table.count);
  for (let row = 0; row < table.count; row++) process[row] = index.get(table.pid[row]!)!;
  return {
    process,
    processes: sorted.slice(0, MAX_PROCESSES).map(([pid, requests]) => ({ pid, requests, name: table.processes.get(pid) ?? '' })),
  };
}
