/** Columns that are filled record by record: what decoders write into and readers lend out. */
import { Category, Notify, type RecordBatch } from '../record.js';

/** A batch of long payloads ends early, so that its memory is bounded. */
const MAX_PAYLOAD_BYTES = 2 * 1024 * 1024;
const FIRST_PAYLOAD_BYTES = 1024;

export class Columns implements RecordBatch {
  count = 0;
  readonly capacity: number;
  readonly time: Float64Array;
  readonly sequence: Uint32Array;
  readonly sector: Float64Array;
  readonly bytes: Uint32Array;
  readonly action: Uint8Array;
  readonly category: Uint32Array;
  readonly pid: Uint32Array;
  readonly device: Uint32Array;
  readonly cpu: Uint32Array;
  readonly error: Uint16Array;
  readonly pduOffset: Uint32Array;
  readonly pduLength: Uint16Array;
  payloads = new Uint8Array(0);
  payloadBytes = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.time = new Float64Array(capacity);
    this.sequence = new Uint32Array(capacity);
    this.sector = new Float64Array(capacity);
    this.bytes = new Uint32Array(capacity);
    this.action = new Uint8Array(capacity);
    this.category = new Uint32Array(capacity);
    this.pid = new Uint32Array(capacity);
    this.device = new Uint32Array(capacity);
    this.cpu = new Uint32Array(capacity);
    this.error = new Uint16Array(capacity);
    this.pduOffset = new Uint32Array(capacity);
    this.pduLength = new Uint16Array(capacity);
  }

  get full(): boolean { return this.count === this.capacity || this.payloadBytes > MAX_PAYLOAD_BYTES; }

  clear(): void {
    this.count = 0;
    this.payloadBytes = 0;
  }

  /** Whether the record tells of no moment: all notifications but messages. */
  isTimeless(index: number): boolean {
    return (this.category[index]! & Category.NOTIFY) !== 0 && this.action[index] !== Notify.MESSAGE;
  }

  /** Makes bytes `from` to `to` of `data` the payload of the record `index`. */
  setPayload(index: number, data: Uint8Array, from: number, to: number): void {
    const length = to - from;
    this.pduLength[index] = length;
    this.pduOffset[index] = this.payloadBytes;
    if (length === 0) return;
    const end = this.payloadBytes + length;
    if (end > this.payloads.length) {
      const grown = new Uint8Array(Math.max(2 * this.payloads.length, end, FIRST_PAYLOAD_BYTES));
      grown.set(this.payloads.subarray(0, this.payloadBytes));
      this.payloads = grown;
    }
    // most are 8 or 16 bytes: a loop is faster than a view
    if (length <= 32) for (let at = 0; at < length; at++) this.payloads[this.payloadBytes + at] = data[from + at]!;
    else this.payloads.set(data.subarray(from, to), this.payloadBytes);
    this.payloadBytes = end;
  }

  /** Appends the record `index` of another batch; there must be room. */
  append(other: RecordBatch, index: number): void {
    const at = this.count++;
    this.time[at] = other.time[index]!;
    this.sequence[at] = other.sequence[index]!;
    this.sector[at] = other.sector[index]!;
    this.bytes[at] = other.bytes[index]!;
    this.action[at] = other.action[index]!;
    this.category[at] = other.category[index]!;
    this.pid[at] = other.pid[index]!;
    this.device[at] = other.device[index]!;
    this.cpu[at] = other.cpu[index]!;
    this.error[at] = other.error[index]!;
    const payload = other.pduOffset[index]!;
    this.setPayload(at, other.payloads, payload, payload + other.pduLength[index]!);
  }
}
