/**
 * Records what nodes tell in blktrace's format, version 7: what blkparse, btt, blkrawverify, iowatcher and fio read. Each device has a file
 * of its own, `NAME.blktrace.0`, `.1`, …, where blktrace has one for each processor: a device number that changes within a file counts as
 * damage. Events go as bytes into memory that was made before (RecordFiles); no object is made for any of them.
 */
import { preciseMs, systemClock } from '../base/clock.js';
import type { BlockError } from '../base/errors.js';
import { deviceMessage, droppedMessage, FIRST_TASK_PID, processMessage, requestMessageStart } from './messages.js';
import { Action, Category, deviceOf, MAGIC, Notify, QUIESCE_MAJOR, SECTOR_BYTES } from './record.js';
import { BUFFER_BYTES, RecordFiles, type RecordFile } from './record-files.js';
import type { TracedNode, TracedOp, TracedRequest, TraceLayer, TraceSink, TraceTask } from './sink.js';

export interface TraceRecorderOptions {
  /** What the program is called in the trace; at most 15 bytes are shown by blkparse. Default `quiesce`. */
  readonly process?: string | undefined;
  /** Memory for events that are not in the files yet, in buffers of 256 KiB. Default 8 MiB, at least 1 MiB; 64 KiB more for each of many devices. */
  readonly ringBytes?: number | undefined;
  /** Monotonic milliseconds with a fraction. */
  readonly now?: (() => number) | undefined;
  /** The trace cannot be written: recording has stopped, and nothing else has. Called once. */
  readonly onFailure?: ((error: BlockError) => void) | undefined;
}

export interface TraceSummary {
  /** `NAME.blktrace.0` and so on, as many as devices were used. */
  readonly files: readonly string[];
  /** Events of requests (Q, G, I, D, C, M, X, R, A) that were recorded. */
  readonly events: number;
  /** Names, times and messages beside them. */
  readonly notifications: number;
  /** Events that found no room in memory. */
  readonly dropped: number;
  /** In the files so far. */
  readonly bytes: number;
  /** Why nothing is recorded any more. */
  readonly failure: BlockError | null;
}

const HEADER_WORDS = 12;
const HEADER = MAGIC + 7;
const REMAP_WORDS = HEADER_WORDS + 4;
/** Programs may open 1024 at once, mostly. Devices beyond have no file of their own: they share the last one, which only blkrawverify minds. */
const MAX_FILES = 512;
/** Of the first event. Tools take time 0 for the beginning again and again. */
const START_NS = 1e9;
const WORD = 2 ** 32;
/** The longest whole number of sectors that the format can tell. */
const MOST_BYTES = WORD - SECTOR_BYTES;
const MOST_SECTORS = MOST_BYTES / SECTOR_BYTES;
const FUA = 1;

/** Which of a node's four numbers; a filter has two layers at most. */
const SLOTS: Readonly<Record<TraceLayer, number>> = { disk: 0, data: 1, filter: 1, metadata: 2, file: 3 };

const { READ, WRITE, FLUSH, SYNC, FS, DISCARD, META, NOTIFY } = Category;
const UPPER = 0x1_0000;
const SPACE = 0x20;

/** Words of the actions, but for what follows from the operation. */
const QUEUED = UPPER * Category.QUEUE + Action.QUEUE;
const REMAPPED = UPPER * Category.QUEUE + Action.REMAP;
const GOT_REQUEST = UPPER * Category.QUEUE + Action.GET_REQUEST;
const INSERTED = UPPER * Category.QUEUE + Action.INSERT;
const ISSUED = UPPER * Category.ISSUE + Action.ISSUE;
const COMPLETED = UPPER * Category.COMPLETE + Action.COMPLETE;
const REQUEUED = UPPER * Category.REQUEUE + Action.REQUEUE;

/** Categories of the events of bios (Q, G) and of requests (I, D, C), as the kernel has them: what follows from the operation. */
const BIO_CATEGORY: Record<TracedOp, number> = { read: READ + SYNC, write: WRITE + SYNC, 'write-zeroes': WRITE + SYNC, discard: WRITE + SYNC + DISCARD, flush: WRITE + FLUSH + SYNC };
const REQUEST_CATEGORY: Record<TracedOp, number> = {
  read: READ + SYNC + FS, write: WRITE + SYNC + FS, 'write-zeroes': WRITE + SYNC + FS, discard: WRITE + SYNC + DISCARD + FS, flush: READ + FLUSH + FS,
};

/** A device, once it was used. */
class Lane {
  /** As a word with a sign. */
  readonly device: number;
  /** Of its file, as the number of a processor. */
  readonly cpu: number;
  readonly file: RecordFile;

  constructor(minor: number, cpu: number, file: RecordFile) {
    this.device = deviceOf(QUIESCE_MAJOR, minor) | 0;
    this.cpu = cpu;
    this.file = file;
  }
}

export class TraceRecorder implements TraceSink {
  readonly name: string;
  readonly #files: RecordFiles;
  /** By minor number. */
  readonly #lanes: (Lane | undefined)[] = [];
  readonly #introductions: string[] = [];
  readonly #lastLane: { lane: Lane; used: boolean };
  readonly #pid = process.pid;
  readonly #now: () => number;
  readonly #startMs: number;
  readonly #encoder = new TextEncoder();
  /** The start of a message, by cause and operation. */
  readonly #starts = new Map<string, Uint8Array>();
  readonly #scratch = new Uint8Array(256);
  /** Where the four numbers of a node begin; `taken` are those that a format has. */
  readonly #groups = new WeakMap<TracedNode, number>();
  readonly #taken = new Set<number>();
  readonly #tasks = new Set<number>();
  #groupCount = 0;
  #lastTask: TraceTask | null = null;
  // Words are kept as numbers of 32 bits with a sign, in fields: from a second array the compiler takes them three times as slowly
  /** ns of the next record. Each is 1 ns later than the one before: tools take the same time twice for a step back. */
  #timeLow = START_NS;
  #timeHigh = 0;
  /** The same when the clock was read last. */
  #tickNs = START_NS;
  #tickLow = START_NS;
  #notifications = 0;
  #dropped = 0;
  #droppedTold = 0;
  /** The request that the fields below tell of: its id and flags, for a young object that an old one holds costs as much as a record. */
  #described = 0;
  #describedFlags = 0;
  /** Of the request described; the last two are its categories, as a bio and as a request. */
  #sectorLow = 0;
  #sectorHigh = 0;
  #bytes = 0;
  #taskPid = 0;
  #bio = 0;
  #request = 0;
  /** The sectors of the request described do not tell all of it. */
  #inexact = false;
  /** As it was when the request before was queued. */
  #droppedBefore = 0;

  /** Begins to record into `name`.blktrace.0 and so on, which are made or emptied. Throws where the first cannot be. */
  constructor(name: string, { process: comm = 'quiesce', ringBytes = 8 * 1024 * 1024, now = preciseMs, onFailure }: TraceRecorderOptions = {}) {
    this.name = name;
    this.#files = new RecordFiles(name, Math.max(4, Math.floor(ringBytes / BUFFER_BYTES)));
    this.#files.onFailure = onFailure ?? null;
    this.#now = now;
    this.#startMs = now();
    // the first device that is used gets this file
    this.#lastLane = { lane: new Lane(0, 0, this.#firstFile()), used: false };
    this.#timestamp();
    this.#process(this.#lastLane.lane, this.#pid, comm);
  }

  #firstFile(): RecordFile {
    try {
      return this.#files.add();
    } catch (error) {
      this.#files.closeNow();
      throw error;
    }
  }

  get summary(): TraceSummary {
    return {
      files: Array.from({ length: this.#files.count }, (_, index) => this.#files.nameOf(index)), events: this.#files.records - this.#dropped,
      notifications: this.#notifications, dropped: this.#dropped, bytes: this.#files.written, failure: this.#files.failure,
    };
  }

  /** Everything told so far is in the files when it resolves; what is told from now on is not. */
  async stop(): Promise<TraceSummary> {
    this.#tellDropped();
    await this.#files.close();
    return this.summary;
  }

  /** The same at once, for a process that ends now. */
  stopNow(): TraceSummary {
    this.#tellDropped();
    this.#files.closeNow();
    return this.summary;
  }

  /** Minor numbers: the first disk is 0 to 3 (disk, data, metadata and file), the next one 4 to 7, and so on. */
  device(node: TracedNode, layer: TraceLayer, file: number): number {
    const minor = this.#groupOf(node, layer, file) + SLOTS[layer];
    while (this.#lanes.length <= minor) this.#lanes.push(undefined);
    this.#introductions[minor] = deviceMessage(deviceOf(QUIESCE_MAJOR, minor), layer, node.driver, node.nodeName, node.name);
    return minor;
  }

  #groupOf(node: TracedNode, layer: TraceLayer, file: number): number {
    let group = this.#groups.get(node);
    if (group !== undefined) return group;
    const below = layer === 'file' || layer === 'filter' || file === -1 || file % 4 !== SLOTS.file ? -1 : file - SLOTS.file;
    // a file may be below several formats in the course of time
    group = below >= 0 && !this.#taken.has(below) ? below : 4 * this.#groupCount++;
    if (layer !== 'file') this.#taken.add(group);
    this.#groups.set(node, group);
    return group;
  }

  tick(): void {
    const ns = Math.floor(START_NS + (this.#now() - this.#startMs) * 1e6);
    if (ns <= this.#tickNs + ((this.#timeLow - this.#tickLow) | 0)) return;
    const high = Math.floor(ns / WORD);
    const low = (ns - high * WORD) | 0;
    this.#timeLow = low;
    this.#timeHigh = high;
    this.#tickNs = ns;
    this.#tickLow = low;
  }

  queue(device: number, request: TracedRequest, from: number, fromOffset: number): void {
    const lane = this.#laneOf(device);
    if (request.task !== this.#lastTask || this.#dropped !== this.#droppedTold) this.#introduce(lane, request.task);
    if (request.id !== this.#described || request.flags !== this.#describedFlags) this.#describe(request);
    if (this.#inexact || request.cause !== '') this.#explain(lane, request);
    if (from !== -1) this.#remap(lane, from, fromOffset);
    this.#put(lane, this.#bio | QUEUED, 0);
  }

  wait(device: number, request: TracedRequest): void {
    const lane = this.#laneOf(device);
    if (request.id !== this.#described || request.flags !== this.#describedFlags) this.#describe(request);
    this.#put(lane, this.#bio | GOT_REQUEST, 0);
    this.#put(lane, this.#request | INSERTED, 0);
  }

  issue(device: number, request: TracedRequest): void {
    if (request.id !== this.#described || request.flags !== this.#describedFlags) this.#describe(request);
    this.#put(this.#laneOf(device), this.#request | ISSUED, 0);
  }

  complete(device: number, request: TracedRequest, errno: number): void {
    if (request.id !== this.#described || request.flags !== this.#describedFlags) this.#describe(request);
    this.#put(this.#laneOf(device), this.#request | COMPLETED, errno === 0 ? 0 : UPPER - errno);
  }

  requeue(device: number, request: TracedRequest): void {
    if (request.id !== this.#described || request.flags !== this.#describedFlags) this.#describe(request);
    this.#put(this.#laneOf(device), this.#request | REQUEUED, 0);
  }

  split(device: number, request: TracedRequest, at: number): void {
    const lane = this.#laneOf(device);
    if (request.id !== this.#described || request.flags !== this.#describedFlags) this.#describe(request);
    const index = lane.file.takeEvent(HEADER_WORDS + 2);
    if (index === -1) {
      this.#dropped++;
      return;
    }
    this.#header(lane, index, this.#bio | Action.SPLIT, 8 * UPPER);
    bigEndian(lane.file.words, index + HEADER_WORDS, Math.floor(at / SECTOR_BYTES));
  }

  #laneOf(device: number): Lane {
    return this.#lanes[device] ?? this.#newLane(device);
  }

  #newLane(minor: number): Lane {
    const last = this.#lastLane;
    let { cpu, file } = last.lane;
    if (last.used && this.#files.count < MAX_FILES && this.#files.failure === null) {
      try {
        file = this.#files.add();
        cpu = this.#files.count - 1;
      } catch {
        // it shares the file of the one before
      }
    }
    last.lane = new Lane(minor, cpu, file);
    last.used = true;
    this.#lanes[minor] = last.lane;
    const introduction = this.#introductions[minor];
    if (introduction !== undefined) this.#message(last.lane, introduction);
    return last.lane;
  }

  /** A record without a payload of the request described. */
  #put(lane: Lane, action: number, tail: number): void {
    const index = lane.file.takeEvent(HEADER_WORDS);
    if (index === -1) this.#dropped++;
    else this.#header(lane, index, action, tail);
  }

  #remap(lane: Lane, from: number, fromOffset: number): void {
    const index = lane.file.takeEvent(REMAP_WORDS);
    if (index === -1) {
      this.#dropped++;
      return;
    }
    this.#header(lane, index, this.#bio | REMAPPED, 16 * UPPER);
    const { words } = lane.file;
    words[index + HEADER_WORDS] = swapped(deviceOf(QUIESCE_MAJOR, from));
    words[index + HEADER_WORDS + 1] = swapped(lane.device);
    bigEndian(words, index + HEADER_WORDS + 2, Math.floor(fromOffset / SECTOR_BYTES));
  }

  /** `tail`: the last word, error and length of the payload. */
  #header({ device, cpu, file }: Lane, index: number, action: number, tail: number): void {
    const { words } = file;
    words[index] = HEADER;
    words[index + 1] = file.sequence;
    words[index + 2] = this.#timeLow;
    words[index + 3] = this.#timeHigh;
    words[index + 4] = this.#sectorLow;
    words[index + 5] = this.#sectorHigh;
    words[index + 6] = this.#bytes;
    words[index + 7] = action;
    words[index + 8] = this.#taskPid;
    words[index + 9] = device;
    words[index + 10] = cpu;
    words[index + 11] = tail;
    this.#step();
  }

  #step(): void {
    const next = (this.#timeLow + 1) | 0;
    this.#timeLow = next;
    if (next === 0) this.#timeHigh++;
  }

  /** What all records of a request have in common; most come right after one another. */
  #describe(request: TracedRequest): void {
    const { op, offset, bytes, flags, ioClass, task } = request;
    const first = Math.floor(offset / SECTOR_BYTES);
    const sectors = Math.ceil((offset + bytes) / SECTOR_BYTES) - first;
    // (a remainder of numbers that are no small integers takes as long as all the rest of an event)
    this.#inexact = first * SECTOR_BYTES !== offset || sectors * SECTOR_BYTES !== bytes || op === 'write-zeroes' || bytes > MOST_BYTES;
    this.#sectorLow = first | 0;
    this.#sectorHigh = first < WORD ? 0 : Math.floor(first / WORD);
    this.#bytes = (sectors < MOST_SECTORS ? sectors * SECTOR_BYTES : MOST_BYTES) | 0;
    this.#taskPid = task === null ? this.#pid : FIRST_TASK_PID + task.number;
    const more = ((flags & FUA) !== 0 && op !== 'read' ? Category.FUA : 0) + (ioClass === 'metadata' ? META : 0);
    this.#bio = (BIO_CATEGORY[op] + more) << 16;
    this.#request = (REQUEST_CATEGORY[op] + more) << 16;
    this.#described = request.id;
    this.#describedFlags = flags;
  }

  /** Names what is new: what was lost before, and who asks. */
  #introduce(lane: Lane, task: TraceTask | null): void {
    // once there is room again: to try for each that is dropped would cost more than they did
    if (this.#droppedTold !== this.#dropped && this.#dropped === this.#droppedBefore) this.#tellDropped(lane);
    this.#droppedBefore = this.#dropped;
    if (task === null || task === this.#lastTask) return;
    this.#lastTask = task;
    if (this.#tasks.has(task.number)) return;
    const pid = FIRST_TASK_PID + task.number;
    if (this.#process(lane, pid, task.name) && this.#message(lane, processMessage(pid, task.name))) this.#tasks.add(task.number);
  }

  #tellDropped(lane = this.#lastLane.lane): void {
    const news = this.#dropped - this.#droppedTold;
    if (news > 0 && this.#message(lane, droppedMessage(news))) this.#droppedTold += news;
  }

  #explain(lane: Lane, request: TracedRequest): void {
    const op = request.op === 'write-zeroes' ? 'write-zeroes' : '';
    const key = op === '' ? request.cause : `${request.cause} ${op}`;
    let start = this.#starts.get(key);
    if (start === undefined) this.#starts.set(key, start = this.#encoder.encode(requestMessageStart(request.cause, op)));
    this.#scratch.set(start);
    let end = this.#digits(request.offset, start.byteLength);
    this.#scratch.set(BYTES_FIELD, end);
    end += BYTES_FIELD.byteLength;
    this.#text(lane, this.#scratch, this.#digits(request.bytes, end));
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

  #message(lane: Lane, text: string): boolean {
    const bytes = this.#encoder.encode(text);
    return this.#text(lane, bytes, bytes.byteLength);
  }

  #text(lane: Lane, bytes: Uint8Array, length: number): boolean {
    const padded = Math.ceil(length / 4) * 4;
    const index = this.#notify(lane, Notify.MESSAGE, this.#pid, padded);
    if (index === -1) return false;
    const into = lane.file.bytes;
    const at = index * 4;
    for (let i = 0; i < length; i++) into[at + i] = bytes[i]!;
    for (let i = length; i < padded; i++) into[at + i] = SPACE;
    return true;
  }

  #process(lane: Lane, pid: number, name: string): boolean {
    const index = this.#notify(lane, Notify.PROCESS, pid, 16);
    if (index === -1) return false;
    const comm = lane.file.bytes.subarray(index * 4, index * 4 + 16).fill(0);
    this.#encoder.encodeInto(name, comm.subarray(0, 15));
    return true;
  }

  #timestamp(): void {
    this.tick();
    const { lane } = this.#lastLane;
    const index = this.#notify(lane, Notify.TIMESTAMP, 0, 8);
    const wall = systemClock.wallMs();
    lane.file.words[index] = Math.floor(wall / 1000);
    lane.file.words[index + 1] = (wall % 1000) * 1e6;
  }

  /** A record that is no event; returns where its payload begins, or -1. */
  #notify({ device, cpu, file }: Lane, code: number, pid: number, pduBytes: number): number {
    const index = file.take(HEADER_WORDS + pduBytes / 4);
    if (index === -1) return -1;
    this.#notifications++;
    const { words } = file;
    words.fill(0, index, index + HEADER_WORDS);
    words[index] = HEADER;
    words[index + 2] = this.#timeLow;
    words[index + 3] = this.#timeHigh;
    words[index + 7] = NOTIFY * UPPER + code;
    words[index + 8] = pid;
    words[index + 9] = device;
    words[index + 10] = cpu;
    words[index + 11] = pduBytes * UPPER;
    this.#step();
    return index + HEADER_WORDS;
  }
}

const BYTES_FIELD = new TextEncoder().encode(' bytes=');

/** The same four bytes in the other order. */
function swapped(word: number): number {
  return (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24);
}

/** Two words, the upper byte first. */
function bigEndian(words: Int32Array, index: number, value: number): void {
  const high = value < WORD ? 0 : Math.floor(value / WORD);
  words[index] = high === 0 ? 0 : swapped(high);
  words[index + 1] = swapped(value - high * WORD);
}
