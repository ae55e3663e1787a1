/** A line per event, for spreadsheets and scripts. */
import { payloadOf, rwbs } from '../blkparse/fields.js';
import { TextBuffer } from '../blkparse/text.js';
import { Category, majorOf, minorOf, Notify, type RecordBatch, type TraceReader } from '../record.js';
import type { TraceForm } from './convert.js';

const HEADER = 'time_ns,device,cpu,sequence,pid,process,action,rwbs,sector,bytes,error,message\n';
/** As blkparse, and what it has no letters for. */
const LETTERS = ['', 'Q', 'M', 'F', 'G', 'S', 'R', 'D', 'C', 'P', 'U', 'UT', 'I', 'X', 'B', 'A', 'abort', 'driver', 'zone-plug', 'zone-unplug'];
const COMMA = 0x2c;
const LINE_BYTES = 256;

export class CsvForm implements TraceForm {
  readonly #reader: TraceReader;
  readonly #out = new TextBuffer();
  readonly #quoted = new Map<string, Uint8Array>();

  constructor(reader: TraceReader) {
    this.#reader = reader;
  }

  get ripe(): boolean { return this.#out.ripe; }

  begin(): void {
    this.#out.text(HEADER);
  }

  record(batch: RecordBatch, index: number): boolean {
    const notify = (batch.category[index]! & Category.NOTIFY) !== 0;
    if (notify && batch.action[index] !== Notify.MESSAGE) return false;
    const out = this.#out;
    const number = (value: number): void => {
      out.number(value);
      out.byte(COMMA);
    };
    out.reserve(LINE_BYTES);
    number(batch.time[index]!);
    out.text(`${majorOf(batch.device[index]!)}:${minorOf(batch.device[index]!)},`);
    number(batch.cpu[index]!);
    number(batch.sequence[index]!);
    number(batch.pid[index]!);
    out.text(this.#name(batch.pid[index]!));
    out.byte(COMMA);
    out.text(notify ? 'm' : LETTERS[batch.action[index]!] ?? String(batch.action[index]));
    out.byte(COMMA);
    out.text(notify ? '' : rwbs(batch.category[index]!, batch.bytes[index]!));
    out.byte(COMMA);
    number(batch.sector[index]!);
    number(batch.bytes[index]!);
    // errnos are negative in records, as 16 bits without a sign
    const error = batch.error[index]!;
    number(error < 0x8000 ? error : error - 0x1_0000);
    if (notify) out.text(quoted(Buffer.from(payloadOf(batch, index)).toString()));
    out.text('\n');
    return true;
  }

  end(): void {
    // nothing stands behind the lines
  }

  take(): Uint8Array {
    return this.#out.take();
  }

  #name(pid: number): Uint8Array {
    const name = this.#reader.processes.get(pid) ?? '';
    let found = this.#quoted.get(name);
    if (found === undefined) this.#quoted.set(name, found = quoted(name));
    return found;
  }
}

function quoted(text: string): Uint8Array {
  return Buffer.from(/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
}
