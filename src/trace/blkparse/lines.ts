/** One line of text per record. */
import { Category, majorOf, minorOf, type RecordBatch } from '../record.js';
import { payloadHex, payloadInt, payloadOf, payloadWord, rwbsColumn } from './fields.js';
import { writeFormat, type Piece } from './format.js';
import type { ProcessNames } from './processes.js';
import type { TextBuffer } from './text.js';
import { NO_TIME } from './track.js';

const [SPACE, POINT, NEWLINE] = [0x20, 0x2e, 0x0a];
const NO_NAME = Buffer.from('(null)');
const NO_SEQUENCE = Buffer.from('       0 ');
const MESSAGE_FIELDS = Buffer.from('    0  m   N ');
const bytesOf = (text: string): Uint8Array => Buffer.from(text);
const [PLUS, OPEN_TIME, CLOSE_TIME, OPEN_ERROR, CLOSE_ERROR] = [' + ', '(', ') ', '[', ']\n'].map(bytesOf) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array];

/** Longer than any line of the default format without a payload. */
const LINE_BYTES = 256;

interface CachedProcess {
  readonly name: Uint8Array;
  /** ` 1234 `, five wide, and `[name]` with the end of the line. */
  readonly pid: Uint8Array;
  readonly bracketed: Uint8Array;
}

export class Lines {
  readonly out: TextBuffer;
  /** ns since 1970 of time 0, for `%z`. */
  epochNs = 0n;
  readonly #names: ProcessNames;
  readonly #formats: ReadonlyMap<string, readonly Piece[]>;
  readonly #processes = new Map<number, CachedProcess>();
  #namesVersion = 0;
  #lastPid = -1;
  #lastProcess: CachedProcess | null = null;
  #prefixDevice = -1;
  #prefixCpu = -1;
  #prefix: Uint8Array = new Uint8Array(0);
  #second = -1;
  #secondText: Uint8Array = new Uint8Array(0);

  constructor(out: TextBuffer, names: ProcessNames, formats: ReadonlyMap<string, readonly Piece[]>) {
    this.out = out;
    this.#names = names;
    this.#formats = formats;
  }

  /** Whether the default format is printed for an action. */
  isDefault(action: string): boolean {
    return this.#formats.size === 0 || !this.#formats.has(action[0]!);
  }

  /** `action` as blkparse's letters; `elapsed` ns, or NO_TIME or UNKNOWN_TIME. */
  line(batch: RecordBatch, index: number, action: string, cpu: number, time: number, elapsed: number): void {
    const pieces = this.#formats.size === 0 ? undefined : this.#formats.get(action[0]!);
    if (pieces !== undefined) {
      const packet = (batch.category[index]! & Category.PC) !== 0 && (action === 'D' || action === 'C' || action === 'I');
      writeFormat(this.out, pieces, {
        batch, index, action, cpu, time, elapsed, payload: packet ? payloadOf(batch, index) : null, name: this.#process(batch.pid[index]!).name, epochNs: this.epochNs,
      });
      return;
    }
    this.out.reserve(LINE_BYTES);
    this.#head(action === 'A' ? payloadWord(batch, index, 4, 4) : batch.device[index]!, cpu);
    const { out } = this;
    out.number(batch.sequence[index]! | 0, 8);
    out.byte(SPACE);
    this.#time(time);
    const process = this.#process(batch.pid[index]!);
    out.raw(process.pid);
    if (action.length === 1) out.byte(SPACE);
    for (let at = 0; at < action.length; at++) out.byte(action.charCodeAt(at));
    out.byte(SPACE);
    out.raw(rwbsColumn(batch.category[index]!, batch.bytes[index]!));
    this.#tail(batch, index, action, elapsed, process);
  }

  /** A message, whose fields besides time and text are always the same. */
  message(batch: RecordBatch, index: number, time: number): void {
    const payload = payloadOf(batch, index);
    if (payload.length === 0) return;
    const end = payload.indexOf(0);
    this.out.reserve(LINE_BYTES);
    this.#head(batch.device[index]!, batch.cpu[index]!);
    this.out.raw(NO_SEQUENCE);
    this.#time(time);
    this.out.raw(MESSAGE_FIELDS);
    this.out.text(end < 0 ? payload : payload.subarray(0, end));
    this.out.byte(NEWLINE);
  }

  #head(device: number, cpu: number): void {
    if (device !== this.#prefixDevice || cpu !== this.#prefixCpu) {
      this.#prefixDevice = device;
      this.#prefixCpu = cpu;
      this.#prefix = bytesOf(`${String(majorOf(device)).padStart(3)},${String(minorOf(device)).padEnd(3)} ${String(cpu | 0).padStart(2)} `);
    }
    this.out.raw(this.#prefix);
  }

  #time(time: number): void {
    if (time < 0) return this.#timeBefore(time);
    const second = Math.floor(time / 1e9);
    if (second !== this.#second) {
      this.#second = second;
      this.#secondText = bytesOf(String(second | 0).padStart(5));
    }
    this.out.raw(this.#secondText);
    this.out.byte(POINT);
    this.out.nanoseconds(time - second * 1e9);
    this.out.byte(SPACE);
  }

  /** Before time 0 (a stream whose first batch was not its earliest): as C prints what wrapped around. */
  #timeBefore(time: number): void {
    const wrapped = BigInt.asUintN(64, BigInt(time));
    this.out.number(Number(BigInt.asIntN(32, wrapped / 1_000_000_000n)), 5);
    this.out.byte(POINT);
    this.out.nanoseconds(Number(wrapped % 1_000_000_000n));
    this.out.byte(SPACE);
  }

  #process(pid: number): CachedProcess {
    if (this.#names.version !== this.#namesVersion) {
      this.#namesVersion = this.#names.version;
      this.#processes.clear();
      this.#lastPid = -1;
    }
    if (pid === this.#lastPid) return this.#lastProcess!;
    let found = this.#processes.get(pid);
    if (found === undefined) {
      const name = this.#names.find(pid)?.comm ?? NO_NAME;
      found = { name, pid: bytesOf(`${String(pid).padStart(5)} `), bracketed: Buffer.concat([OPEN_ERROR, name, CLOSE_ERROR]) };
      // pids are never that many: a trace that makes them up costs time, not memory
      if (this.#processes.size > 0x1_0000) this.#processes.clear();
      this.#processes.set(pid, found);
    }
    this.#lastPid = pid;
    this.#lastProcess = found;
    return found;
  }

  #tail(batch: RecordBatch, index: number, action: string, elapsed: number, process: CachedProcess): void {
    const { out } = this;
    switch (action) {
      case 'R': case 'C':
        if ((batch.category[index]! & Category.PC) !== 0) this.#packet(batch, index, action);
        else this.#range(batch, index, elapsed, true);
        out.raw(OPEN_ERROR);
        out.number(batch.error[index]!);
        return out.raw(CLOSE_ERROR);
      case 'D': case 'I': case 'Q': case 'B':
        if ((batch.category[index]! & Category.PC) !== 0) {
          out.number(batch.bytes[index]!);
          out.byte(SPACE);
          this.#packet(batch, index, action);
        } else this.#range(batch, index, elapsed, false);
        return out.raw(process.bracketed);
      case 'M': case 'F': case 'G': case 'S':
        this.#range(batch, index, NO_TIME, false);
        return out.raw(process.bracketed);
      case 'P': return out.raw(process.bracketed);
      case 'U': case 'UT':
        out.raw(process.bracketed.subarray(0, -1));
        out.byte(SPACE);
        out.number(payloadInt(batch, index));
        return out.byte(NEWLINE);
      case 'A': return this.#remap(batch, index);
      default: return this.#split(batch, index, process);
    }
  }

  /** `SECTOR + N `, with the time that it took; a request of no bytes has no sector, unless it is done. */
  #range(batch: RecordBatch, index: number, elapsed: number, done: boolean): void {
    const { out } = this;
    const sectors = batch.bytes[index]! >>> 9;
    if (sectors > 0 || done) out.number(batch.sector[index]!);
    if (sectors > 0) {
      out.raw(PLUS);
      out.number(sectors);
    }
    if (sectors > 0 || done) out.byte(SPACE);
    if (elapsed < 0) return;
    out.raw(OPEN_TIME);
    out.number(elapsed, 8);
    out.raw(CLOSE_TIME);
  }

  #packet(batch: RecordBatch, index: number, action: string): void {
    // of the others blkparse does not look at the payload
    if (batch.pduLength[index] === 0 || !'DIC'.includes(action)) return;
    this.out.text(`(${payloadHex(payloadOf(batch, index))}) `);
  }

  #remap(batch: RecordBatch, index: number): void {
    const { out } = this;
    const from = payloadWord(batch, index, 0, 4);
    out.number(batch.sector[index]!);
    out.raw(PLUS);
    out.number(batch.bytes[index]! >>> 9);
    out.text(` <- (${majorOf(from)},${minorOf(from)}) `);
    out.number(payloadWord(batch, index, 8, 8));
    out.byte(NEWLINE);
  }

  #split(batch: RecordBatch, index: number, process: CachedProcess): void {
    const { out } = this;
    out.number(batch.sector[index]!);
    out.text(' / ');
    out.number(payloadInt(batch, index));
    out.byte(SPACE);
    out.raw(process.bracketed);
  }
}
