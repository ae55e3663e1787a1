import { Category } from '../../record.js';
import type { Finding } from '../../finding.js';
import { Histogram } from '../histogram.js';
import { DeviceRule, duration, Evidence, isData, isWrite, percent, type RuleContext } from './rule.js';

/** Reads that somebody waits for. */
const SMALL_BYTES = 65_536;
/** What stands before them: writes of this size, discards, flushes. */
const LARGE_BYTES = 262_144;
/** Of each kind: beside something large, and without. */
const MIN_REQUESTS = 30;
/** Times as long. */
const MIN_FACTOR = 4;
/** What takes less hurts nobody. */
const MIN_NS = 1e6;
/** Of the small reads, those that met something large. */
const MIN_SHARE = 0.1;

class Device {
  large = 0;
  readonly behind = new Histogram();
  readonly free = new Histogram();
  readonly evidence = new Evidence();
}

/** Small reads that wait behind large writes, discards and flushes. */
export class HeadOfLine extends DeviceRule<Device> {
  /** By slot, of small reads: whether something large was under way when they came. */
  private behind = new Uint8Array(0);

  constructor(context: RuleContext) {
    super(context, () => new Device());
  }

  requestOpened(slot: number): void {
    const device = this.of(slot);
    if (this.isLarge(slot)) {
      device.large++;
      return;
    }
    if (slot >= this.behind.length) this.grow();
    this.behind[slot] = device.large > 0 ? 1 : 0;
  }

  requestClosed(slot: number): void {
    const { ios } = this;
    const device = this.of(slot);
    if (this.isLarge(slot)) {
      if (device.large > 0) device.large--;
      return;
    }
    if (!this.isSmall(slot)) return;
    const id = ios.id[slot]!;
    const behind = this.behind[slot] === 1;
    const took = ios.completed[slot]! - ios.queued[slot]!;
    if (ios.error[slot] !== 0 || Number.isNaN(took)) return;
    (behind ? device.behind : device.free).add(took);
    if (!behind || took < MIN_NS || took < MIN_FACTOR * device.free.quantile(0.5)) return;
    device.evidence.add(id, ios.queued[slot]!, `took ${duration(took)} beside something large`);
    device.evidence.cover(ios.queued[slot]!, ios.completed[slot]!, ios.sector[slot]!, ios.bytes[slot]! / 512);
  }

  protected judge(device: Device, id: number): Finding | null {
    const { behind, free } = device;
    const share = behind.count / (behind.count + free.count);
    const slow = behind.quantile(0.5);
    const fast = free.quantile(0.5);
    if (behind.count < MIN_REQUESTS || free.count < MIN_REQUESTS || share < MIN_SHARE || slow < MIN_NS || slow < MIN_FACTOR * fast) return null;
    return {
      rule: 'head-of-line', severity: 'warning', device: id, title: 'Reads wait behind large requests',
      sentence: `${behind.count} small reads (${percent(share)}) came while large writes, discards or flushes were under way, and took ${duration(slow)} instead of ${duration(fast)} (medians).`,
      cure: 'Give small reads a way of their own: a limit or fewer in flight for the bulk, smaller requests for it, or a scheduler that prefers reads.',
      evidence: device.evidence.rows, region: device.evidence.region,
      numbers: { share, behind: behind.count, free: free.count, slowNs: slow, fastNs: fast, factor: slow / fast },
    };
  }

  private grow(): void {
    const { behind } = this;
    this.behind = new Uint8Array(this.ios.kind.length);
    this.behind.set(behind);
  }

  private isLarge(slot: number): boolean {
    const { ios } = this;
    if (Number.isNaN(ios.queued[slot]!)) return false;
    if (ios.bytes[slot] === 0 || (ios.category[slot]! & Category.DISCARD) !== 0) return true;
    return isWrite(ios, slot) && ios.bytes[slot]! >= LARGE_BYTES;
  }

  private isSmall(slot: number): boolean {
    const { ios } = this;
    return isData(ios, slot) && !isWrite(ios, slot) && ios.bytes[slot]! <= SMALL_BYTES;
  }
}
