/**
 * How much the background may have in flight where users' writes wait for the same target (copy-mode write-blocking, without
 * `auto`, which decides that itself): so much as keeps the target busy, and no queue that each of those writes would wait behind.
 */
import { alignDown, KiB } from '../../base/bytes.js';
import type { CopierLimits } from './copier.js';

/** So long what is in flight keeps the target busy, where guests write. */
const IN_FLIGHT_MS = 250;
/** But for twice the time that one copy takes where nothing waits: less would leave the target idle. */
const ROUND_TRIPS = 2;
/** The rate follows changes within about this time. */
const SMOOTHING_MS = 500;
const LOOK_MS = 25;
/** What is once under way cannot be taken back: begin gently, until so much is known. */
const FIRST: CopierLimits = { operations: 4, operationBytes: 256 * KiB };
const KNOWN_MS = 250;
/** So many times as much where no guest has written lately: the first one that does finds no long queue either. */
const CALM = 4;
const LATELY_MS = 10_000;
/** One is read while another is written. */
const LEAST_OPERATIONS = 2;

export interface CourtesyOptions {
  readonly full: CopierLimits;
  readonly granularity: number;
  /** So much copied tells enough of a target that is fast. */
  readonly knownBytes: number;
}

/** Bytes and milliseconds in, limits out. */
export class Courtesy {
  readonly #options: CourtesyOptions;
  #limits: CopierLimits;
  #calmLimits: CopierLimits;
  #lastMs = 0;
  #lastWritten = 0;
  #knownMs = 0;
  #knownBytes = 0;
  #rate = 0;
  #leastMs = Infinity;

  constructor(options: CourtesyOptions) {
    this.#options = options;
    this.#limits = this.#within(FIRST);
    this.#calmLimits = this.#limits;
  }

  /** `guestMs`: when a user's write last went through to the target. */
  limits(nowMs: number, guestMs: number): Readonly<CopierLimits> {
    return nowMs - guestMs > LATELY_MS ? this.#calmLimits : this.#limits;
  }

  /** Before more is started; `written`: what the target has taken since the beginning. One that had nothing to do tells nothing. */
  look(nowMs: number, written: number, busy: boolean): void {
    const elapsed = nowMs - this.#lastMs;
    if (busy && elapsed < LOOK_MS) return;
    if (busy) this.#measure(elapsed, written - this.#lastWritten);
    this.#lastMs = nowMs;
    this.#lastWritten = written;
  }

  /** A copy of data took so long. */
  ended(ms: number): void {
    this.#leastMs = Math.min(this.#leastMs, ms);
  }

  #measure(elapsed: number, bytes: number): void {
    this.#knownMs += elapsed;
    this.#knownBytes += bytes;
    this.#rate += (bytes * 1000 / elapsed - this.#rate) * Math.max(elapsed / this.#knownMs, 1 - Math.exp(-elapsed / SMOOTHING_MS));
    if (this.#knownMs < KNOWN_MS && this.#knownBytes < this.#options.knownBytes) return;
    const ms = this.#leastMs === Infinity ? IN_FLIGHT_MS : Math.max(IN_FLIGHT_MS, ROUND_TRIPS * this.#leastMs);
    this.#limits = this.#inFlight(ms);
    this.#calmLimits = this.#inFlight(CALM * ms);
  }

  /** Work for so long. */
  #inFlight(ms: number): CopierLimits {
    const bytes = this.#rate * ms / 1000;
    // fewer first, then smaller: a target may count operations
    const { operationBytes } = this.#within({ operations: 1, operationBytes: bytes / LEAST_OPERATIONS });
    return this.#within({ operations: Math.max(LEAST_OPERATIONS, Math.floor(bytes / operationBytes)), operationBytes });
  }

  #within({ operations, operationBytes }: CopierLimits): CopierLimits {
    const { full, granularity } = this.#options;
    return { operations: Math.min(full.operations, operations), operationBytes: Math.min(full.operationBytes, Math.max(granularity, alignDown(operationBytes, granularity))) };
  }
}
