/** Several files of one trace, merged by time while they are read. */
import { BlockError } from '../../base/errors.js';
import { TWO_32 } from '../../base/bytes.js';
import type { ReadFindings, RecordBatch, TraceReader } from '../record.js';
import { Columns } from './columns.js';
import type { TimeBase } from './decoder.js';
import type { OrderedStream } from './ordered.js';

/** One file's block and how far it was merged. */
interface Head {
  readonly stream: OrderedStream;
  block: Columns;
  at: number;
}

export interface MergedParts {
  readonly name: string;
  readonly streams: readonly OrderedStream[];
  readonly base: TimeBase;
  readonly findings: ReadFindings;
  readonly processes: ReadonlyMap<number, string>;
  /** Bytes of all files, null where not known. */
  readonly total: number | null;
  /** Records per batch. */
  readonly capacity: number;
}

export class MergedTrace implements TraceReader {
  readonly findings: ReadFindings;
  readonly processes: ReadonlyMap<number, string>;
  readonly #parts: MergedParts;
  /** The time of the first event, told as `TimeBase` has it. */
  #genesis: number | null = null;

  constructor(parts: MergedParts) {
    this.#parts = parts;
    this.findings = parts.findings;
    this.processes = parts.processes;
  }

  get progress(): { bytes: number; total: number | null } {
    return { bytes: this.#parts.streams.reduce((sum, { bytesRead }) => sum + bytesRead, 0), total: this.#parts.total };
  }

  get epochNs(): bigint | null {
    const clock = this.#parts.streams.map(({ decoder }) => decoder.wallClock).find((found) => found !== null);
    if (clock === undefined) return null;
    const first = BigInt(this.#parts.base.high ?? 0) * BigInt(TWO_32) + BigInt(this.#genesis ?? 0);
    // a merged dump counts its events from 0, and leaves this record as it was
    return first === 0n ? clock.epochNs : clock.epochNs + first - clock.at;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<RecordBatch> {
    try {
      const heads: Head[] = [];
      for (const stream of this.#parts.streams) {
        const block = await stream.next();
        if (block !== null) heads.push({ stream, block, at: 0 });
      }
      this.#findGenesis(heads);
      if (heads.length === 1) yield* this.#single(heads[0]!);
      else yield* this.#merge(heads);
      this.#checkFound();
    } finally {
      await Promise.all(this.#parts.streams.map((stream) => stream.close()));
    }
  }

  async *#single({ stream, block: first }: Head): AsyncGenerator<RecordBatch> {
    for (let block: Columns | null = first; block !== null; block = await stream.next()) yield this.#rebased(block);
  }

  async *#merge(heads: Head[]): AsyncGenerator<RecordBatch> {
    const batch = new Columns(this.#parts.capacity);
    while (heads.length > 0) {
      const head = appendRun(heads, batch);
      if (batch.full) {
        yield this.#rebased(batch);
        batch.clear();
      }
      if (head.at < head.block.count) continue;
      // what was merged need not wait for a file that somebody still writes
      const block = await head.stream.next();
      if (block === null) heads.splice(heads.indexOf(head), 1);
      else Object.assign(head, { block, at: 0 });
    }
    if (batch.count > 0) yield this.#rebased(batch);
  }

  /** Blocks that hold nothing but notifications tell no time: then the first batch that has an event does. */
  #findGenesis(heads: readonly Head[]): void {
    for (const { block } of heads) {
      for (let index = 0; index < block.count; index++) {
        if (block.isTimeless(index)) continue;
        this.#genesis = Math.min(this.#genesis ?? Infinity, block.time[index]!);
        break;
      }
    }
  }

  #rebased(batch: Columns): RecordBatch {
    if (this.#genesis === null) this.#findGenesis([{ block: batch } as Head]);
    const genesis = this.#genesis ?? 0;
    const { time, count } = batch;
    for (let index = 0; index < count; index++) time[index] = Math.max(0, time[index]! - genesis);
    return batch;
  }

  #checkFound(): void {
    if (this.#parts.streams.some(({ decoder }) => decoder.found)) return;
    const { bytes } = this.progress;
    if (bytes > 0) throw new BlockError('INVALID_ARGUMENT', `'${this.#parts.name}' is no trace: there is not one blktrace record in its ${bytes} bytes`);
  }
}

/** Appends what comes next: all records of one file that are not later than the next one of any other. */
function appendRun(heads: readonly Head[], batch: Columns): Head {
  let first = heads[0]!;
  let limit = Infinity;
  let inclusive = true;
  for (let index = 1; index < heads.length; index++) {
    const head = heads[index]!;
    const time = head.block.time[head.at]!;
    const best = first.block.time[first.at]!;
    if (time < best) {
      limit = best;
      // the other one comes first in the list
      inclusive = false;
      first = head;
    } else if (time < limit) {
      limit = time;
      inclusive = true;
    }
  }
  const { time, count } = first.block;
  do batch.append(first.block, first.at++);
  while (first.at < count && !batch.full && (time[first.at]! < limit || (inclusive && time[first.at] === limit)));
  return first;
}
