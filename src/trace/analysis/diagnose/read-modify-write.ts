import type { Finding } from '../../finding.js';
import { Histogram } from '../histogram.js';
import { DeviceRule, duration, Evidence, isData, isWrite, percent, type RuleContext } from './rule.js';

/** A write and its reads stand close together: among so many requests before it. */
const LOOK_BACK = 8;
/** What is read to complete a block is a block, and no block is larger: 4 KiB. */
const MAX_EDGE_SECTORS = 8;
/** A read that was longer ago has another reason. Added to what slow devices take: four medians, and twice its own. */
const MAX_GAP_NS = 5e6;
/** Fewer writes show no pattern. */
const MIN_WRITES = 20;
/** More reads than these must belong to writes, or they are chance. */
const MIN_EDGE_SHARE = 0.5;
/** Of writes that waited for reads. */
const WARN_SHARE = 0.5;
const CRITICAL_SHARE = 0.8;

interface Read { id: number; sector: number; sectors: number; queued: number; completed: number; isWrite: boolean; used: boolean }

class Device {
  readonly recent: Read[] = Array.from({ length: LOOK_BACK }, () => ({ id: -1, sector: 0, sectors: 0, queued: 0, completed: NaN, isWrite: false, used: false }));
  next = 0;
  reads = 0;
  writes = 0;
  modified = 0;
  edgeReads = 0;
  triples = 0;
  waitNs = 0;
  firstNs = NaN;
  lastNs = 0;
  readonly latency = new Histogram();
  readonly evidence = new Evidence();
}

/** Writes that wait for reads of their own first or last block: they do not cover whole blocks of what is below. */
export class ReadModifyWrite extends DeviceRule<Device> {
  constructor(context: RuleContext) {
    super(context, () => new Device());
  }

  requestOpened(slot: number, time: number): void {
    const { ios } = this;
    if (!isData(ios, slot)) return;
    const device = this.of(slot);
    const write = isWrite(ios, slot);
    if (Number.isNaN(device.firstNs)) device.firstNs = time;
    if (write) {
      device.writes++;
      this.lookBack(device, slot, time);
    } else device.reads++;
    const entry = device.recent[device.next]!;
    device.next = (device.next + 1) % LOOK_BACK;
    entry.id = ios.id[slot]!;
    entry.sector = ios.sector[slot]!;
    entry.sectors = ios.bytes[slot]! / 512;
    entry.queued = time;
    entry.completed = NaN;
    entry.isWrite = write;
    entry.used = false;
  }

  requestClosed(slot: number): void {
    const { ios } = this;
    if (!isData(ios, slot)) return;
    const device = this.of(slot);
    const completed = ios.completed[slot]!;
    if (completed > device.lastNs) device.lastNs = completed;
    const failed = ios.error[slot] !== 0;
    if (!failed && completed >= ios.queued[slot]!) device.latency.add(completed - ios.queued[slot]!);
    if (failed) {
      if (isWrite(ios, slot)) device.writes--;
      else device.reads--;
    }
    const id = ios.id[slot]!;
    for (const entry of device.recent) {
      if (entry.id !== id) continue;
      entry.completed = completed;
      if (failed) entry.id = -1;
      return;
    }
  }

  private lookBack(device: Device, slot: number, time: number): void {
    const { ios } = this;
    const start = ios.sector[slot]!;
    const sectors = ios.bytes[slot]! / 512;
    let found = 0;
    for (let back = 1; back <= LOOK_BACK; back++) {
      const read = device.recent[(device.next - back + LOOK_BACK) % LOOK_BACK]!;
      if (read.id === -1) continue;
      if (read.isWrite) break;
      if (read.used || !(read.completed <= time) || !isEdge(read, start, sectors)) continue;
      const took = read.completed - read.queued;
      if (time - read.queued > Math.max(MAX_GAP_NS, 4 * (device.latency.quantile(0.5) || 0)) + 2 * took) continue;
      read.used = true;
      found++;
      device.edgeReads++;
      device.waitNs += took;
      device.evidence.add(read.id, read.queued, `reads ${read.sectors} sector${read.sectors === 1 ? '' : 's'} that the write after it begins or ends with`);
      device.evidence.cover(read.queued, time, start, sectors);
    }
    if (found === 0) return;
    device.modified++;
    if (found === 2) device.triples++;
    device.evidence.add(ios.id[slot]!, time, `writes ${sectors} sector${sectors === 1 ? '' : 's'} after that`);
  }

  protected judge(device: Device, id: number): Finding | null {
    const share = device.modified / device.writes;
    const edgeShare = device.edgeReads / device.reads;
    if (device.writes < MIN_WRITES || share < WARN_SHARE || edgeShare < MIN_EDGE_SHARE) return null;
    const elapsed = device.lastNs - device.firstNs;
    const speedup = elapsed / Math.max(elapsed - device.waitNs, 1);
    return {
      rule: 'rmw', severity: share >= CRITICAL_SHARE ? 'critical' : 'warning', device: id, title: 'Read-modify-write',
      sentence: `${device.modified} of ${device.writes} writes wait for one or two small reads of their own first or last block (${percent(edgeShare)} of all reads are such), ${
        duration(device.waitNs / device.edgeReads)} each; without them it would take ${percent(1 - 1 / speedup)} less time.`,
      cure: 'Let writes begin and end at the block size of what is below (the cluster size of an image), and keep several of them in flight.',
      evidence: device.evidence.rows, region: device.evidence.region,
      numbers: { share, edgeShare, writes: device.writes, modified: device.modified, triples: device.triples, edgeReads: device.edgeReads, readWaitNs: device.waitNs, speedup },
    };
  }
}

function isEdge(read: Read, start: number, sectors: number): boolean {
  if (read.sectors > MAX_EDGE_SECTORS || read.sectors > Math.max(1, sectors / 2)) return false;
  const end = start + sectors;
  if (read.sector < start || read.sector + read.sectors > end) return false;
  return read.sector === start || read.sector + read.sectors === end;
}
