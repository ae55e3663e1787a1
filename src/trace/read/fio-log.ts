/**
 * I/O logs of fio (`write_iolog`), told as queued requests: they say what was submitted, and (version 3) when, but not how it went on.
 * Version 1 is `rw, offset, length`; 2 has `wait` lines of microseconds; 3 begins each line with microseconds.
 */
import { BlockError } from '../../base/errors.js';
import { Category, deviceOf, QUIESCE_MAJOR, SECTOR_BYTES, type ReadFindings, type RecordBatch, type TraceReader } from '../record.js';
import type { ByteSource } from './byte-source.js';
import { Columns } from './columns.js';

/** Enough for the first line of a log, and less than a live stream begins with. */
export const HEAD_BYTES = 64;
const BATCH_RECORDS = 16_384;
const CHUNK_BYTES = 64 * 1024;
/** No line of fio's is as long; it is none. */
const MAX_LINE_BYTES = 8192;
const MAX_BYTES = 0xffff_fe00;
const LINE_OF_1 = /^\s*[01]\s*,\s*\d+\s*,\s*\d+\s*$/;
const HEADER = /^fio version ([23]) iolog\s*$/;
const CATEGORIES: Readonly<Record<string, number>> = {
  read: Category.READ, write: Category.WRITE, trim: Category.WRITE + Category.DISCARD,
  sync: Category.WRITE + Category.FLUSH + Category.SYNC, datasync: Category.WRITE + Category.FLUSH + Category.SYNC, sync_file_range: Category.WRITE + Category.FLUSH + Category.SYNC,
};
const NO_IO = new Set(['add', 'open', 'close']);

/** The version of a log that begins so, or null. */
export function fioLogVersion(head: Uint8Array): 1 | 2 | 3 | null {
  const line = Buffer.from(head.buffer, head.byteOffset, Math.min(head.length, MAX_LINE_BYTES)).toString('latin1').split('\n')[0]!;
  const version = HEADER.exec(line)?.[1];
  if (version !== undefined) return version === '2' ? 2 : 3;
  return LINE_OF_1.test(line) ? 1 : null;
}

/** Forward only, as all readers. */
export class FioLogTrace implements TraceReader {
  readonly findings: ReadFindings = { skippedBytes: 0, skips: 0, outOfOrder: 0 };
  readonly processes: ReadonlyMap<number, string> = new Map([[0, 'fio']]);
  readonly epochNs = null;
  readonly #name: string;
  readonly #source: ByteSource;
  readonly #version: 1 | 2 | 3;
  readonly #devices = new Map<string, number>();
  #bytesRead = 0;
  #time = 0;
  #start: number | null = null;
  #records = 0;

  constructor(name: string, source: ByteSource, version: 1 | 2 | 3) {
    this.#name = name;
    this.#source = source;
    this.#version = version;
  }

  get progress(): { bytes: number; total: number | null } { return { bytes: this.#bytesRead, total: this.#source.size }; }

  async *[Symbol.asyncIterator](): AsyncGenerator<RecordBatch> {
    const batch = new Columns(BATCH_RECORDS);
    try {
      for await (const lines of this.#lines()) {
        for (const line of lines) {
          if (!this.#take(line, batch)) this.#skip(line.length + 1);
          if (!batch.full) continue;
          yield batch;
          batch.clear();
        }
        if (this.#source.live && batch.count > 0) {
          yield batch;
          batch.clear();
        }
      }
      if (batch.count > 0) yield batch;
      if (this.#records === 0) throw new BlockError('INVALID_ARGUMENT', `'${this.#name}' is a log of fio without any I/O`);
    } finally {
      await this.#source.close();
    }
  }

  async *#lines(): AsyncGenerator<readonly string[]> {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    let rest = '';
    for (let got = await this.#source.read(chunk); got > 0; got = await this.#source.read(chunk)) {
      this.#bytesRead += got;
      const lines = (rest + chunk.toString('latin1', 0, got)).split('\n');
      rest = lines.pop()!;
      if (rest.length > MAX_LINE_BYTES) {
        this.#skip(rest.length);
        rest = '';
      }
      yield lines;
    }
    if (rest !== '') yield [rest];
  }

  #skip(bytes: number): void {
    this.findings.skips++;
    this.findings.skippedBytes += bytes;
  }

  /** False for a line that says nothing known. */
  #take(line: string, batch: Columns): boolean {
    const words = line.trim().split(/\s+/);
    if (words[0] === '' || HEADER.test(line)) return true;
    if (this.#version === 1) {
      const match = LINE_OF_1.test(line) ? line.split(',') : null;
      return match !== null && this.#io(batch, 'file', match[0]!.trim() === '0' ? 'read' : 'write', match[1], match[2]);
    }
    if (this.#version === 3) {
      const stamp = words.shift()!;
      if (!/^\d{1,15}$/.test(stamp)) return false;
      this.#advance(Number(stamp) * 1000);
    }
    const [file, verb, offset, length] = words;
    if (file === undefined || verb === undefined) return false;
    if (verb === 'wait' && this.#version === 2) {
      const microseconds = Number(offset);
      if (!(microseconds >= 0 && microseconds < 1e15)) return false;
      this.#time += microseconds * 1000;
      return true;
    }
    return NO_IO.has(verb) || this.#io(batch, file, verb, offset, length);
  }

  #advance(time: number): void {
    if (time < this.#time) this.findings.outOfOrder++;
    this.#time = Math.max(this.#time, time);
  }

  #io(batch: Columns, file: string, verb: string, offsetText = '0', lengthText = '0'): boolean {
    const category = CATEGORIES[verb];
    const [offset, length] = [Number(offsetText), Number(lengthText)];
    if (category === undefined || !Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(length) || length < 0) return false;
    this.#start ??= this.#time;
    this.#records++;
    const flush = Math.floor(category / Category.FLUSH) % 2 === 1;
    const first = Math.floor(offset / SECTOR_BYTES);
    const index = batch.count++;
    batch.time[index] = this.#time - this.#start;
    batch.sequence[index] = this.#records;
    batch.sector[index] = flush ? 0 : first;
    batch.bytes[index] = flush ? 0 : Math.min(MAX_BYTES, (Math.ceil((offset + length) / SECTOR_BYTES) - first) * SECTOR_BYTES);
    batch.action[index] = 1;
    batch.category[index] = category + Category.QUEUE;
    batch.pid[index] = 0;
    batch.device[index] = this.#device(file);
    batch.cpu[index] = 0;
    batch.error[index] = 0;
    batch.setPayload(index, batch.payloads, 0, 0);
    return true;
  }

  #device(file: string): number {
    const known = this.#devices.get(file);
    if (known !== undefined) return known;
    const device = deviceOf(QUIESCE_MAJOR, Math.min(this.#devices.size, 0xf_ffff));
    // a log of names without end is no reason for memory without end
    if (this.#devices.size < 0x1_0000) this.#devices.set(file, device);
    return device;
  }
}
