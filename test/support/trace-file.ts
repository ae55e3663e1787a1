/** Tables written as traces: what reading and pairing them should bring back. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { Action, Category, MAGIC, Notify } from '../../src/trace/record.js';
import type { IoTable } from '../../src/trace/traced-io.js';
import { orderByTime } from '../../src/viewer/order.js';

const HEADER = 48;
const REMAP_PDU = 16;
const NAME_PDU = 16;
/** Records of one write. */
const BATCH = 32_768;
/** A stream that begins at 0 is rebased again and again by blkparse. */
const START_NS = 1_000_000_000;

const STEPS = [
  { column: 'queued', code: Action.REMAP, category: Category.QUEUE }, { column: 'queued', code: Action.QUEUE, category: Category.QUEUE },
  { column: 'gotRequest', code: Action.GET_REQUEST, category: Category.QUEUE }, { column: 'inserted', code: Action.INSERT, category: Category.QUEUE },
  { column: 'issued', code: Action.ISSUE, category: Category.ISSUE }, { column: 'completed', code: Action.COMPLETE, category: Category.COMPLETE },
] as const;

/** Writes `NAME.blktrace.0`, with a remap for each parent; returns how many records it has. */
export function writeTrace(name: string, table: IoTable): number {
  const times = new Float64Array(table.count * STEPS.length).fill(Number.NaN);
  for (let row = 0; row < table.count; row++) {
    STEPS.forEach(({ column, code }, step) => {
      if (code !== Action.REMAP || table.parent[row]! >= 0) times[row * STEPS.length + step] = table[column][row]!;
    });
  }
  const order = orderByTime(times, times.length);
  const file = openSync(`${name}.blktrace.0`, 'w');
  try {
    for (const [pid, process] of table.processes) writeSync(file, processRecord(pid, process));
    const buffer = Buffer.alloc(BATCH * (HEADER + REMAP_PDU));
    for (let from = 0; from < order.length; from += BATCH) {
      let end = 0;
      for (const event of order.subarray(from, from + BATCH)) end = writeEvent(buffer, end, table, event, times[event]!);
      writeSync(file, buffer, 0, end);
    }
  } finally {
    closeSync(file);
  }
  return order.length + table.processes.size;
}

function writeHeader(to: Buffer, at: number, time: number, action: number, pid: number, device: number, pdu: number): void {
  to.fill(0, at, at + HEADER);
  to.writeUInt32LE(MAGIC + 7, at);
  to.writeBigUInt64LE(BigInt(START_NS + time), at + 8);
  to.writeUInt32LE(action, at + 28);
  to.writeUInt32LE(pid, at + 32);
  to.writeUInt32LE(device, at + 36);
  to.writeUInt16LE(pdu, at + 46);
}

function processRecord(pid: number, name: string): Buffer {
  const record = Buffer.alloc(HEADER + NAME_PDU);
  writeHeader(record, 0, 0, Notify.PROCESS + Category.NOTIFY * 0x1_0000, pid, 0, NAME_PDU);
  record.write(name, HEADER, NAME_PDU - 1);
  return record;
}

function writeEvent(to: Buffer, at: number, table: IoTable, event: number, time: number): number {
  const row = Math.floor(event / STEPS.length);
  const { code, category } = STEPS[event % STEPS.length]!;
  const parent = code === Action.REMAP ? table.parent[row]! : -1;
  const pdu = parent < 0 ? 0 : REMAP_PDU;
  writeHeader(to, at, time, code + (category + table.category[row]!) * 0x1_0000, table.pid[row]!, table.device[row]!, pdu);
  to.writeUInt32LE(event + 1, at + 4);
  to.writeBigUInt64LE(BigInt(table.sector[row]!), at + 16);
  to.writeUInt32LE(table.bytes[row]!, at + 24);
  if (code === Action.COMPLETE) to.writeUInt16LE(table.error[row]!, at + 44);
  if (parent >= 0) {
    to.writeUInt32BE(table.device[parent]!, at + HEADER);
    to.writeUInt32BE(table.device[row]!, at + HEADER + 4);
    to.writeBigUInt64BE(BigInt(table.sector[parent]!), at + HEADER + 8);
  }
  return at + HEADER + pdu;
}
