import { Category } from '../record.js';
import { DepthMeter } from './depth.js';
import { Histogram } from './histogram.js';
import { Keyed, MAX_DEVICES, MAX_PROCESSES } from './keyed.js';
import type { OpenIos } from './open-ios.js';
import type { PairingListener } from './pairing-listener.js';

/** From which record of a request to which: queued, got a request, inserted, issued, complete. */
export const SPANS = ['q2c', 'd2c', 'q2d', 'q2g', 'g2i', 'i2d'] as const;
export type Span = typeof SPANS[number];

/** One direction of a device or process: data only, no discards. */
export interface Direction {
  readonly count: number;
  readonly bytes: number;
  /** Share of the requests that begin where the former one of the same direction ended, of all but the first; NaN of fewer than two. */
  readonly sequentiality: number;
  readonly sizes: Histogram;
  readonly q2c: Histogram;
}

class Run {
  count = 0;
  sequential = 0;
  private lastEnd = NaN;

  queue(sector: number, bytes: number): void {
    this.count++;
    if (sector === this.lastEnd) this.sequential++;
    this.lastEnd = sector + bytes / 512;
  }

  get sequentiality(): number { return this.count < 2 ? NaN : this.sequential / (this.count - 1); }
}

class ProcessDirection extends Run implements Direction {
  readonly sizes = new Histogram();
  readonly q2c = new Histogram();

  override queue(sector: number, bytes: number): void {
    super.queue(sector, bytes);
    this.sizes.add(bytes);
  }

  get bytes(): number { return this.sizes.sum; }
}

/** What one device did, of what was queued to it. */
export class DeviceStatistics {
  readonly readRun = new Run();
  readonly writeRun = new Run();
  /** `spans` without the first. */
  readonly later: Readonly<Record<Exclude<Span, 'q2c'>, Histogram>> = { d2c: new Histogram(), q2d: new Histogram(), q2g: new Histogram(), g2i: new Histogram(), i2d: new Histogram() };
  readonly flushes = new Histogram();
  readonly discards = new Histogram();
  discardBytes = 0;
  /** Writes that had to be durable at once. */
  forced = 0;
  failed = 0;
  refused = 0;
  merged = 0;
  /** Requests in the device, from issue to completion. Where no issues were recorded it stays empty. */
  readonly inDevice = new DepthMeter();
  /** Requests that somebody waits for, from being queued to completion. */
  readonly outstanding = new DepthMeter();
  firstNs = NaN;
  lastNs = NaN;
  readonly processes = new Keyed(MAX_PROCESSES / 8, () => new ProcessStatistics());

  /** The sum of what its processes read. */
  get reads(): Direction { return this.sumOf(this.readRun, 'reads'); }
  get writes(): Direction { return this.sumOf(this.writeRun, 'writes'); }

  /** Of data that reached the device. Merged requests count each for itself. */
  get spans(): Readonly<Record<Span, Histogram>> {
    const q2c = new Histogram();
    q2c.merge(this.reads.q2c);
    q2c.merge(this.writes.q2c);
    return { q2c, ...this.later };
  }

  private sumOf({ count, sequentiality }: Run, direction: 'reads' | 'writes'): Direction {
    const [sizes, q2c] = [new Histogram(), new Histogram()];
    for (const process of this.processes.all.values()) {
      sizes.merge(process[direction].sizes);
      q2c.merge(process[direction].q2c);
    }
    return { count, sequentiality, bytes: sizes.sum, sizes, q2c };
  }

  get elapsedNs(): number { return this.lastNs - this.firstNs; }
  get count(): number { return this.readRun.count + this.writeRun.count; }
  get bytes(): number { return this.reads.bytes + this.writes.bytes; }
}

/** What one process did on one device. */
export class ProcessStatistics {
  readonly reads = new ProcessDirection();
  readonly writes = new ProcessDirection();
  flushes = 0;
}

/** What one layer made of the requests of the layer above it. */
export interface LayerLink {
  readonly upper: number;
  readonly lower: number;
  /** Requests of the lower one, made for the upper one. */
  requests: number;
  bytes: number;
  flushes: number;
}

/** Statistics of a trace in memory that does not grow with it. */
export class Statistics implements PairingListener {
  readonly devices = new Keyed(MAX_DEVICES, () => new DeviceStatistics());
  /** By slot: who queued the request in it. */
  private readonly processOf: ProcessStatistics[] = [];
  private readonly linkTable = new Map<number, LayerLink>();

  constructor(private readonly ios: OpenIos) {}

  /** What each layer costs the one below, in the order of being seen. */
  get links(): readonly LayerLink[] { return [...this.linkTable.values()]; }

  requestOpened(slot: number, time: number): void {
    const { ios } = this;
    if (Number.isNaN(ios.queued[slot]!)) return;
    const device = this.devices.get(ios.device[slot]!);
    if (Number.isNaN(device.firstNs)) device.firstNs = time;
    device.outstanding.enter(time);
    const bytes = ios.bytes[slot]!;
    const category = ios.category[slot]!;
    const process = device.processes.get(ios.pid[slot]!);
    this.processOf[slot] = process;
    if (ios.parent[slot] !== -1) this.link(ios.parentDevice[slot]!, ios.device[slot]!, bytes);
    if (bytes === 0) {
      process.flushes++;
      return;
    }
    if ((category & Category.DISCARD) !== 0) {
      device.discardBytes += bytes;
      return;
    }
    const write = (category & Category.WRITE) !== 0;
    if (write && (category & Category.FUA) !== 0) device.forced++;
    (write ? device.writeRun : device.readRun).queue(ios.sector[slot]!, bytes);
    (write ? process.writes : process.reads).queue(ios.sector[slot]!, bytes);
  }

  requestIssued(slot: number, time: number): void {
    this.devices.get(this.ios.device[slot]!).inDevice.enter(time);
  }

  requestRequeued(slot: number, time: number): void {
    this.devices.get(this.ios.device[slot]!).inDevice.leave(time);
  }

  requestCompleted(slot: number, time: number, _sector: number, _bytes: number, wasIssued: boolean): void {
    if (wasIssued) this.devices.get(this.ios.device[slot]!).inDevice.leave(time);
  }

  requestClosed(slot: number): void {
    const { ios } = this;
    const device = this.devices.get(ios.device[slot]!);
    const completed = ios.completed[slot]!;
    const queued = ios.queued[slot]!;
    const issued = ios.issued[slot]!;
    if (!Number.isNaN(queued)) device.outstanding.leave(Number.isNaN(completed) ? queued : completed);
    if (Number.isNaN(completed)) return;
    if (!(completed <= device.lastNs)) device.lastNs = completed;
    if (ios.mergedInto[slot] !== -1) device.merged++;
    if (ios.error[slot] !== 0) {
      if (Number.isNaN(issued) && Number.isNaN(ios.gotRequest[slot]!)) device.refused++;
      else device.failed++;
      return;
    }
    if (ios.bytes[slot] === 0) {
      if (!Number.isNaN(queued)) device.flushes.add(completed - queued);
      return;
    }
    if ((ios.category[slot]! & Category.DISCARD) !== 0) {
      add(device.discards, queued, completed);
      return;
    }
    this.closeData(device, slot, queued, issued, completed);
  }

  private closeData(device: DeviceStatistics, slot: number, queued: number, issued: number, completed: number): void {
    const { ios } = this;
    const spans = device.later;
    const got = ios.gotRequest[slot]!;
    const inserted = ios.inserted[slot]!;
    add(spans.d2c, issued, completed);
    add(spans.q2d, queued, issued);
    add(spans.q2g, queued, got);
    if (ios.mergedInto[slot] === -1) {
      add(spans.g2i, got, inserted);
      add(spans.i2d, inserted, issued);
    }
    const write = (ios.category[slot]! & Category.WRITE) !== 0;
    if (Number.isNaN(queued)) return;
    const process = this.processOf[slot]!;
    add((write ? process.writes : process.reads).q2c, queued, completed);
  }

  private link(upper: number, lower: number, bytes: number): void {
    // two numbers of devices in one that is exact: those of our layers and of the kernel are below 2^26 in both halves
    const key = (upper % 0x400_0000) * 0x400_0000 + lower % 0x400_0000;
    let link = this.linkTable.get(key);
    if (link === undefined) {
      if (this.linkTable.size >= MAX_DEVICES) return;
      link = { upper, lower, requests: 0, bytes: 0, flushes: 0 };
      this.linkTable.set(key, link);
    }
    link.requests++;
    link.bytes += bytes;
    if (bytes === 0) link.flushes++;
  }
}

function add(histogram: Histogram, from: number, to: number): void {
  if (to >= from) histogram.add(to - from);
}
