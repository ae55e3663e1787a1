/** The records of one file or stream as blocks in order of time. */
import { Columns } from './columns.js';
import type { RecordDecoder } from './decoder.js';
import { LIVE_DELAY_MS, type Intake } from './intake.js';

export interface OrderedOptions {
  /** Records per block, and how many of them are kept back for later ones that belong before them. */
  readonly capacity: number;
  readonly hold: number;
}

export class OrderedStream {
  readonly #intake: Intake;
  readonly #hold: number;
  #filling: Columns;
  #spare: Columns;
  #sorted: Columns | null = null;
  #checked = 0;
  #lastTime = -Infinity;
  #newest = -Infinity;
  #floor = -Infinity;
  #disordered = false;

  constructor(intake: Intake, options: OrderedOptions) {
    this.#intake = intake;
    this.#hold = options.hold;
    this.#filling = new Columns(options.capacity);
    this.#spare = new Columns(options.capacity);
  }

  get decoder(): RecordDecoder { return this.#intake.decoder; }
  get bytesRead(): number { return this.#intake.bytesRead; }

  /** The next block, lent until the next call; null at the end. Never empty. */
  async next(): Promise<Columns | null> {
    const { clock } = this.#intake;
    const started = clock.monotonicMs();
    for (let flush = false; ;) {
      const full = this.#intake.decode(this.#filling, flush);
      this.#check();
      const waited = this.#intake.live && clock.monotonicMs() - started >= LIVE_DELAY_MS;
      const last = this.#intake.ended && !full;
      const block = this.#emit(last || flush || waited ? 0 : this.#hold, full);
      if (block !== null) return block;
      if (last) return null;
      // a live source that is silent is not waited for while records are kept back
      if (!full) flush = !(await this.#intake.fill(this.#filling.count === 0));
    }
  }

  close(): Promise<void> {
    return this.#intake.close();
  }

  /** Records without a moment of their own get that of the event before them (`blkparse -d` leaves their times as they were). */
  #place(): void {
    const { time, count } = this.#filling;
    for (let index = this.#checked; index < count; index++) {
      if (this.#filling.isTimeless(index)) time[index] = this.#lastTime;
      else this.#lastTime = time[index]!;
    }
  }

  #check(): void {
    this.#place();
    const { time, count } = this.#filling;
    for (let index = this.#checked; index < count; index++) {
      const at = time[index]!;
      if (at >= this.#newest) {
        this.#newest = at;
        continue;
      }
      if (!this.#filling.isTimeless(index)) this.decoder.findings.outOfOrder++;
      this.#disordered = true;
      if (at < this.#floor) time[index] = this.#floor;
    }
    this.#checked = count;
  }

  /** Hands on all but the last `hold` records; null where those are all. */
  #emit(hold: number, full: boolean): Columns | null {
    const total = this.#filling.count;
    const count = full ? Math.max(total - hold, Math.ceil(total / 2)) : total - hold;
    if (count <= 0) return null;
    if (this.#disordered) this.#sort();
    const block = this.#filling;
    const kept = this.#spare;
    kept.clear();
    for (let index = count; index < total; index++) kept.append(block, index);
    block.count = count;
    this.#filling = kept;
    this.#spare = block;
    this.#checked = kept.count;
    this.#floor = block.time[count - 1]!;
    return block;
  }

  #sort(): void {
    const { time, count, capacity } = this.#filling;
    const order = new Uint32Array(count);
    for (let index = 0; index < count; index++) order[index] = index;
    order.sort((a, b) => time[a]! - time[b]! || a - b);
    const sorted = this.#sorted ?? new Columns(capacity);
    sorted.clear();
    for (const index of order) sorted.append(this.#filling, index);
    this.#sorted = this.#filling;
    this.#filling = sorted;
    this.#disordered = false;
  }
}
