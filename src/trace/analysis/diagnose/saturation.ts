import type { Finding } from '../../finding.js';
import { DeviceRule, duration, Evidence, isData, percent, type RuleContext } from './rule.js';

const MIN_REQUESTS = 200;
/** Of the time from the first to the last request, with something in the device. */
const MIN_BUSY = 0.9;
/** Of the time that requests take, waiting for the device to take them. */
const MIN_WAIT = 0.5;
/** Requests that want something, on the mean: fewer are no crowd. */
const MIN_WANTED = 4;
/** So many completions in a row have one depth (their mean) and one rate: devices complete in bursts. */
const WINDOW = 32;
/** Depths are compared in steps of two: this many completions at least at both, and for this share of the busy time. */
const MIN_SERVED = 3 * WINDOW;
const MIN_TIME_LOW = 0.05;
const MIN_TIME_HIGH = 0.3;
/** Four times as many in the device, … */
const STEPS_APART = 2;
/** … and no more than this are served. */
const MAX_GAIN = 1.15;
const LEVELS = 17;

class Device {
  requests = 0;
  waitNs = 0;
  tookNs = 0;
  firstNs = NaN;
  lastNs = 0;
  changedNs = NaN;
  inDevice = 0;
  windowCount = 0;
  windowNs = 0;
  windowArea = 0;
  readonly served = new Float64Array(LEVELS);
  readonly spent = new Float64Array(LEVELS);
  busyNs = 0;
  wanting = 0;
  wantedNs = 0;
  wantedArea = 0;
  wantedChangedNs = 0;
  readonly evidence = new Evidence();
}

/** A device that gets more than it can do: requests queue before it, or more of them in it bring no more out of it. */
export class Saturation extends DeviceRule<Device> {
  constructor(context: RuleContext) {
    super(context, () => new Device());
  }

  requestOpened(slot: number, time: number): void {
    if (!isData(this.ios, slot)) return;
    const device = this.of(slot);
    if (Number.isNaN(device.firstNs)) device.firstNs = time;
    this.want(device, time, 1);
  }

  requestIssued(slot: number, time: number): void {
    const device = this.of(slot);
    this.pass(device, time, 1);
  }

  requestRequeued(slot: number, time: number): void {
    const device = this.of(slot);
    this.pass(device, time, -1);
  }

  requestCompleted(slot: number, time: number, _sector: number, _bytes: number, wasIssued: boolean): void {
    if (!wasIssued) return;
    const device = this.of(slot);
    this.pass(device, time, -1);
    if (++device.windowCount === WINDOW) endWindow(device);
  }

  requestClosed(slot: number): void {
    const { ios } = this;
    if (!isData(ios, slot)) return;
    const device = this.of(slot);
    const completed = ios.completed[slot]!;
    if (Number.isNaN(completed)) return;
    this.want(device, completed, -1);
    if (ios.error[slot] !== 0 || Number.isNaN(ios.issued[slot]!)) return;
    device.lastNs = completed;
    device.requests++;
    const queued = ios.queued[slot]!;
    const wait = ios.issued[slot]! - queued;
    device.waitNs += wait;
    device.tookNs += completed - queued;
    if (!device.evidence.full && wait > (completed - queued) * MIN_WAIT) device.evidence.add(ios.id[slot]!, queued, `waited ${duration(wait)} to be taken`);
    device.evidence.cover(queued, completed, ios.sector[slot]!, ios.bytes[slot]! / 512);
  }

  private pass(device: Device, time: number, change: number): void {
    if (device.inDevice > 0) {
      const ns = Math.max(0, time - device.changedNs);
      device.busyNs += ns;
      device.windowNs += ns;
      device.windowArea += ns * device.inDevice;
    }
    device.changedNs = time;
    device.inDevice = Math.max(0, device.inDevice + change);
  }

  private want(device: Device, time: number, change: number): void {
    if (device.wanting > 0 && time > device.wantedChangedNs) {
      device.wantedNs += time - device.wantedChangedNs;
      device.wantedArea += device.wanting * (time - device.wantedChangedNs);
    }
    device.wantedChangedNs = Math.max(time, device.wantedChangedNs);
    device.wanting = Math.max(0, device.wanting + change);
  }

  protected judge(device: Device, id: number): Finding | null {
    const busy = device.busyNs / (device.lastNs - device.firstNs);
    const wait = device.waitNs / device.tookNs;
    const wanted = device.wantedArea / device.wantedNs;
    if (device.requests < MIN_REQUESTS || !(busy >= MIN_BUSY) || !(wanted >= MIN_WANTED)) return null;
    const gain = gainOf(device);
    if (!(wait >= MIN_WAIT) && !(gain <= MAX_GAIN)) return null;
    return {
      rule: 'saturated', severity: 'warning', device: id, title: 'Saturated device',
      sentence: `The device was busy ${percent(Math.min(1, busy))} of the time with ${wanted.toFixed(1)} requests wanting it on average; ${wait >= MIN_WAIT
        ? `they spent ${percent(wait)} of their ${duration(device.tookNs / device.requests)} waiting to be taken.`
        : `at several times the depth it served ${gain.toFixed(2)} times as many.`}`,
      cure: 'Ask it for less (cache, merge, compress, fewer copies) or give it a faster one; more requests at once only wait longer.',
      evidence: device.evidence.rows, region: device.evidence.region,
      numbers: { busy, wait, wanted, gain, requests: device.requests },
    };
  }
}

function endWindow(device: Device): void {
  const level = Math.min(LEVELS - 1, 31 - Math.clz32(Math.max(1, Math.round(device.windowArea / Math.max(1, device.windowNs)))));
  device.served[level]! += WINDOW;
  device.spent[level]! += device.windowNs;
  device.windowCount = device.windowNs = device.windowArea = 0;
}

/** How many times as many requests are served at a depth several times that of another; NaN where one of both was not seen for long. */
function gainOf({ served, spent }: Device): number {
  const total = spent.reduce((sum, time) => sum + time, 0);
  const seen = (level: number, share: number): boolean => served[level]! >= MIN_SERVED && spent[level]! >= share * total;
  const high = Array.from({ length: LEVELS }, (_, level) => level).findLast((level) => seen(level, MIN_TIME_HIGH));
  const low = Array.from({ length: LEVELS }, (_, level) => level).find((level) => seen(level, MIN_TIME_LOW));
  if (high === undefined || low === undefined || high - low < STEPS_APART) return NaN;
  return (served[high]! / spent[high]!) / (served[low]! / spent[low]!);
}
