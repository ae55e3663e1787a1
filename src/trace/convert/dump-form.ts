/** One file of records of all CPUs in order: what btt, iowatcher and fio read. */
import { DumpBuffer } from '../blkparse/dump.js';
import { Columns } from '../read/columns.js';
import { Category, Notify, type RecordBatch, type TraceReader } from '../record.js';
import type { TraceForm } from './convert.js';

/** A stream that begins at 0 is read anew from 0 with each batch by `blkparse -i -`. */
const START_NS = 1_000_000_000;

export class DumpForm implements TraceForm {
  readonly #reader: TraceReader;
  readonly #out = new DumpBuffer();

  constructor(reader: TraceReader) {
    this.#reader = reader;
  }

  get ripe(): boolean { return this.#out.ripe; }

  /** The wall clock comes first, and is that of the first event. */
  begin(): void {
    const epoch = this.#reader.epochNs;
    if (epoch === null) return;
    const stamp = new Columns(1);
    const payload = new DataView(new ArrayBuffer(8));
    payload.setUint32(0, Number(epoch / 1_000_000_000n), true);
    payload.setUint32(4, Number(epoch % 1_000_000_000n), true);
    stamp.count = 1;
    stamp.action[0] = Notify.TIMESTAMP;
    stamp.category[0] = Category.NOTIFY;
    stamp.setPayload(0, new Uint8Array(payload.buffer), 0, 8);
    this.#out.record(stamp, 0, START_NS, 0);
  }

  record(batch: RecordBatch, index: number): boolean {
    const notify = (batch.category[index]! & Category.NOTIFY) !== 0;
    if (notify && batch.action[index] === Notify.TIMESTAMP) return false;
    this.#out.record(batch, index, START_NS + batch.time[index]!, batch.device[index]!);
    return true;
  }

  end(): void {
    // nothing stands behind the records
  }

  take(): Uint8Array {
    return this.#out.take();
  }
}
