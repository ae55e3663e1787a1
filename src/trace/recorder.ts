/**
 * Records what nodes tell in blktrace's format, version 7, as `FILE.blktrace.0`: what blkparse, btt, blkrawverify, iowatcher and fio read.
 * Events go as bytes into memory that was made before (RecordRing); no object is made for any of them.
 */
import { preciseMs, systemClock } from '../base/clock.js';
import type { BlockError } from '../base/errors.js';
import { deviceMessage, droppedMessage, FIRST_TASK_PID, processMessage, requestMessageStart } from './messages.js';
import { Action, Category, deviceOf, MAGIC, Notify, QUIESCE_MAJOR, SECTOR_BYTES } from './record.js';
import { RecordRing } from './record-ring.js';
import type { TracedNode, TracedOp, TracedRequest, TraceLayer, TraceSink, TraceTask } from './sink.js';

export interface TraceRecorderOptions {
  /** What the program is called in the trace; at most 15 bytes are shown by blkparse. Default `quiesce`. */
  readonly process?: string | undefined;
  /** Memory for events that are not in the file yet, in buffers of 512 KiB. Default 8 MiB, at least 1 MiB. */
  readonly ringBytes?: number | undefined;
  /** Monotonic milliseconds with a fraction. */
  readonly now?: (() => number) | undefined;
  /** The trace cannot be written: recording has stopped, and nothing else has. Called once. */
  readonly onFailure?: ((error: BlockError) => void) | undefined;
}

export interface TraceSummary {
  readonly file: string;
  /** Events of requests (Q, G, I, D, C, M, X, R, A) that were recorded. */
  readonly events: number;
  /** Names, times and messages beside them. */
  readonly notifications: number;
  /** Events that found no room in memory. */
  readonly dropped: number;
  /** In the file so far. */
  readonly bytes: number;
  /** Why nothing is recorded any more. */
  readonly failure: BlockError | null;
}

const HEADER_WORDS = 12;
const REMAP_WORDS = HEADER_WORDS + 4;
const BUFFER_BYTES = 512 * 1024;
const VERSION = 7;
/** Of the first event. Tools take time 0 for the beginning again and again. */
const START_NS = 1e9;
const WORD = 2 ** 32;
/** The longest whole number of sectors that the format can tell. */
const MOST_BYTES = WORD - SECTOR_BYTES;
const FUA = 1;

const { READ, WRITE, FLUSH, SYNC, FS, DISCARD, META, QUEUE, ISSUE, COMPLETE, REQUEUE, NOTIFY } = Category;
const UPPER = 0x1_0000;
const SPACE = 0x20;

/** Categories of the events of bios (Q, G) and of requests (I, D, C), as the kernel has them: what follows from the operation. */
const BIO: Record<TracedOp, number> = { read: READ + SYNC, write: WRITE + SYNC, 'write-zeroes': WRITE + SYNC, discard: WRITE + SYNC + DISCARD, flush: WRITE + FLUSH + SYNC };
const REQUEST: Record<TracedOp, number> = {
  read: READ + SYNC + FS, write: WRITE + SYNC + FS, 'write-zeroes': WRITE + SYNC + FS, discard: WRITE + SYNC + DISCARD + FS, flush: READ + FLUSH + FS,
};

export class TraceRecorder implements TraceSink {
  readonly file: string;
  readonly #ring: RecordRing;
  readonly #pid = process.pid;
  readonly #now: () => number;
  readonly #startMs: number;
  readonly #encoder = new TextEncoder();
  /** The start of a message, by cause and operation. */
  readonly #starts = new Map<string, Uint8Array>();
  readonly #scratch = new Uint8Array(256);
  readonly #numbers = new Map<TracedNode, number>();
  readonly #introductions: ({ readonly device: number; readonly text: string } | undefined)[] = [];
  readonly #tasks = new Set<number>();
  #formats = 0;
  #files = 0;
  #filters = 0;
  #lastTask: TraceTask | null = null;
  /** ns of the events now being told, as two words. */
  #high = 0;
  #low = START_NS;
  #sequence = 0;
  #notifications = 0;
  #dropped = 0;
  #droppedTold = 0;

  /** Begins to record into `name`.blktrace.0, which is made or emptied. Throws where it cannot be. */
  constructor(name: string, { process: comm = 'quiesce', ringBytes = 8 * 1024 * 1024, now = preciseMs, onFailure }: TraceRecorderOptions = {}) {
    this.file = `${name}.blktrace.0`;
    this.#ring = new RecordRing(this.file, Math.max(2, Math.floor(ringBytes / BUFFER_BYTES)), BUFFER_BYTES);
    this.#ring.onFailure = onFailure ?? null;
    this.#now = now;
    this.#startMs = now();
    this.#timestamp();
    this.#process(this.#pid, comm);
  }

  get summary(): TraceSummary {
    return {
      file: this.file, events: this.#sequence - this.#dropped, notifications: this.#notifications, dropped: this.#dropped,
      bytes: this.#ring.written, failure: this.#ring.failure,
    };
  }

  /** Everything told so far is in the file when it resolves; what is told from now on is not. */
  async stop(): Promise<TraceSummary> {
    this.#tellDropped();
    await this.#ring.close();
    return this.summary;
  }

  /** The same at once, for a process that ends now. */
  stopNow(): TraceSummary {
    this.#tellDropped();
    this.#ring.closeNow();
    return this.summary;
  }

  /** The first disk is 0 to 3: disk, data, metadata and file; the next one 4 to 7. Filters come from 4096 on. */
  device(node: TracedNode, layer: TraceLayer): number {
    let minor: number;
    if (layer === 'file') {
      minor = 4 * this.#files++ + 3;
    } else if (layer === 'filter') {
      minor = 4096 + this.#filters++;
    } else {
      let number = this.#numbers.get(node);
      if (number === undefined) this.#numbers.set(node, number = this.#formats++);
      minor = 4 * number + (layer === 'disk' ? 0 : layer === 'data' ? 1 : 2);
    }
    const device = deviceOf(QUIESCE_MAJOR, minor);
    this.#introductions[minor] = { device, text: deviceMessage(device, layer, node.driver, node.nodeName, node.name) };
    return device;
  }

  tick(): void {
    const ns = START_NS + (this.#now() - this.#startMs) * 1e6;
    const high = Math.floor(ns / WORD);
    this.#high = high;
    this.#low = ns - high * WORD;
  }

  queue(device: number, request: TracedRequest, from: number, fromOffset: number): void {
    const { op, offset, bytes, cause } = request;
    this.#introduce(device, request.task);
    if (cause !== '' || offset % SECTOR_BYTES !== 0 || bytes % SECTOR_BYTES !== 0 || op === 'write-zeroes' || bytes > MOST_BYTES) this.#explain(device, request);
    if (from !== -1) this.#remap(device, request, from, fromOffset);
    this.#put(Action.QUEUE, BIO[op] + QUEUE, device, request, 0);
  }

  wait(device: number, request: TracedRequest): void {
    this.#put(Action.GET_REQUEST, BIO[request.op] + QUEUE, device, request, 0);
    this.#put(Action.INSERT, REQUEST[request.op] + QUEUE, device, request, 0);
  }

  issue(device: number, request: TracedRequest): void {
    this.#put(Action.ISSUE, REQUEST[request.op] + ISSUE, device, request, 0);
  }

  complete(device: number, request: TracedRequest, errno: number): void {
    this.#put(Action.COMPLETE, REQUEST[request.op] + COMPLETE, device, request, errno);
  }

  merge(device: number, request: TracedRequest): void {
    this.#put(Action.BACK_MERGE, BIO[request.op] + QUEUE, device, request, 0);
  }

  requeue(device: number, request: TracedRequest): void {
    this.#put(Action.REQUEUE, REQUEST[request.op] + REQUEUE, device, request, 0);
  }

  split(device: number, request: TracedRequest, at: number): void {
    const index = this.#place(HEADER_WORDS + 2);
    if (index === -1) return;
    this.#header(index, Action.SPLIT, BIO[request.op], device, request, 0, 8);
    this.#bigEndian(index + HEADER_WORDS, Math.floor(at / SECTOR_BYTES));
  }

  #put(action: number, category: number, device: number, request: TracedRequest, errno: number): void {
    const index = this.#place(HEADER_WORDS);
    if (index !== -1) this.#header(index, action, category, device, request, errno, 0);
  }

  #remap(device: number, request: TracedRequest, from: number, fromOffset: number): void {
    const index = this.#place(REMAP_WORDS);
    if (index === -1) return;
    this.#header(index, Action.REMAP, BIO[request.op] + QUEUE, device, request, 0, 16);
    const { words } = this.#ring;
    words[index + HEADER_WORDS] = swapped(from);
    words[index + HEADER_WORDS + 1] = swapped(device);
    this.#bigEndian(index + HEADER_WORDS + 2, Math.floor(fromOffset / SECTOR_BYTES));
  }

  #place(words: number): number {
    this.#sequence++;
    const index = this.#ring.take(words);
    if (index === -1) this.#dropped++;
    return index;
  }

  #header(index: number, action: number, category: number, device: number, request: TracedRequest, errno: number, pduBytes: number): void {
    const { words } = this.#ring;
    const { offset, bytes, flags, task } = request;
    const first = Math.floor(offset / SECTOR_BYTES);
    const sectors = Math.ceil((offset + bytes) / SECTOR_BYTES) - first;
    const more = ((flags & FUA) !== 0 && request.op !== 'read' ? Category.FUA : 0) + (request.ioClass === 'metadata' ? META : 0);
    words[index] = MAGIC + VERSION;
    words[index + 1] = this.#sequence;
    words[index + 2] = this.#low;
    words[index + 3] = this.#high;
    words[index + 4] = first;
    words[index + 5] = first / WORD;
    words[index + 6] = Math.min(sectors * SECTOR_BYTES, MOST_BYTES);
    words[index + 7] = (category + more) * UPPER + action;
    words[index + 8] = task === null ? this.#pid : FIRST_TASK_PID + task.number;
    words[index + 9] = device;
    words[index + 10] = 0;
    words[index + 11] = (errno === 0 ? 0 : UPPER - errno) + pduBytes * UPPER;
  }

  /** Two words, the upper byte first. */
  #bigEndian(index: number, value: number): void {
    const { words } = this.#ring;
    words[index] = swapped(Math.floor(value / WORD));
    words[index + 1] = swapped(value % WORD);
  }

  /** Names what is new: a device, or who asks. */
  #introduce(device: number, task: TraceTask | null): void {
    const minor = device % 0x10_0000;
    const introduction = this.#introductions[minor];
    if (introduction !== undefined) {
      if (this.#message(introduction.device, introduction.text)) this.#introductions[minor] = undefined;
    }
    if (this.#droppedTold !== this.#dropped) this.#tellDropped();
    if (task === null || task === this.#lastTask) return;
    this.#lastTask = task;
    if (this.#tasks.has(task.number)) return;
    const pid = FIRST_TASK_PID + task.number;
    if (this.#process(pid, task.name) && this.#message(device, processMessage(pid, task.name))) this.#tasks.add(task.number);
  }

  #tellDropped(): void {
    const news = this.#dropped - this.#droppedTold;
    if (news > 0 && this.#message(deviceOf(QUIESCE_MAJOR, 0), droppedMessage(news))) this.#droppedTold += news;
  }

  #explain(device: number, request: TracedRequest): void {
    const op = request.op === 'write-zeroes' ? 'write-zeroes' : '';
    const key = op === '' ? request.cause : `${request.cause} ${op}`;
    let start = this.#starts.get(key);
    if (start === undefined) this.#starts.set(key, start = this.#encoder.encode(requestMessageStart(request.cause, op)));
    this.#scratch.set(start);
    let end = this.#digits(request.offset, start.byteLength);
    this.#scratch.set(BYTES_FIELD, end);
    end += BYTES_FIELD.byteLength;
    this.#text(device, this.#scratch, this.#digits(request.bytes, end));
  }

  /** Decimal digits of a whole number into the scratch buffer; returns where they end. */
  #digits(value: number, at: number): number {
    let digits = 1;
    for (let limit = 10; value >= limit; limit *= 10) digits++;
    let rest = value;
    for (let place = at + digits - 1; place >= at; place--) {
      const next = Math.floor(rest / 10);
      this.#scratch[place] = 0x30 + rest - next * 10;
      rest = next;
    }
    return at + digits;
  }

  #message(device: number, text: string): boolean {
    const bytes = this.#encoder.encode(text);
    return this.#text(device, bytes, bytes.byteLength);
  }

  #text(device: number, bytes: Uint8Array, length: number): boolean {
    const padded = Math.ceil(length / 4) * 4;
    const index = this.#notify(Notify.MESSAGE, this.#pid, device, padded);
    if (index === -1) return false;
    const into = this.#ring.bytes;
    const at = index * 4;
    for (let i = 0; i < length; i++) into[at + i] = bytes[i]!;
    for (let i = length; i < padded; i++) into[at + i] = SPACE;
    return true;
  }

  #process(pid: number, name: string): boolean {
    const index = this.#notify(Notify.PROCESS, pid, 0, 16);
    if (index === -1) return false;
    const comm = this.#ring.bytes.subarray(index * 4, index * 4 + 16).fill(0);
    this.#encoder.encodeInto(name, comm.subarray(0, 15));
    return true;
  }

  #timestamp(): void {
    this.tick();
    const index = this.#notify(Notify.TIMESTAMP, 0, 0, 8);
    const wall = systemClock.wallMs();
    this.#ring.words[index] = Math.floor(wall / 1000);
    this.#ring.words[index + 1] = (wall % 1000) * 1e6;
  }

  /** A record that is no event; returns where its payload begins, or -1. */
  #notify(code: number, pid: number, device: number, pduBytes: number): number {
    const index = this.#ring.take(HEADER_WORDS + pduBytes / 4);
    if (index === -1) return -1;
    this.#notifications++;
    const { words } = this.#ring;
    words.fill(0, index, index + HEADER_WORDS);
    words[index] = MAGIC + VERSION;
    words[index + 2] = this.#low;
    words[index + 3] = this.#high;
    words[index + 7] = NOTIFY * UPPER + code;
    words[index + 8] = pid;
    words[index + 9] = device;
    words[index + 11] = pduBytes * UPPER;
    return index + HEADER_WORDS;
  }
}

const BYTES_FIELD = new TextEncoder().encode(' bytes=');

/** The same four bytes in the other order. */
function swapped(word: number): number {
  return ((word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0;
}
