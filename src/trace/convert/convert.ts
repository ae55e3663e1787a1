/** A trace in other forms: one file of blktrace's records in order, CSV, a log that fio replays. */
import type { RecordBatch, TraceReader } from '../record.js';
import type { Write } from '../blkparse/session.js';
import { CsvForm } from './csv.js';
import { DumpForm } from './dump-form.js';
import { FioForm } from './fio-form.js';

export const TRACE_FORMS = ['dump', 'csv', 'fio'] as const;
export type TraceFormName = (typeof TRACE_FORMS)[number];

/** Turns batches into bytes. What `take` returns is lent until the next call of anything. */
export interface TraceForm {
  /** Before the first batch. */
  begin(): void;
  /** The record `index`; false where the form has nothing to say of it. */
  record(batch: RecordBatch, index: number): boolean;
  /** After the last batch. */
  end(): void;
  /** Whether there is so much that it should be taken. */
  readonly ripe: boolean;
  take(): Uint8Array;
}

export interface ConvertOptions {
  readonly to: TraceFormName;
  /** Only records of these devices, as the kernel numbers them; all by default. Names of processes and the wall clock are always told. */
  readonly devices?: readonly number[] | undefined;
  /** Takes the result; what it is given is its own until it resolves. */
  readonly write: Write;
}

export interface ConvertResult {
  /** Records that are in the result: all, only I/O, or only what was queued, as the form has it. */
  readonly records: number;
}

/**
 * Reads a trace to its end. `dump`: version 7, lowest byte first, from 1 s on (blkparse does not take a stream that begins at 0) with
 * the wall clock of that moment; `csv`: a line per event; `fio`: version 3, what was queued.
 */
export async function convertTrace(reader: TraceReader, { to, devices, write }: ConvertOptions): Promise<ConvertResult> {
  const form = formOf(to, reader);
  const wanted = devices === undefined || devices.length === 0 ? null : new Set(devices);
  let records = 0;
  let begun = false;
  for await (const batch of reader) {
    // names and the wall clock are known once a batch is read
    if (!begun) form.begin();
    begun = true;
    for (let index = 0; index < batch.count; index++) {
      if (wanted !== null && !wanted.has(batch.device[index]!) && !isAside(batch, index)) continue;
      if (form.record(batch, index)) records++;
      if (form.ripe) await write(form.take());
    }
  }
  if (!begun) form.begin();
  form.end();
  await write(form.take());
  return { records };
}

/** A notification that is no message belongs to no device. */
function isAside(batch: RecordBatch, index: number): boolean {
  return (batch.category[index]! & 0x400) !== 0 && batch.action[index] !== 2;
}

function formOf(to: TraceFormName, reader: TraceReader): TraceForm {
  switch (to) {
    case 'dump': return new DumpForm(reader);
    case 'csv': return new CsvForm(reader);
    case 'fio': return new FioForm();
  }
}
