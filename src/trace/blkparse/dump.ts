/** Records as bytes of version 7, lowest byte first: what `-d` writes, and every tool of blktrace reads. */
import { TWO_32 } from '../../base/bytes.js';
import { HEADER_BYTES, MAGIC, type RecordBatch } from '../record.js';
import { payloadOf } from './fields.js';

const FLUSH_BYTES = 1024 * 1024;
const LONGEST = HEADER_BYTES[7] + 0xffff;

export class DumpBuffer {
  readonly #bytes = new Uint8Array(FLUSH_BYTES + LONGEST);
  readonly #view = new DataView(this.#bytes.buffer);
  #length = 0;

  get ripe(): boolean { return this.#length >= FLUSH_BYTES; }

  /** What was written since the last call; lent until something is written. It is to be called as soon as there is much. */
  take(): Uint8Array {
    const taken = this.#bytes.subarray(0, this.#length);
    this.#length = 0;
    return taken;
  }

  /** `time` in ns, as a 64-bit number where it is less than 0. */
  record(batch: RecordBatch, index: number, time: number | bigint, device: number): void {
    const at = this.#length;
    const view = this.#view;
    const payload = batch.pduLength[index]!;
    view.setUint32(at, MAGIC + 7, true);
    view.setUint32(at + 4, batch.sequence[index]!, true);
    if (typeof time === 'bigint' || time < 0) view.setBigUint64(at + 8, BigInt.asUintN(64, BigInt(time)), true);
    else {
      view.setUint32(at + 8, time % TWO_32, true);
      view.setUint32(at + 12, Math.floor(time / TWO_32), true);
    }
    const sector = batch.sector[index]!;
    view.setUint32(at + 16, sector % TWO_32, true);
    view.setUint32(at + 20, Math.floor(sector / TWO_32), true);
    view.setUint32(at + 24, batch.bytes[index]!, true);
    view.setUint16(at + 28, batch.action[index]!, true);
    view.setUint16(at + 30, batch.category[index]! % 0x1_0000, true);
    view.setUint32(at + 32, batch.pid[index]!, true);
    view.setUint32(at + 36, device, true);
    view.setUint32(at + 40, batch.cpu[index]!, true);
    view.setUint16(at + 44, batch.error[index]!, true);
    view.setUint16(at + 46, payload, true);
    if (payload > 0) this.#bytes.set(payloadOf(batch, index), at + HEADER_BYTES[7]);
    this.#length = at + HEADER_BYTES[7] + payload;
  }
}
