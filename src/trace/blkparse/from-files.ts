/**
 * Per-CPU files, merged as blkparse merges them: by the time of each file's next event, and no further. Each file is read ahead by a
 * batch of events, so the names in that batch are known before its first event is shown.
 */
import { Columns } from '../read/columns.js';
import type { Intake } from '../read/intake.js';
import type { CpuState, DeviceState } from './devices.js';
import type { Session } from './session.js';

const SPARE_RECORDS = 4096;

/** One file, and how far it is read, primed and shown. */
class Feed {
  /** Records of other CPUs than the file is of: blkparse drops them. */
  foreign = 0;
  readonly device: DeviceState;
  readonly cpu: CpuState;
  readonly #session: Session;
  readonly #intake: Intake;
  readonly #isOfOneCpu: boolean;
  #block: Columns;
  #spare: Columns;
  /** The next event, and the end of what is primed. */
  #at = 0;
  #primed = 0;
  #hasMore = true;

  /** `cpu` null: of all CPUs, as a merged dump is. */
  constructor(session: Session, intake: Intake, device: DeviceState, cpu: number | null, records: number) {
    this.#session = session;
    this.#intake = intake;
    this.device = device;
    this.#isOfOneCpu = cpu !== null;
    this.cpu = device.cpu(cpu ?? 0);
    this.#block = new Columns(records);
    this.#spare = new Columns(records);
  }

  /** Of the next event. */
  get time(): number { return this.#block.time[this.#at]!; }

  /** Reads the next batch of events ahead; false where there is none. */
  async prime(): Promise<boolean> {
    const { batch } = this.#session.options;
    let seen = 0;
    let shown = 0;
    while (seen < batch) {
      if (this.#primed === this.#block.count) {
        if (!await this.#refill()) break;
        continue;
      }
      const index = this.#primed++;
      if (this.#isForeign(index)) seen++;
      else if (this.#block.isTimeless(index)) this.#session.notify(this.#block, index);
      else {
        seen++;
        shown++;
      }
    }
    this.#skipToEvent();
    return shown > 0;
  }

  /** Shows events up to the time `limit`, as long as they are primed; false after the end of the span. */
  show(limit: number): boolean {
    const { device, cpu } = this;
    const session = this.#session;
    const { mask, from, to } = session.options;
    const block = this.#block;
    while (this.#at < this.#primed && block.time[this.#at]! <= limit && !session.ripe) {
      const index = this.#at;
      const time = block.time[index]! - session.genesis;
      const its = this.#isOfOneCpu ? cpu : device.cpu(block.cpu[index]!);
      its.records++;
      // what is before time 0 is late for blkparse, whose times have no sign
      if (time > to || (time < 0 && to !== Infinity)) return false;
      device.lastTime = time;
      if ((block.category[index]! & mask) !== 0 && (time >= from || time < 0)) session.event(block, index, time, device, its);
      this.#at++;
      this.#skipToEvent();
    }
    return true;
  }

  get exhausted(): boolean { return this.#at === this.#primed; }

  #isForeign(index: number): boolean {
    if (!this.#isOfOneCpu || this.#block.cpu[index] === this.cpu.cpu) return false;
    this.foreign++;
    return true;
  }

  #skipToEvent(): void {
    const block = this.#block;
    while (this.#at < this.#primed && (block.isTimeless(this.#at) || (this.#isOfOneCpu && block.cpu[this.#at] !== this.cpu.cpu))) this.#at++;
  }

  /** More records behind those that are primed and not shown. */
  async #refill(): Promise<boolean> {
    if (!this.#hasMore) return false;
    const [old, block] = [this.#block, this.#spare];
    block.clear();
    for (let index = this.#at; index < old.count; index++) block.append(old, index);
    this.#primed -= this.#at;
    this.#at = 0;
    this.#block = block;
    this.#spare = old;
    while (!this.#intake.decode(block)) {
      if (this.#intake.ended) {
        this.#hasMore = false;
        break;
      }
      await this.#intake.fill(true);
    }
    return this.#primed < block.count;
  }
}

export interface FeedSource {
  readonly intake: Intake;
  readonly device: DeviceState;
  readonly cpu: number | null;
}

/** Resolves with the number of records that were in the file of another CPU. */
export async function showFiles(session: Session, sources: readonly FeedSource[]): Promise<number> {
  const records = session.options.batch + Math.max(SPARE_RECORDS, Math.min(4 * SPARE_RECORDS, Math.floor(0x1_0000 / sources.length)));
  const feeds = sources.map(({ intake, device, cpu }) => new Feed(session, intake, device, cpu, records));
  const order: Feed[] = [];
  for (const feed of feeds) if (await feed.prime()) insert(order, feed);
  session.genesis = order[0]?.time ?? 0;
  while (order.length > 0) {
    const feed = order[0]!;
    if (!feed.show(order[1]?.time ?? Infinity)) break;
    if (session.ripe) await session.flush();
    const more = !feed.exhausted || await feed.prime();
    if (!more) order.shift();
    else if (order.length > 1 && feed.time > order[1]!.time) {
      order.shift();
      insert(order, feed);
    }
  }
  return feeds.reduce((sum, { foreign }) => sum + foreign, 0);
}

/** Where blkparse puts a file: behind all that are earlier, but never first without being earlier than the first. */
function insert(order: Feed[], feed: Feed): void {
  const { time } = feed;
  if (order.length === 0 || time < order[0]!.time) {
    order.unshift(feed);
    return;
  }
  let at = 0;
  while (at + 1 < order.length && order[at + 1]!.time < time) at++;
  order.splice(at + 1, 0, feed);
}
