/** One run of blkparse's work, whatever feeds it: options, names, counts, and where text and dump go. */
import { TWO_32 } from '../../base/bytes.js';
import { Notify, type RecordBatch } from '../record.js';
import type { TimeBase } from '../read/decoder.js';
import type { CpuState, DeviceState } from './devices.js';
import { DumpBuffer } from './dump.js';
import { Events } from './events.js';
import { payloadOf, payloadWord } from './fields.js';
import { Lines } from './lines.js';
import type { BlkparseOptions } from './options.js';
import { ProcessNames, ProcessTable } from './processes.js';
import { deviceSummary, processSummary } from './summary.js';
import { TextBuffer } from './text.js';
import { Tracker } from './track.js';

const REMAP = 15;

/** Takes bytes; what it is given is its own until it resolves. */
export type Write = (bytes: Uint8Array) => Promise<void>;

export class Session {
  readonly options: BlkparseOptions;
  readonly names = new ProcessNames();
  readonly devices: DeviceState[] = [];
  readonly base: TimeBase = { high: null };
  readonly events: Events;
  /** Time 0, as `TimeBase` counts. */
  genesis = 0;
  /** The time of the last TIMESTAMP, as it stands in the record. */
  stampTime: bigint | null = null;
  readonly #out = new TextBuffer();
  readonly #dump: DumpBuffer | null;
  readonly #lines: Lines;
  readonly #processes: ProcessTable | null;
  readonly #write: Write | null;
  readonly #writeDump: Write | null;

  constructor(options: BlkparseOptions, write: Write | null, writeDump: Write | null) {
    this.options = options;
    this.#write = write;
    this.#writeDump = writeDump;
    this.#dump = writeDump === null ? null : new DumpBuffer();
    this.#processes = options.perProcess ? new ProcessTable(this.names, options.hashByName) : null;
    this.#lines = new Lines(this.#out, this.names, options.formats);
    this.events = new Events(this.#lines, options.trackIos ? new Tracker(this.names, this.#processes) : null, this.#processes);
  }

  /** Whether `flush` is due. */
  get ripe(): boolean { return this.#out.ripe || this.#dump?.ripe === true; }

  async flush(): Promise<void> {
    const text = this.#out.take();
    if (text.length > 0) await this.#write?.(text);
    const dump = this.#dump?.take();
    if (dump !== undefined && dump.length > 0) await this.#writeDump!(dump);
  }

  /** A name, a wall clock, or what nobody knows: these take effect when they are read. */
  notify(batch: RecordBatch, index: number): void {
    const payload = payloadOf(batch, index);
    if (batch.action[index] === Notify.PROCESS) this.names.add(batch.pid[index]!, payload);
    const raw = (): bigint => BigInt(this.base.high ?? 0) * BigInt(TWO_32) + BigInt(batch.time[index]!);
    if (batch.action[index] === Notify.TIMESTAMP && payload.length === 8) {
      const view = new DataView(payload.buffer, payload.byteOffset, 8);
      this.#lines.epochNs = BigInt(view.getUint32(0, true)) * 1_000_000_000n + BigInt(view.getUint32(4, true));
      this.stampTime = raw();
    }
    this.#dump?.record(batch, index, raw(), batch.device[index]!);
  }

  /** Makes the wall clock that of time 0. */
  correctClock(): void {
    const genesis = BigInt(this.base.high ?? 0) * BigInt(TWO_32) + BigInt(this.genesis);
    // a stream that begins at time 0 is a merged dump: its clock is that of its first event
    if (this.stampTime !== null && genesis !== 0n) this.#lines.epochNs += genesis - this.stampTime;
  }

  /** An event that passed the filters. */
  event(batch: RecordBatch, index: number, time: number, device: DeviceState, cpu: CpuState): void {
    if (device.events === 0) device.firstTime = time;
    device.events++;
    if (this.#write !== null) this.events.take(batch, index, time, device, cpu);
    if (this.#dump === null) return;
    const isMessage = (batch.category[index]! & 0x400) !== 0;
    if (isMessage && !this.options.dumpMessages) return;
    // blkparse dumps a remap with the device that it printed
    const remapped = batch.action[index] === REMAP && !isMessage && this.#write !== null && this.#lines.isDefault('A');
    this.#dump.record(batch, index, time, remapped ? payloadWord(batch, index, 4, 4) : batch.device[index]!);
  }

  /** The end of the text. */
  summary(): void {
    if (this.#processes !== null) this.#out.text(processSummary(this.#processes));
    if (!this.options.quiet) this.#out.text(deviceSummary(this.devices));
  }
}
