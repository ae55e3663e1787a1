import type { Finding } from '../../finding.js';
import { Histogram } from '../histogram.js';
import { DeviceRule, Evidence, isData, isWrite, percent, size, type RuleContext } from './rule.js';

/** What disks, file systems and images have for blocks and clusters. */
const ALIGNMENTS = [512, 4096, 65_536, 1_048_576];
/** Physical blocks of disks, pages and blocks of file systems: what does not fit these is completed by a read somewhere. */
const BLOCK = 4096;
const MIN_WRITES = 20;
/** A few odd ones (logs of file systems, ends of files) are in every healthy load. */
const MIN_SHARE = 0.2;
/** An alignment fits when all but the odd one keep it. */
const FITS = 0.95;
/** Of neighbours in time that overlap by one sector: what is cut to whole sectors was not even at sectors before. */
const FINGERPRINT = 0.4;

class Device {
  writes = 0;
  misaligned = 0;
  overlaps = 0;
  lastEnd = NaN;
  readonly kept = ALIGNMENTS.map(() => 0);
  readonly sizes = new Histogram();
  readonly evidence = new Evidence();
}

/** Writes that do not begin and end at blocks of 4 KiB. */
export class Misalignment extends DeviceRule<Device> {
  constructor(context: RuleContext) {
    super(context, () => new Device());
  }

  requestOpened(slot: number, time: number): void {
    const { ios } = this;
    if (!isData(ios, slot) || !isWrite(ios, slot)) return;
    const device = this.of(slot);
    const sector = ios.sector[slot]!;
    const bytes = ios.bytes[slot]!;
    device.writes++;
    device.sizes.add(bytes);
    if (sector === device.lastEnd - 1) device.overlaps++;
    device.lastEnd = sector + bytes / 512;
    const sectors = bytes / 512;
    // what keeps none keeps no larger one
    let at = 0;
    while (at < ALIGNMENTS.length && sector % (ALIGNMENTS[at]! / 512) === 0 && sectors % (ALIGNMENTS[at]! / 512) === 0) device.kept[at++]!++;
    if (at > ALIGNMENTS.indexOf(BLOCK)) return;
    device.misaligned++;
    if (!device.evidence.full) {
      device.evidence.add(ios.id[slot]!, time, `begins ${size((sector * 512) % BLOCK)} and ends ${size((sector * 512 + bytes) % BLOCK)} after a multiple of 4 KiB`);
    }
    device.evidence.cover(time, time, sector, sectors);
  }

  protected judge(device: Device, id: number): Finding | null {
    const share = device.misaligned / device.writes;
    if (device.writes < MIN_WRITES || share < MIN_SHARE) return null;
    const overlap = device.overlaps / (device.writes - 1);
    const fits = ALIGNMENTS.findLast((_, at) => device.kept[at]! >= FITS * device.writes) ?? 512;
    const median = device.sizes.roundQuantile(0.5);
    const best = ALIGNMENTS.findLast((alignment) => alignment <= Math.max(BLOCK, median))!;
    const finer = overlap >= FINGERPRINT ? `, and ${percent(overlap)} of them begin in the sector that the one before ended in: they are not even aligned to sectors` : '';
    return {
      rule: 'misaligned', severity: 'warning', device: id, title: 'Misaligned writes',
      sentence: `${device.misaligned} of ${device.writes} writes (${percent(share)}) do not begin and end at multiples of 4 KiB; the largest alignment that they keep is ${size(fits)}${finer}.`,
      cure: `Align them to ${size(best)}, the largest block that writes of ${size(median)} fill${best > BLOCK ? ', or to the cluster size of the image' : ''}.`,
      evidence: device.evidence.rows, region: device.evidence.region,
      numbers: { share, overlap, writes: device.writes, alignmentKept: fits, alignmentBest: best },
    };
  }
}
