import { Action, type RecordBatch } from '../record.js';
import { DepthMeter } from './depth.js';
import { Summary } from './histogram.js';
import { Keyed, MAX_DEVICES } from './keyed.js';
import type { OpenIos } from './open-ios.js';
import type { PairingListener } from './pairing-listener.js';
import { payloadSector } from './payload.js';
import { Seeks } from './seeks.js';

/** btt's rows, in its order. */
export const BTT_ROWS = ['Q2Q', 'Q2A', 'Q2G', 'S2G', 'G2I', 'Q2M', 'I2D', 'M2D', 'D2C', 'Q2C'] as const;
export type BttRow = typeof BTT_ROWS[number];
export type BttRows = Readonly<Record<BttRow, Summary>>;

const rows = (): BttRows => Object.fromEntries(BTT_ROWS.map((row) => [row, new Summary()])) as BttRows;

/** What btt tells of one device. */
export class BttDevice {
  readonly rows = rows();
  queues = 0;
  issues = 0;
  /** Of each completion. */
  readonly blocks = new Summary();
  readonly queueSeeks = new Seeks();
  readonly issueSeeks = new Seeks();
  /** From issue to completion. */
  readonly active = new DepthMeter();
  plugs = 0;
  timerUnplugs = 0;
  plugUnplugged = 0;
  timerUnplugged = 0;
  pluggedNs = 0;
  firstNs = NaN;
  lastNs = 0;
  /** Requests that were queued and not issued, counted at each that came. */
  waiting = 0;
  waitingSum = 0;
  lastQueued = NaN;
  private pluggedSince = NaN;

  constructor(readonly device: number) {}

  /** ns that requests waited: all of what btt takes a share of. */
  get q2cNs(): number { return this.rows.Q2C.sum; }

  note(time: number): void {
    if (Number.isNaN(this.firstNs)) this.firstNs = time;
    this.lastNs = time;
  }

  plug(time: number): void {
    if (Number.isNaN(this.pluggedSince)) this.pluggedSince = time;
  }

  unplug(time: number, requests: number): void {
    if (!this.endPlug(time)) return;
    this.plugs++;
    this.plugUnplugged += requests;
  }

  timerUnplug(time: number, requests: number): void {
    if (!this.endPlug(time)) return;
    this.timerUnplugs++;
    this.timerUnplugged += requests;
  }

  private endPlug(time: number): boolean {
    if (Number.isNaN(this.pluggedSince)) return false;
    this.pluggedNs += time - this.pluggedSince;
    this.pluggedSince = NaN;
    return true;
  }
}

/**
 * btt's numbers (its manual names them), of requests that have bytes. They differ from btt 1.2.0's where that slips: requests with the
 * same first sector in flight at once (it drops all but one), splits (no end), front merges (no G2I, M2D), medians of seeks (0 unless
 * one distance makes half of them), requests that were refused (they wait in its queue for ever).
 */
export class BttNumbers implements PairingListener {
  readonly devices = new Keyed(MAX_DEVICES, (device) => new BttDevice(device));
  private readonly q2q = new Summary();
  private lastQueued = NaN;

  constructor(private readonly ios: OpenIos) {}

  /** Of all devices; between two that are queued, whichever the device. */
  get all(): BttRows {
    const all = rows();
    for (const device of this.devices.all.values()) for (const row of BTT_ROWS) if (row !== 'Q2Q') all[row].merge(device.rows[row]);
    all.Q2Q.merge(this.q2q);
    return all;
  }

  requestOpened(slot: number, time: number): void {
    const { ios } = this;
    if (Number.isNaN(ios.queued[slot]!) || ios.bytes[slot] === 0) return;
    const device = this.devices.get(ios.device[slot]!);
    device.note(time);
    if (!Number.isNaN(this.lastQueued)) this.q2q.add(since(this.lastQueued, time));
    if (!Number.isNaN(device.lastQueued)) device.rows.Q2Q.add(since(device.lastQueued, time));
    this.lastQueued = device.lastQueued = time;
    device.queues++;
    device.waitingSum += device.waiting++;
    device.queueSeeks.add(ios.sector[slot]!, ios.bytes[slot]! / 512);
  }

  requestMerged(slot: number): void {
    this.stopsWaiting(this.devices.get(this.ios.device[slot]!));
  }

  requestIssued(slot: number, time: number, sector: number, bytes: number): void {
    if (bytes === 0) return;
    const device = this.devices.get(this.ios.device[slot]!);
    device.note(time);
    device.issues++;
    device.issueSeeks.add(sector, bytes / 512);
    device.active.enter(time);
    // the first of its pieces, or all of it
    if (this.ios.issued[slot] === time && !Number.isNaN(this.ios.queued[slot]!)) this.stopsWaiting(device);
  }

  requestRequeued(slot: number, time: number): void {
    const device = this.devices.get(this.ios.device[slot]!);
    device.active.leave(time);
    if (!Number.isNaN(this.ios.queued[slot]!)) device.waiting++;
  }

  requestCompleted(slot: number, time: number, _sector: number, bytes: number, wasIssued: boolean): void {
    if (bytes === 0) return;
    const device = this.devices.get(this.ios.device[slot]!);
    device.note(time);
    device.blocks.add(bytes / 512);
    if (!wasIssued) return;
    device.active.leave(time);
  }

  requestClosed(slot: number): void {
    const { ios } = this;
    if (ios.bytes[slot] === 0) return;
    const device = this.devices.get(ios.device[slot]!);
    const queued = ios.queued[slot]!;
    const { rows } = device;
    const completed = ios.completed[slot]!;
    const issued = ios.issued[slot]!;
    const merged = ios.merged[slot]!;
    const isMerged = ios.mergedInto[slot] !== -1;
    // one that was refused
    if (!isMerged && !Number.isNaN(queued) && Number.isNaN(issued)) this.stopsWaiting(device);
    span(rows.Q2A, queued, ios.remapped[slot]!);
    span(rows.Q2G, queued, ios.gotRequest[slot]!);
    span(rows.S2G, ios.slept[slot]!, ios.gotRequest[slot]!);
    if (isMerged) {
      span(rows.Q2M, queued, merged);
      span(rows.M2D, merged, issued);
    } else {
      span(rows.G2I, ios.gotRequest[slot]!, ios.inserted[slot]!);
      span(rows.I2D, ios.inserted[slot]!, issued);
    }
    // btt knows requests by their queueing alone
    if (Number.isNaN(queued)) return;
    span(rows.D2C, issued, completed);
    span(rows.Q2C, queued, completed);
  }

  otherRecord(batch: RecordBatch, at: number): void {
    const action = batch.action[at]!;
    if (action !== Action.PLUG && action !== Action.UNPLUG && action !== Action.UNPLUG_TIMER) return;
    if ((batch.category[at]! & 0x400) !== 0) return;
    const device = this.devices.all.get(batch.device[at]!);
    if (device === undefined) return;
    const requests = payloadSector(batch, at, 0) || 0;
    if (action === Action.PLUG) device.plug(batch.time[at]!);
    else if (action === Action.UNPLUG) device.unplug(batch.time[at]!, requests);
    else device.timerUnplug(batch.time[at]!, requests);
  }

  private stopsWaiting(device: BttDevice): void {
    if (device.waiting > 0) device.waiting--;
  }
}

function span(row: Summary, from: number, to: number): void {
  // the other way round where each was told of another piece of one that was split
  if (from <= to) row.add(since(from, to));
}

/** As btt has it: never nothing. */
function since(from: number, to: number): number {
  return to > from ? to - from : 1;
}
