/**
 * One stream of all CPUs, as blkparse takes it from a pipe: read by batches, each sorted into what is held back. A record is held
 * back until the one before it, by the sequence of its CPU, was shown; at the end all are shown, and what never came is counted.
 */
import { Category, type RecordBatch } from '../record.js';
import { Columns } from '../read/columns.js';
import type { Intake } from '../read/intake.js';
import { DeviceState } from './devices.js';
import type { Session } from './session.js';

/** So many records are held back at most: then the earlier half is shown, whatever is missing. blkparse has no such limit. */
const MAX_HELD = 2_000_000;
const BLOCK_RECORDS = 4096;

/** Sorted records. */
interface Run {
  readonly columns: Columns;
  at: number;
}

export async function showStream(session: Session, intake: Intake): Promise<void> {
  const held = new Held(session);
  const batches = new Batches(session, intake);
  for (let batch = await batches.next(held); batch !== null; batch = await batches.next(held)) {
    if (!held.add(batch)) break;
    while (held.show(false)) await session.flush();
    while (held.count > MAX_HELD) if (held.show(true, MAX_HELD / 2)) await session.flush();
    if (batches.caughtUp) await session.flush();
  }
  while (held.show(true)) await session.flush();
}

class Batches {
  /** The source has no more just now. */
  caughtUp = false;
  readonly #session: Session;
  readonly #intake: Intake;
  readonly #batch: Columns;
  readonly #block = new Columns(BLOCK_RECORDS);
  #at = 0;

  constructor(session: Session, intake: Intake) {
    this.#session = session;
    this.#intake = intake;
    this.#batch = new Columns(session.options.batch);
  }

  /** The next events, as many as are read together, or those that there are when the source falls silent. Names take effect at once. */
  async next(held: Held): Promise<Columns | null> {
    const [batch, block] = [this.#batch, this.#block];
    batch.clear();
    this.caughtUp = false;
    for (;;) {
      while (this.#at < block.count && !batch.full) {
        const index = this.#at++;
        if (block.isTimeless(index)) this.#session.notify(block, index);
        else {
          batch.append(block, index);
          held.device(block.device[index]!);
        }
      }
      if (batch.full || (this.caughtUp && batch.count > 0)) return batch;
      if (!await this.#decode(batch.count === 0)) return batch.count > 0 ? batch : null;
    }
  }

  async #decode(patient: boolean): Promise<boolean> {
    this.#block.clear();
    this.#at = 0;
    this.#intake.decode(this.#block, this.caughtUp);
    if (this.#block.count > 0) return true;
    if (this.#intake.ended) return false;
    this.caughtUp = !await this.#intake.fill(patient);
    return true;
  }
}

class Held {
  count = 0;
  readonly #session: Session;
  /** Larger ones first; each at most half as large as the one before it. */
  readonly #runs: Run[] = [];
  #hasGenesis = false;

  constructor(session: Session) {
    this.#session = session;
  }

  /** That of a number. blkparse takes 0 for a number that it does not know yet. */
  device(number: number): DeviceState {
    for (const known of this.#session.devices) {
      if (known.device === 0) known.device = number;
      if (known.device === number) return known;
    }
    const added = new DeviceState(number, null);
    this.#session.devices.push(added);
    return added;
  }

  /** Sorts a batch in; false where all of it lies beyond the span. */
  add(batch: Columns): boolean {
    const session = this.#session;
    const { time, count } = batch;
    const { from, to } = session.options;
    // for blkparse a trace that begins at time 0 has not begun: the next batch sets time 0 anew
    if (!this.#hasGenesis || (session.genesis === 0 && session.base.high === 0)) {
      this.#hasGenesis = true;
      session.genesis = time.subarray(0, count).reduce((least, at) => Math.min(least, at), Infinity);
      session.correctClock();
    }
    let earliest = 0;
    const kept: number[] = [];
    for (let index = count - 1; index >= 0; index--) {
      const at = time[index]! - session.genesis;
      time[index] = at;
      if (earliest === 0 || isEarlier(at, earliest)) earliest = at;
      // -1 is, as a number without sign, the end of an endless span
      if (at < 0 ? to === Infinity && at !== -1 : at >= from && at < to) kept.push(index);
    }
    // of equal ones the last comes first
    kept.sort((a, b) => compare(batch, a, batch, b) || b - a);
    const columns = new Columns(Math.max(1, kept.length));
    for (const index of kept) columns.append(batch, index);
    if (kept.length > 0) this.#push({ columns, at: 0 });
    return earliest < 0 ? to === Infinity : earliest <= to;
  }

  /** Shows what may be shown; all with `force`, down to `left` records. True: stopped to have the output flushed. */
  show(force: boolean, left = 0): boolean {
    const session = this.#session;
    while (this.count > left) {
      if (session.ripe) return true;
      const run = this.#first();
      const { columns, at } = run;
      const device = this.device(columns.device[at]!);
      const cpu = device.cpu(columns.cpu[at]!);
      const sequence = columns.sequence[at]!;
      const isMessage = (columns.category[at]! & Category.NOTIFY) !== 0;
      if (!isMessage) {
        const expected = cpu.lastSequence + 1;
        if (cpu.lastSequence !== -1 && sequence !== expected) {
          if (!force) return false;
          if (!cpu.fillSkip(sequence) && expected < sequence) cpu.addSkip(expected, sequence - 1);
        }
        cpu.lastSequence = sequence;
      }
      device.lastTime = columns.time[at]!;
      cpu.records++;
      if ((columns.category[at]! & session.options.mask) !== 0) session.event(columns, at, columns.time[at]!, device, cpu);
      run.at++;
      this.count--;
      if (run.at === columns.count) this.#runs.splice(this.#runs.indexOf(run), 1);
    }
    return false;
  }

  /** The run with the earliest record; of equal ones the older run's. */
  #first(): Run {
    let first = this.#runs[0]!;
    for (let index = 1; index < this.#runs.length; index++) {
      const run = this.#runs[index]!;
      if (compare(run.columns, run.at, first.columns, first.at) < 0) first = run;
    }
    return first;
  }

  #push(run: Run): void {
    this.count += run.columns.count;
    this.#runs.push(run);
    while (this.#runs.length > 1) {
      const [older, newer] = this.#runs.slice(-2) as [Run, Run];
      if (older.columns.count - older.at > 2 * (newer.columns.count - newer.at)) return;
      this.#runs.splice(-2, 2, mergedRun(older, newer));
    }
  }
}

function mergedRun(older: Run, newer: Run): Run {
  const columns = new Columns(older.columns.count - older.at + newer.columns.count - newer.at);
  let [a, b] = [older.at, newer.at];
  while (a < older.columns.count || b < newer.columns.count) {
    const takeOlder = b === newer.columns.count || (a < older.columns.count && compare(older.columns, a, newer.columns, b) <= 0);
    if (takeOlder) columns.append(older.columns, a++);
    else columns.append(newer.columns, b++);
  }
  return { columns, at: 0 };
}

/** By time as an unsigned number (one before time 0 is late), device and sequence. */
function compare(a: RecordBatch, i: number, b: RecordBatch, j: number): number {
  const [x, y] = [a.time[i]!, b.time[j]!];
  if (x !== y) return isEarlier(x, y) ? -1 : 1;
  return a.device[i]! - b.device[j]! || a.sequence[i]! - b.sequence[j]!;
}

function isEarlier(a: number, b: number): boolean {
  return (a < 0) === (b < 0) ? a < b : b < 0;
}
