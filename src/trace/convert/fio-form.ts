/** A log that `fio --read_iolog` replays: what was queued, when, on a file for each device. */
import { TextBuffer } from '../blkparse/text.js';
import { Action, Category, majorOf, minorOf, SECTOR_BYTES, type RecordBatch } from '../record.js';
import type { TraceForm } from './convert.js';

const SPACE = 0x20;
const LINE_BYTES = 256;

export class FioForm implements TraceForm {
  readonly #out = new TextBuffer();
  /** Names of files by device. */
  readonly #files = new Map<number, string>();
  #microseconds = 0;

  get ripe(): boolean { return this.#out.ripe; }

  begin(): void {
    this.#out.text('fio version 3 iolog\n');
  }

  record(batch: RecordBatch, index: number): boolean {
    const category = batch.category[index]!;
    if (batch.action[index] !== Action.QUEUE || (category & Category.NOTIFY) !== 0) return false;
    this.#microseconds = Math.floor(batch.time[index]! / 1000);
    const file = this.#file(batch.device[index]!);
    const bytes = batch.bytes[index]!;
    const flush = (category & Category.FLUSH) !== 0;
    if (flush) this.#line(file, 'sync', 0, 0);
    if (bytes === 0) return flush;
    const verb = (category & Category.DISCARD) !== 0 ? 'trim' : (category & Category.WRITE) !== 0 ? 'write' : 'read';
    this.#line(file, verb, batch.sector[index]! * SECTOR_BYTES, bytes);
    return true;
  }

  end(): void {
    for (const file of this.#files.values()) this.#out.text(`${this.#microseconds} ${file} close\n`);
  }

  take(): Uint8Array {
    return this.#out.take();
  }

  #line(file: string, verb: string, offset: number, bytes: number): void {
    const out = this.#out;
    out.reserve(LINE_BYTES);
    out.number(this.#microseconds);
    out.text(` ${file} ${verb} `);
    out.number(offset);
    out.byte(SPACE);
    out.number(bytes);
    out.text('\n');
  }

  #file(device: number): string {
    const known = this.#files.get(device);
    if (known !== undefined) return known;
    const file = `device-${majorOf(device)}-${minorOf(device)}`;
    this.#files.set(device, file);
    this.#out.text(`${this.#microseconds} ${file} add\n${this.#microseconds} ${file} open\n`);
    return file;
  }
}
