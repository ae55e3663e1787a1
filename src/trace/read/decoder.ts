/**
 * Bytes to records. A stream of records has neither header nor index, so the magic of the next record proves the end of each: the
 * length of a header (48 bytes in version 7, 64 in 8) is what fits, whatever the version byte says, for some kernels wrote
 * the wrong one. Where nothing fits, the next place where it does is searched and what lies between is counted.
 */
import { TWO_32 } from '../../base/bytes.js';
import { Category, CGROUP_FLAG, HEADER_BYTES, MAGIC, Notify, type ReadFindings } from '../record.js';
import type { Columns } from './columns.js';

type Header = (typeof HEADER_BYTES)[keyof typeof HEADER_BYTES];
/** `later`: the data does not reach so far yet. */
type Fit = 'yes' | 'no' | 'later';

const LONGEST_RECORD = HEADER_BYTES[8] + 0xffff;
/** Of the space for undecoded bytes: two records and the magic behind them. */
export const MIN_BUFFER_BYTES = 2 * (LONGEST_RECORD + 4);
/** A payload full of false magics takes no longer than this. */
const MAX_CANDIDATES = 64;
/** Names of processes; a trace that makes up more is not remembered. */
const MAX_NAMES = 0x4_0000;
/** The three bytes of a magic that no version changes, and how far into a record they are. */
const MARK = { little: { bytes: Buffer.from('tae'), at: 1 }, big: { bytes: Buffer.from('eat'), at: 0 } } as const;

/** What the files of one trace share: times are told relative to one high word, so that they are exact (those of events; a dump's notifications may be far from them). */
export interface TimeBase {
  /** Of the first event that was seen, once there is any record. */
  high: number | null;
}

/** The wall clock, ns since 1970, at a time as it stands in records. */
export interface WallClock {
  readonly epochNs: bigint;
  readonly at: bigint;
}

export class RecordDecoder {
  readonly findings: ReadFindings;
  wallClock: WallClock | null = null;
  /** Whether any record was found. */
  found = false;
  readonly #base: TimeBase;
  readonly #names: Map<number, string>;
  readonly #buffer: Buffer;
  readonly #view: DataView;
  #at = 0;
  #end = 0;
  #little = true;
  /** 0: lost, or not begun. */
  #header: Header | 0 = 0;
  #inSkip = false;
  /** From where a magic was searched, and where it is, -1 for nowhere. */
  readonly #knownLittle = { from: Infinity, found: -1 };
  readonly #knownBig = { from: Infinity, found: -1 };

  constructor(bufferBytes: number, base: TimeBase, names: Map<number, string>, findings: ReadFindings) {
    this.#buffer = Buffer.alloc(Math.max(bufferBytes, MIN_BUFFER_BYTES));
    this.#view = new DataView(this.#buffer.buffer, this.#buffer.byteOffset, this.#buffer.length);
    this.#base = base;
    this.#names = names;
    this.findings = findings;
  }

  /** Where the next bytes are to go; never empty after `decode` asked for more. */
  space(): Uint8Array {
    this.#buffer.copyWithin(0, this.#at, this.#end);
    this.#end -= this.#at;
    this.#at = 0;
    return this.#buffer.subarray(this.#end);
  }

  /** So many bytes were put there. */
  filled(bytes: number): void {
    this.#knownLittle.from = this.#knownBig.from = Infinity;
    this.#end += bytes;
  }

  /**
   * Appends records until `into` is full (true), or more bytes are needed (false). With `atEnd` there are no more. A record waits for
   * the magic behind it, unless that is `hasty`.
   */
  decode(into: Columns, atEnd: boolean, hasty = false): boolean {
    while (!into.full) {
      if (this.#header === 0 && !this.#search(atEnd)) break;
      const header = this.#header as Header;
      const fit = this.#fitHere(header, atEnd, hasty);
      if (fit === 'later') break;
      if (this.#base.high === null && fit !== 'no' && !this.#setBase(header, atEnd || hasty)) break;
      if (fit !== 'no') this.#take(into, header);
      // the record is whole, and what is behind it is not one
      if (fit !== 'yes') this.#header = 0;
    }
    return into.full;
  }

  /** `alone`: whole, though no record is behind it. */
  #fitHere(header: Header, atEnd: boolean, hasty: boolean): Fit | 'alone' {
    if (!this.#isMagic(this.#at)) return this.#end - this.#at >= 4 || atEnd ? 'no' : 'later';
    const fit = this.#fit(this.#at, header, atEnd, hasty);
    return fit === 'no' ? this.#fitAlone(header, atEnd) : fit;
  }

  /** A record whose successor is missing: itself fine, or is its length a lie that hides others? */
  #fitAlone(header: Header, atEnd: boolean): Fit | 'alone' {
    const at = this.#at;
    if (this.#end - at < header) return 'no';
    const next = at + header + this.#pduLength(at, header);
    let candidate = at + header;
    for (let tries = 0; tries < MAX_CANDIDATES; tries++) {
      candidate = this.#nextMagic(candidate);
      if (candidate < 0 || candidate >= next) break;
      const fit = this.#fit(candidate, header, atEnd, false);
      if (fit !== 'no') return fit === 'yes' ? 'no' : 'later';
      candidate++;
    }
    return next <= this.#end ? 'alone' : 'no';
  }

  /** Goes on to the next place where a record fits. */
  #search(atEnd: boolean): boolean {
    for (;;) {
      const candidate = this.#nextRecord();
      if (candidate < 0) {
        this.#skip(atEnd ? this.#end - this.#at : Math.max(0, this.#end - this.#at - 3));
        return false;
      }
      this.#skip(candidate - this.#at);
      const isNew = this.#versionAt(candidate) === 8;
      const likely = HEADER_BYTES[isNew ? 8 : 7];
      for (const header of [likely, HEADER_BYTES[isNew ? 7 : 8]]) {
        const fit = this.#fit(candidate, header, atEnd, false);
        if (fit === 'later') return false;
        if (fit === 'no') continue;
        this.#header = header;
        this.#inSkip = false;
        return true;
      }
      // the only record that there is has nothing behind it that could prove it
      if (atEnd && !this.found && this.#end - candidate >= likely && this.#end - candidate - likely >= this.#pduLength(candidate, likely)) {
        this.#header = likely;
        return true;
      }
      this.#skip(1);
    }
  }

  /** As `#nextMagic`; before the first record in either byte order. */
  #nextRecord(): number {
    if (this.found) return this.#nextMagic(this.#at);
    this.#little = false;
    const big = this.#nextMagic(this.#at);
    this.#little = true;
    const little = this.#nextMagic(this.#at);
    if (big >= 0 && (little < 0 || big < little)) {
      this.#little = false;
      return big;
    }
    return little;
  }

  #nextMagic(from: number): number {
    const known = this.#little ? this.#knownLittle : this.#knownBig;
    // what was looked through once is not looked through again until there are more bytes
    if (from >= known.from && (known.found < 0 || from <= known.found)) return known.found;
    const { bytes, at } = this.#little ? MARK.little : MARK.big;
    known.from = from;
    for (let search = from + at; ;) {
      const found = this.#buffer.indexOf(bytes, search);
      if (found < 0 || found - at + 4 > this.#end) return known.found = -1;
      if (this.#isMagic(found - at)) return known.found = found - at;
      search = found + 1;
    }
  }

  #isMagic(at: number): boolean {
    if (at + 4 > this.#end) return false;
    const version = this.#view.getUint32(at, this.#little) - MAGIC;
    return version === 7 || version === 8;
  }

  #versionAt(at: number): number {
    return this.#view.getUint32(at, this.#little) - MAGIC;
  }

  #pduLength(at: number, header: Header): number {
    return this.#view.getUint16(at + (header === HEADER_BYTES[7] ? 46 : 50), this.#little);
  }

  #fit(at: number, header: Header, atEnd: boolean, hasty: boolean): Fit {
    const missing = atEnd ? 'no' : 'later';
    if (this.#end - at < header) return missing;
    const next = at + header + this.#pduLength(at, header);
    if (next + 4 <= this.#end) return this.#isMagic(next) ? 'yes' : 'no';
    if (next === this.#end && (atEnd || hasty)) return 'yes';
    return missing;
  }

  #skip(bytes: number): void {
    if (bytes <= 0) return;
    if (!this.#inSkip) this.findings.skips++;
    this.#inSkip = true;
    this.findings.skippedBytes += bytes;
    this.#at += bytes;
  }

  #take(into: Columns, header: Header): void {
    const { view, little, at } = { view: this.#view, little: this.#little, at: this.#at };
    const index = into.count++;
    const low = view.getUint32(at + (little ? 8 : 12), little);
    const high = view.getUint32(at + (little ? 12 : 8), little);
    into.sequence[index] = view.getUint32(at + 4, little);
    into.sector[index] = view.getUint32(at + (little ? 20 : 16), little) * TWO_32 + view.getUint32(at + (little ? 16 : 20), little);
    into.bytes[index] = view.getUint32(at + 24, little);
    const tail = header === HEADER_BYTES[7] ? at + 32 : at + 40;
    const action = header === HEADER_BYTES[7] ? view.getUint32(at + 28, little) : view.getUint32(at + (little ? 32 : 36), little);
    into.pid[index] = view.getUint32(header === HEADER_BYTES[7] ? at + 32 : at + 28, little);
    const rest = header === HEADER_BYTES[7] ? tail + 4 : tail;
    into.device[index] = view.getUint32(rest, little);
    into.cpu[index] = view.getUint32(rest + 4, little);
    into.error[index] = view.getUint16(rest + 8, little);
    const upper = header === HEADER_BYTES[7] ? 0 : view.getUint32(at + (little ? 36 : 32), little) * 0x1_0000;
    const category = (action >>> 16) + upper;
    into.category[index] = category;
    const code = action & 0xffff;
    into.action[index] = (code & ~CGROUP_FLAG) <= 0xff ? code & 0xff : 0xff;
    const pdu = at + header;
    const end = pdu + view.getUint16(rest + 10, little);
    const start = (code & CGROUP_FLAG) === 0 ? pdu : Math.min(end, pdu + 8);
    into.setPayload(index, this.#buffer, start, end);
    this.#at = end;
    this.found = true;
    this.#inSkip = false;
    into.time[index] = (high - this.#base.high!) * TWO_32 + low;
    if ((category & Category.NOTIFY) !== 0) this.#notify(into, index, high, low);
  }

  /** Finds the first event, here or behind notifications; false where it may be in bytes that are to come. */
  #setBase(header: Header, now: boolean): boolean {
    const high = (record: number): number => this.#view.getUint32(record + (this.#little ? 12 : 8), this.#little);
    let record = this.#at;
    while (record + header <= this.#end && this.#isMagic(record)) {
      const action = this.#view.getUint32(record + (header === HEADER_BYTES[7] ? 28 : this.#little ? 32 : 36), this.#little);
      if ((action >>> 16 & Category.NOTIFY) === 0 || (action & 0xff) === Notify.MESSAGE) {
        this.#base.high = high(record);
        return true;
      }
      record += header + this.#pduLength(record, header);
    }
    const mayCome = !now && record + LONGEST_RECORD < this.#buffer.length;
    if (!mayCome) this.#base.high = high(this.#at);
    return !mayCome;
  }

  #notify(into: Columns, index: number, high: number, low: number): void {
    const from = into.pduOffset[index]!;
    const length = into.pduLength[index]!;
    if (into.action[index] === Notify.PROCESS && this.#names.size < MAX_NAMES) {
      const name = Buffer.from(into.payloads.buffer, from, length);
      const end = name.indexOf(0);
      this.#names.set(into.pid[index]!, name.toString('utf8', 0, end < 0 ? length : end));
    } else if (into.action[index] === Notify.TIMESTAMP && length === 8) {
      const payload = new DataView(into.payloads.buffer, from, length);
      const seconds = payload.getUint32(0, this.#little);
      const nanoseconds = payload.getUint32(4, this.#little);
      // from here on its numbers are as in all other files
      payload.setUint32(0, seconds, true);
      payload.setUint32(4, nanoseconds, true);
      this.wallClock ??= { epochNs: BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds), at: BigInt(high) * BigInt(TWO_32) + BigInt(low) };
    }
  }
}
