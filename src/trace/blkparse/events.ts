/** What blkparse does with each record: count, track, print. */
import { Action, Category, majorOf, Notify, type RecordBatch } from '../record.js';
import type { CpuState, DeviceState } from './devices.js';
import type { Lines } from './lines.js';
import type { ProcessTable } from './processes.js';
import { Count, countCompleted, countIo, countPacketQueued, countRequeue, type IoStats } from './stats.js';
import { NO_TIME, type Tracker } from './track.js';

/** Those that blkparse knows, with the letter it prints. */
const LETTERS = ['', 'Q', 'M', 'F', 'G', 'S', 'R', 'D', 'C', 'P', 'U', 'UT', 'I', 'X', 'B', 'A'] as const;
const PACKET_LETTERS = new Set(['Q', 'G', 'S', 'R', 'D', 'C', 'I']);
/** Devices that only remap: md and dm. */
const REMAPPERS = new Set([9, 253]);

export class Events {
  readonly lines: Lines;
  /** Records of driver data, which no text shows. */
  driverData = 0;
  /** Records of actions that nobody knows. */
  unknown = 0;
  readonly #tracker: Tracker | null;
  readonly #processes: ProcessTable | null;

  constructor(lines: Lines, tracker: Tracker | null, processes: ProcessTable | null) {
    this.lines = lines;
    this.#tracker = tracker;
    this.#processes = processes;
  }

  /** One record, at `time` ns; those of notifications are messages. */
  take(batch: RecordBatch, index: number, time: number, device: DeviceState, cpu: CpuState): void {
    const category = batch.category[index]!;
    if ((category & Category.NOTIFY) !== 0 && batch.action[index] === Notify.MESSAGE) return this.lines.message(batch, index, time);
    const letter = LETTERS[batch.action[index]!];
    if ((category & Category.PC) !== 0) return this.#packet(batch, index, time, device, cpu);
    if (letter === undefined || letter === '') {
      if (batch.action[index] === Action.DRIVER_DATA) this.driverData++;
      else this.unknown++;
      return;
    }
    const elapsed = this.#account(batch, index, time, device, cpu);
    this.lines.line(batch, index, letter, cpu.cpu, time, elapsed);
  }

  #account(batch: RecordBatch, index: number, time: number, device: DeviceState, cpu: CpuState): number {
    const write = (batch.category[index]! & Category.WRITE) === 0 ? 0 : 1;
    const pid = batch.pid[index]!;
    const bytes = batch.bytes[index]!;
    const sector = batch.sector[index]!;
    switch (batch.action[index]) {
      case Action.QUEUE:
        if (this.#tracker !== null && REMAPPERS.has(majorOf(device.device))) this.#tracker.queuedAtRemapper(device.tracks, pid, sector, time);
        this.#count(cpu.stats, pid, Count.QUEUED, Count.QUEUED_KB, Count.QUEUED_B, write, bytes);
        return NO_TIME;
      case Action.INSERT: return this.#tracker?.inserted(device.tracks, pid, sector, time, write) ?? NO_TIME;
      case Action.BACK_MERGE: case Action.FRONT_MERGE:
        this.#count(cpu.stats, pid, Count.MERGED, Count.MERGED_KB, Count.MERGED_B, write, bytes);
        if (batch.action[index] === Action.FRONT_MERGE) this.#tracker?.frontMerged(device.tracks, sector, Math.floor(bytes / 512));
        return NO_TIME;
      case Action.GET_REQUEST:
        this.#tracker?.allocated(device.tracks, pid, sector, time);
        return NO_TIME;
      case Action.REQUEUE:
        device.end(write);
        this.#requeue(cpu.stats, pid, Count.REQUEUED, Count.ISSUED_KB, Count.ISSUED_B, write, bytes);
        return NO_TIME;
      case Action.ISSUE: return this.#issue(batch, index, time, device, cpu);
      case Action.COMPLETE: return this.#complete(batch, index, time, device, cpu);
      case Action.UNPLUG: return this.#one(cpu.stats, pid, Count.UNPLUGS);
      case Action.UNPLUG_TIMER: return this.#one(cpu.stats, pid, Count.UNPLUGS + 1);
      default: return NO_TIME;
    }
  }

  #issue(batch: RecordBatch, index: number, time: number, device: DeviceState, cpu: CpuState): number {
    const write = (batch.category[index]! & Category.WRITE) === 0 ? 0 : 1;
    this.#count(cpu.stats, batch.pid[index]!, Count.ISSUED, Count.ISSUED_KB, Count.ISSUED_B, write, batch.bytes[index]!);
    device.begin(write);
    if (this.#tracker === null || (batch.category[index]! & Category.FS) === 0) return NO_TIME;
    return this.#tracker.issued(device.tracks, batch.sector[index]!, time, write);
  }

  #complete(batch: RecordBatch, index: number, time: number, device: DeviceState, cpu: CpuState): number {
    const write = (batch.category[index]! & Category.WRITE) === 0 ? 0 : 1;
    const bytes = batch.bytes[index]!;
    device.end(write);
    countCompleted(cpu.stats, write, bytes);
    if (this.#processes !== null) countCompleted(this.#processes.findOrAdd(batch.pid[index]!).stats, write, bytes);
    return this.#tracker?.completed(device.tracks, batch.sector[index]!, time, write) ?? NO_TIME;
  }

  /** A packet command: counted apart. */
  #packet(batch: RecordBatch, index: number, time: number, device: DeviceState, cpu: CpuState): void {
    const letter = LETTERS[batch.action[index]!] ?? '';
    if (!PACKET_LETTERS.has(letter)) {
      this.unknown++;
      return;
    }
    const write = (batch.category[index]! & Category.WRITE) === 0 ? 0 : 1;
    const pid = batch.pid[index]!;
    const bytes = batch.bytes[index]!;
    const print = (): void => this.lines.line(batch, index, letter, cpu.cpu, time, NO_TIME);
    // blkparse prints some before it counts them, which shows in the names of processes without one
    if (letter === 'Q' || letter === 'C') print();
    if (letter === 'Q') {
      countPacketQueued(cpu.stats, write, bytes);
      if (this.#processes !== null) countPacketQueued(this.#processes.findOrAdd(pid).stats, write, bytes);
    } else if (letter === 'C') {
      device.end(write);
      this.#one(cpu.stats, pid, Count.PC_COMPLETED + write);
    } else if (letter === 'D') {
      this.#count(cpu.stats, pid, Count.PC_ISSUED, Count.PC_ISSUED_KB, Count.PC_ISSUED_B, write, bytes);
      device.begin(write);
    } else if (letter === 'R') {
      device.end(write);
      this.#requeue(cpu.stats, pid, Count.PC_REQUEUED, Count.PC_ISSUED_KB, Count.PC_ISSUED_B, write, bytes);
    }
    if (letter !== 'Q' && letter !== 'C') print();
  }

  #count(stats: IoStats, pid: number, kind: number, kb: number, b: number, write: number, bytes: number): void {
    countIo(stats, kind, kb, b, write, bytes);
    if (this.#processes !== null) countIo(this.#processes.findOrAdd(pid).stats, kind, kb, b, write, bytes);
  }

  #requeue(stats: IoStats, pid: number, kind: number, kb: number, b: number, write: number, bytes: number): void {
    countRequeue(stats, kind, kb, b, write, bytes);
    if (this.#processes !== null) countRequeue(this.#processes.findOrAdd(pid).stats, kind, kb, b, write, bytes);
  }

  #one(stats: IoStats, pid: number, kind: number): number {
    stats[kind] = stats[kind]! + 1;
    const process = this.#processes?.findOrAdd(pid).stats;
    if (process !== undefined) process[kind] = process[kind]! + 1;
    return NO_TIME;
  }
}
