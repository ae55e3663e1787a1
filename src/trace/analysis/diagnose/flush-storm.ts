import { Category } from '../../record.js';
import type { Finding } from '../../finding.js';
import { Histogram } from '../histogram.js';
import { DeviceRule, duration, Evidence, isData, isWrite, percent, size, type RuleContext } from './rule.js';

const MIN_FLUSHES = 10;
/** Flushes for each write. */
const MIN_RATIO = 0.25;
/** Or little is written between them, and they are no rare thing: commits of a journal come in pairs with next to nothing in between. */
const MIN_BYTES_BETWEEN = 65_536;
const MIN_RATIO_OF_SMALL = 0.1;
/** Of the time: without those that take less, a tenth would be gained at most. */
const MIN_TIME = 0.1;
const CRITICAL_TIME = 0.3;

class Device {
  writes = 0;
  /** Flushes and durable writes; one of each, with nothing else between them, is one commit. */
  commits = 0;
  before: 'data' | 'flush' | 'forced' = 'data';
  flushes = 0;
  forced = 0;
  bytesSince = 0;
  firstNs = NaN;
  lastNs = 0;
  /** Until when flushes were waited for: those at once count once. */
  flushedUntil = 0;
  flushNs = 0;
  readonly between = new Histogram();
  readonly took = new Histogram();
  readonly evidence = new Evidence();
}

/** Flushes, and writes that must be durable at once, after every little that is written. */
export class FlushStorm extends DeviceRule<Device> {
  constructor(context: RuleContext) {
    super(context, () => new Device());
  }

  requestOpened(slot: number, time: number): void {
    const { ios } = this;
    // one that nobody queued is made for a write that counts already
    if (Number.isNaN(ios.queued[slot]!)) return;
    const device = this.of(slot);
    if (Number.isNaN(device.firstNs)) device.firstNs = time;
    const flush = isFlush(ios.category[slot]!, ios.bytes[slot]!);
    if (flush) {
      device.flushes++;
      const kind = ios.bytes[slot]! > 0 ? 'forced' : 'flush';
      if (kind === 'forced') device.forced++;
      const completes = device.before !== 'data' && device.before !== kind;
      device.before = completes ? 'data' : kind;
      if (!completes) {
        device.commits++;
        device.between.add(device.bytesSince);
        device.bytesSince = 0;
      }
      device.evidence.add(ios.id[slot]!, time, ios.bytes[slot] === 0 ? 'flush' : 'write that must be durable (FUA)');
      device.evidence.cover(time, time, ios.bytes[slot] === 0 ? -1 : ios.sector[slot]!, ios.bytes[slot]! / 512);
    }
    if (!isData(ios, slot) || !isWrite(ios, slot)) return;
    if (!flush) device.before = 'data';
    device.writes++;
    device.bytesSince += ios.bytes[slot]!;
  }

  requestClosed(slot: number): void {
    const { ios } = this;
    const completed = ios.completed[slot]!;
    if (Number.isNaN(completed) || Number.isNaN(ios.queued[slot]!)) return;
    const device = this.of(slot);
    if (completed > device.lastNs) device.lastNs = completed;
    if (!isFlush(ios.category[slot]!, ios.bytes[slot]!)) return;
    device.took.add(completed - ios.queued[slot]!);
    device.evidence.cover(completed, completed, -1, 0);
    const from = Math.max(ios.queued[slot]!, device.flushedUntil);
    if (completed <= from) return;
    device.flushNs += completed - from;
    device.flushedUntil = completed;
  }

  protected judge(device: Device, id: number): Finding | null {
    const { commits, flushes, writes } = device;
    const ratio = commits / Math.max(1, writes);
    const between = device.between.roundQuantile(0.5);
    const share = device.flushNs / (device.lastNs - device.firstNs);
    if (commits < MIN_FLUSHES || !(share >= MIN_TIME)) return null;
    if (ratio < MIN_RATIO && !(between < MIN_BYTES_BETWEEN && ratio >= MIN_RATIO_OF_SMALL)) return null;
    const forced = device.forced === 0 ? '' : ` (${device.forced} of them writes that must be durable at once)`;
    return {
      rule: 'flush-storm', severity: share >= CRITICAL_TIME ? 'critical' : 'warning', device: id, title: 'Flush storm',
      sentence: `${flushes} flushes${forced} for ${writes} writes, with ${size(between)} written between two commits; they take ${duration(device.took.quantile(0.5))} each and ${percent(share)} of the time.`,
      cure: 'Write more between two flushes: one transaction for many changes, group commit, or no flush where nothing has to be durable yet.',
      evidence: device.evidence.rows, region: device.evidence.region,
      numbers: { commits, flushes, forced: device.forced, writes, ratio, share, betweenBytes: between, tookNs: device.took.quantile(0.5) },
    };
  }
}

function isFlush(category: number, bytes: number): boolean {
  return (category & (Category.FLUSH + Category.FUA)) !== 0 && (bytes > 0 || (category & Category.FLUSH) !== 0);
}
