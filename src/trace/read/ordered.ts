/** The records of one file or stream as blocks in order of time. */
import { systemClock, type Clock } from '../../base/clock.js';
import type { ByteSource } from './byte-source.js';
import { Columns } from './columns.js';
import type { RecordDecoder } from './decoder.js';

/** What a live source delivered is handed on after so long, whether more comes or not. */
const LIVE_DELAY_MS = 250;

export interface OrderedOptions {
  /** Records per block, and how many of them are kept back for later ones that belong before them. */
  readonly capacity: number;
  readonly hold: number;
  readonly clock?: Clock | undefined;
}

export class OrderedStream {
  readonly decoder: RecordDecoder;
  bytesRead = 0;
  readonly #source: ByteSource;
  readonly #hold: number;
  readonly #clock: Clock;
  #filling: Columns;
  #spare: Columns;
  #sorted: Columns | null = null;
  #reading: Promise<number> | null = null;
  #ended = false;
  #checked = 0;
  #lastTime = -Infinity;
  #newest = -Infinity;
  #floor = -Infinity;
  #disordered = false;

  constructor(source: ByteSource, decoder: RecordDecoder, options: OrderedOptions) {
    this.#source = source;
    this.decoder = decoder;
    this.#hold = options.hold;
    this.#clock = options.clock ?? systemClock;
    this.#filling = new Columns(options.capacity);
    this.#spare = new Columns(options.capacity);
  }

  /** The next block, lent until the next call; null at the end. Never empty. */
  async next(): Promise<Columns | null> {
    const started = this.#clock.monotonicMs();
    for (let flush = false; ;) {
      const full = this.decoder.decode(this.#filling, this.#ended, flush);
      this.#check();
      const waited = this.#source.live && this.#clock.monotonicMs() - started >= LIVE_DELAY_MS;
      const block = this.#emit(this.#ended && !full ? 0 : flush || waited ? 0 : this.#hold, full);
      if (block !== null) return block;
      if (this.#ended && !full) return null;
      if (!full) flush = !(await this.#fill());
    }
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  /** Whether anything came (or the end): a live source that is silent is not waited for while records are kept back. */
  async #fill(): Promise<boolean> {
    this.#reading ??= this.#source.read(this.decoder.space());
    const patient = !this.#source.live || this.#filling.count === 0;
    const got = patient ? await this.#reading : await Promise.race([this.#reading, this.#silence()]);
    if (got === null) return false;
    this.#reading = null;
    this.#ended = got === 0;
    this.decoder.filled(got);
    this.bytesRead += got;
    return true;
  }

  async #silence(): Promise<null> {
    await this.#clock.sleep(LIVE_DELAY_MS);
    return null;
  }

  /** Records without a moment of their own keep their place: not before the event before them, nor after the one behind (`blkparse -d` leaves their times as they were). */
  #place(): void {
    const { time, count } = this.#filling;
    let pending = this.#checked;
    for (let index = pending; index < count; index++) {
      if (this.#filling.isTimeless(index)) continue;
      const at = time[index]!;
      for (; pending < index; pending++) time[pending] = Math.min(Math.max(time[pending]!, this.#lastTime), at);
      pending = index + 1;
      this.#lastTime = at;
    }
    time.fill(this.#lastTime, pending, count);
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
