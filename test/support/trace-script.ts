/** Records of a trace written as lines, much as blkparse prints them, for tests of what is made of them. */
import { Action, Category, deviceOf, Notify, type ReadFindings, type RecordBatch, type TraceReader } from '../../src/trace/record.js';

export const DISK = deviceOf(8, 0);

const CODES: Readonly<Record<string, number>> = {
  Q: Action.QUEUE, M: Action.BACK_MERGE, F: Action.FRONT_MERGE, G: Action.GET_REQUEST, S: Action.SLEEP, R: Action.REQUEUE, D: Action.ISSUE,
  C: Action.COMPLETE, P: Action.PLUG, U: Action.UNPLUG, UT: Action.UNPLUG_TIMER, I: Action.INSERT, X: Action.SPLIT, A: Action.REMAP,
};

export interface ScriptRecord {
  readonly time: number;
  readonly action: string;
  readonly rwbs: string;
  readonly sector?: number;
  readonly sectors?: number;
  readonly device?: number;
  readonly pid?: number;
  readonly error?: number;
  readonly payload?: Uint8Array;
}

/** `RWBS` as blkparse prints it: F flush, D discard, R W N, F FUA, A ahead, S sync, M meta. */
export function categoryOf(rwbs: string): number {
  let bits = 0;
  let rest = rwbs;
  if (rest.startsWith('F')) {
    bits += Category.FLUSH;
    rest = rest.slice(1);
  }
  const op = rest[0] ?? 'N';
  bits += op === 'W' ? Category.WRITE : op === 'D' ? Category.WRITE + Category.DISCARD : Category.READ;
  for (const letter of rest.slice(1)) bits += { F: Category.FUA, A: Category.AHEAD, S: Category.SYNC, M: Category.META }[letter] ?? 0;
  return bits;
}

/**
 * Lines `TIME ACTION RWBS [SECTOR+COUNT] [dev=N] [pid=N] [err=N] [<SECTOR@DEVICE] [/SECTOR] [xN]`, times in ns; what follows `#` is
 * left out. `<` says where a remap comes from, `/` where a split is, `x` how many an unplug lets go.
 */
export function script(lines: string): ScriptRecord[] {
  return lines.split('\n').map((line) => line.replace(/#.*/, '').trim()).filter((line) => line !== '').map((line) => {
    const [time, action, rwbs, ...rest] = line.split(/\s+/);
    const record: { -readonly [K in keyof ScriptRecord]: ScriptRecord[K] } = { time: Number(time), action: action!, rwbs: rwbs ?? 'N' };
    for (const word of rest) {
      const [, sector, sectors] = /^(\d+)\+(\d+)$/.exec(word) ?? [];
      if (sector !== undefined) Object.assign(record, { sector: Number(sector), sectors: Number(sectors) });
      else if (word.startsWith('dev=')) record.device = Number(word.slice(4));
      else if (word.startsWith('pid=')) record.pid = Number(word.slice(4));
      else if (word.startsWith('err=')) record.error = Number(word.slice(4));
      else if (word.startsWith('<')) record.payload = remapPayload(word.slice(1));
      else if (word.startsWith('/') || word.startsWith('x')) record.payload = bigEndian([[Number(word.slice(1)), 8]]);
      else throw new Error(`the line '${line}' has '${word}'`);
    }
    return record;
  });
}

function remapPayload(word: string): Uint8Array {
  const [from, device] = word.split('@').map(Number);
  return bigEndian([[device!, 4], [0, 4], [from!, 8]]);
}

function bigEndian(fields: readonly (readonly [value: number, bytes: number])[]): Uint8Array {
  const out: number[] = [];
  for (const [value, bytes] of fields) for (let at = bytes - 1; at >= 0; at--) out.push(Math.floor(value / 256 ** at) % 256);
  return Uint8Array.from(out);
}

/** A message, as a writer of ours leaves it. */
export function message(time: number, text: string, device = DISK): ScriptRecord {
  return { time, action: 'message', rwbs: 'N', device, payload: new TextEncoder().encode(text) };
}

export function batchOf(records: readonly ScriptRecord[]): RecordBatch {
  const count = records.length;
  const payloads = Uint8Array.from(records.flatMap(({ payload }) => [...payload ?? []]));
  const batch = {
    count, time: new Float64Array(count), sequence: new Uint32Array(count), sector: new Float64Array(count), bytes: new Uint32Array(count),
    action: new Uint8Array(count), category: new Uint32Array(count), pid: new Uint32Array(count), device: new Uint32Array(count), cpu: new Uint32Array(count),
    error: new Uint16Array(count), pduOffset: new Uint32Array(count), pduLength: new Uint16Array(count), payloads, bigEndian: false,
  };
  let offset = 0;
  records.forEach(({ time, action, rwbs, sector = 0, sectors = 0, device = DISK, pid = 1, error = 0, payload }, at) => {
    batch.time[at] = time;
    batch.sector[at] = sector;
    batch.bytes[at] = sectors * 512;
    batch.action[at] = action === 'message' ? Notify.MESSAGE : CODES[action]!;
    batch.category[at] = action === 'message' ? Category.NOTIFY : categoryOf(rwbs);
    batch.pid[at] = pid;
    batch.device[at] = device;
    batch.error[at] = error;
    batch.pduOffset[at] = offset;
    batch.pduLength[at] = payload?.length ?? 0;
    offset += payload?.length ?? 0;
  });
  return batch;
}

/** A reader of such records, a few at a time. */
export function readerOf(records: readonly ScriptRecord[] | string, { batch = 7, processes = new Map<number, string>() } = {}): TraceReader {
  const all = typeof records === 'string' ? script(records) : records;
  const findings: ReadFindings = { skippedBytes: 0, skips: 0, outOfOrder: 0 };
  return {
    findings, processes, epochNs: null, progress: { bytes: 0, total: null },
    async *[Symbol.asyncIterator]() {
      for (let at = 0; at < all.length; at += batch) yield Promise.resolve(batchOf(all.slice(at, at + batch)));
    },
  };
}
