import { Category } from '../../record.js';
import type { Finding } from '../../finding.js';
import { Histogram } from '../histogram.js';
import { DeviceRule, duration, Evidence, isData, isWrite, percent, size, type RuleContext } from './rule.js';

/** Fewer show no habit. */
const MIN_REQUESTS = 50;
/** Of requests that are queued when the one before is complete. */
const MIN_SERIAL = 0.9;
/** Of the time in which anything is under way, with no more than one request. */
const MIN_ALONE = 0.95;
/** A longer wait between requests is a pause: nobody wants I/O then. */
const PAUSE_NS = 100e6;
/** Who waits that long as a rule does so on purpose (a limit, a timer) or does other work: depth would not help. */
const PACED_NS = 5e6;
/** Of the time without pauses. A device that is used less holds nobody up. */
const MIN_BUSY = 0.1;
/** From here on it is the device that one waits for, below the one who asks. */
const DEVICE_BOUND = 0.7;
/** Of the time from request to request, as a rule (by medians): the submitter is slow, whatever the device does. */
const SLOW_SUBMITTER = 0.7;
/** Small random reads, one at a time, are lookups that depend on each other, or a measurement of latency: nothing to mend. */
const LOOKUP_BYTES = 16_384;
const LOOKUP_SEQUENTIAL = 0.2;
const LOOKUP_READS = 0.95;

class Device {
  requests = 0;
  reads = 0;
  serial = 0;
  sequential = 0;
  outstanding = 0;
  /** Of data only. */
  data = 0;
  lastEnd = NaN;
  idleSince = NaN;
  busySince = NaN;
  busyNs = 0;
  thinkNs = 0;
  aloneNs = 0;
  changedNs = 0;
  readonly think = new Histogram();
  readonly took = new Histogram();
  readonly sizes = new Histogram();
  readonly evidence = new Evidence();
}

/**
 * One request at a time: either the device works most of the time and more at once would go faster (`depth-1`), or it waits
 * for who asks (`slow-submitter`).
 */
export class Serial extends DeviceRule<Device> {
  constructor(context: RuleContext) {
    super(context, () => new Device());
  }

  requestOpened(slot: number, time: number): void {
    const { ios } = this;
    // what has no bytes holds the next one up too
    if (Number.isNaN(ios.queued[slot]!) || (ios.category[slot]! & Category.DISCARD) !== 0) return;
    const device = this.of(slot);
    if (device.outstanding === 0) this.begin(device, time);
    else pass(device, time);
    device.outstanding++;
    device.changedNs = time;
    if (!isData(ios, slot)) return;
    const sector = ios.sector[slot]!;
    const bytes = ios.bytes[slot]!;
    device.requests++;
    if (!isWrite(ios, slot)) device.reads++;
    if (sector === device.lastEnd) device.sequential++;
    device.lastEnd = sector + bytes / 512;
    device.sizes.add(bytes);
    if (device.data++ > 0) return;
    if (device.requests > 1) {
      device.serial++;
      device.evidence.add(ios.id[slot]!, time, 'queued when nothing was under way');
    }
    device.evidence.cover(time, time, sector, bytes / 512);
  }

  requestClosed(slot: number): void {
    const { ios } = this;
    if (Number.isNaN(ios.queued[slot]!) || (ios.category[slot]! & Category.DISCARD) !== 0) return;
    const device = this.of(slot);
    const completed = ios.completed[slot]!;
    if (!Number.isNaN(completed)) pass(device, completed);
    if (device.outstanding > 0) device.outstanding--;
    if (isData(ios, slot) && device.data > 0) device.data--;
    if (Number.isNaN(completed)) return;
    if (ios.error[slot] === 0) device.took.add(Math.max(0, completed - ios.queued[slot]!));
    device.evidence.cover(completed, completed, -1, 0);
    if (device.outstanding > 0) return;
    device.idleSince = completed;
    device.busyNs += completed - device.busySince;
  }

  private begin(device: Device, time: number): void {
    device.busySince = time;
    if (Number.isNaN(device.idleSince)) return;
    const think = time - device.idleSince;
    if (think > PAUSE_NS) return;
    device.think.add(think);
    device.thinkNs += think;
  }

  protected judge(device: Device, id: number): Finding | null {
    const { requests } = device;
    const serial = device.serial / Math.max(1, requests - 1);
    const alone = device.aloneNs / device.busyNs;
    const busy = device.busyNs / (device.busyNs + device.thinkNs);
    const sequential = device.sequential / Math.max(1, requests - 1);
    if (requests < MIN_REQUESTS || serial < MIN_SERIAL || alone < MIN_ALONE) return null;
    const think = device.think.quantile(0.5);
    if (think >= PACED_NS || busy < MIN_BUSY) return null;
    const isLookup = device.reads / requests >= LOOKUP_READS && device.sizes.roundQuantile(0.5) <= LOOKUP_BYTES && sequential < LOOKUP_SEQUENTIAL;
    if (isLookup) return null;
    const numbers = { requests, serial, alone, busy, sequential, thinkNs: think, tookNs: device.took.quantile(0.5) };
    const what = `${percent(serial)} of ${requests} requests (${size(device.sizes.roundQuantile(0.5))} each) were queued only when the one before was complete; never more than one at a time in ${
      percent(alone)} of the busy time`;
    const common = { device: id, evidence: device.evidence.rows, region: device.evidence.region, numbers };
    if (think / (think + numbers.tookNs) >= SLOW_SUBMITTER) {
      return {
        ...common, rule: 'slow-submitter', severity: 'warning', title: 'Slow submitter',
        sentence: `${what}, and the device stood idle ${percent(1 - busy)} of the time, ${duration(think)} between requests that take ${duration(numbers.tookNs)}.`,
        cure: 'Let the program ask for the next data while it works on the last, or look what it does between requests.',
      };
    }
    return {
      ...common, rule: 'depth-1', severity: 'warning', title: 'One request at a time',
      sentence: `${what}. ${busy >= DEVICE_BOUND
        ? `The device worked ${percent(busy)} of the time: more requests at once would go faster.`
        : `The device worked ${percent(busy)} of the time and waited for the one who asks for the rest, ${duration(think)} between requests.`}`,
      cure: 'Keep several requests in flight (asynchronous I/O, read-ahead, several threads): 8 of 1 MiB fill most devices.',
    };
  }
}

function pass(device: Device, time: number): void {
  if (time <= device.changedNs) return;
  if (device.outstanding === 1) device.aloneNs += time - device.changedNs;
  device.changedNs = time;
}
