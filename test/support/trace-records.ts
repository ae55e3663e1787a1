/** Records of blktrace for tests: made by a hand of its own, and read into objects. */
import type { RecordBatch, TraceReader } from '../../src/index.js';

const MAGIC = 0x6561_7400;

/** What is not given is 0. */
export interface TestRecord {
  readonly time?: bigint | number;
  readonly sequence?: number;
  readonly sector?: bigint | number;
  readonly bytes?: number;
  /** The action's lower half, and the categories above it. */
  readonly code?: number;
  readonly category?: number;
  readonly pid?: number;
  readonly device?: number;
  readonly cpu?: number;
  readonly error?: number;
  readonly pdu?: Uint8Array;
}

export interface RecordForm {
  readonly version?: 7 | 8;
  readonly bigEndian?: boolean;
  /** Of the header, where it is not the version's own. */
  readonly headerOf?: 7 | 8;
}

export function encodeRecord(record: TestRecord, { version = 7, bigEndian = false, headerOf = version }: RecordForm = {}): Buffer {
  const pdu = record.pdu ?? new Uint8Array(0);
  const header = headerOf === 7 ? 48 : 64;
  const out = Buffer.alloc(header + pdu.length);
  const view = new DataView(out.buffer, out.byteOffset, out.length);
  const little = !bigEndian;
  const { code = 0, category = 0 } = record;
  view.setUint32(0, MAGIC + version, little);
  view.setUint32(4, record.sequence ?? 0, little);
  view.setBigUint64(8, BigInt(record.time ?? 0), little);
  view.setBigUint64(16, BigInt(record.sector ?? 0), little);
  view.setUint32(24, record.bytes ?? 0, little);
  if (headerOf === 7) {
    view.setUint32(28, code + category * 0x1_0000, little);
    view.setUint32(32, record.pid ?? 0, little);
  } else {
    view.setUint32(28, record.pid ?? 0, little);
    view.setBigUint64(32, BigInt(code) + BigInt(category) * 0x1_0000n, little);
  }
  const rest = headerOf === 7 ? 36 : 40;
  view.setUint32(rest, record.device ?? 0, little);
  view.setUint32(rest + 4, record.cpu ?? 0, little);
  view.setUint16(rest + 8, record.error ?? 0, little);
  view.setUint16(rest + 10, pdu.length, little);
  out.set(pdu, header);
  return out;
}

export function encodeRecords(records: readonly TestRecord[], form?: RecordForm): Buffer {
  return Buffer.concat(records.map((record) => encodeRecord(record, form)));
}

export interface SeenRecord {
  readonly time: number;
  readonly sequence: number;
  readonly sector: number;
  readonly bytes: number;
  readonly action: number;
  readonly category: number;
  readonly pid: number;
  readonly device: number;
  readonly cpu: number;
  readonly error: number;
  readonly pdu: string;
}

export function recordsOf(batch: RecordBatch): SeenRecord[] {
  return Array.from({ length: batch.count }, (_, index) => ({
    time: batch.time[index]!, sequence: batch.sequence[index]!, sector: batch.sector[index]!, bytes: batch.bytes[index]!,
    action: batch.action[index]!, category: batch.category[index]!, pid: batch.pid[index]!, device: batch.device[index]!,
    cpu: batch.cpu[index]!, error: batch.error[index]!,
    pdu: Buffer.from(batch.payloads).toString('hex', batch.pduOffset[index], batch.pduOffset[index]! + batch.pduLength[index]!),
  }));
}

export async function readAll(reader: TraceReader): Promise<SeenRecord[]> {
  const all: SeenRecord[] = [];
  for await (const batch of reader) all.push(...recordsOf(batch));
  return all;
}

/** A stream that delivers `data` in pieces of so many bytes. */
export async function* inPieces(data: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < data.length; at += pieceBytes) yield data.subarray(at, at + pieceBytes);
}
