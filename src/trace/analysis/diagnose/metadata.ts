import type { Finding } from '../../finding.js';
import { Evidence, isData, isWrite, percent, size, type Rule, type RuleContext } from './rule.js';
import { Keyed, MAX_DEVICES, OTHERS } from '../keyed.js';

/** A block that is written so often within a second is bookkeeping. */
const HOT_WRITES = 8;
const HOT_WINDOW_NS = 1e9;
const BLOCK_SECTORS = 8;
/** Of the blocks written lately, those that are watched: one place for each remainder. */
const WATCHED = 4096;
/** Of all writes; fewer hot ones cost nothing. */
const MIN_HOT_SHARE = 0.2;
const MIN_WRITES = 20;
/** Bytes of metadata for each byte of data. */
const MIN_LAYER_SHARE = 0.2;
/** Fewer requests are what opening an image takes. */
const MIN_METADATA_WRITES = 20;

class Device {
  writes = 0;
  bytes = 0;
  hot = 0;
  worst = 0;
  worstSector = 0;
  readonly block = new Float64Array(WATCHED).fill(-1);
  readonly since = new Float64Array(WATCHED);
  readonly times = new Uint32Array(WATCHED);
  readonly evidence = new Evidence();
}

/**
 * Writes of bookkeeping: by the layers of our own recordings, what goes to metadata against what users wrote; elsewhere blocks of up to
 * 4 KiB that are written again and again.
 */
export class MetadataAmplification implements Rule {
  private readonly devices = new Keyed(MAX_DEVICES, () => new Device());

  constructor(private readonly context: RuleContext) {}

  requestOpened(slot: number, time: number): void {
    const { ios } = this.context;
    if (!isData(ios, slot) || !isWrite(ios, slot)) return;
    const device = this.devices.get(ios.device[slot]!);
    const sector = ios.sector[slot]!;
    const sectors = ios.bytes[slot]! / 512;
    device.writes++;
    device.bytes += ios.bytes[slot]!;
    const { layers } = this.context.annotations;
    if (layers.size > 0 && layers.get(ios.device[slot]!) === 'metadata') {
      device.evidence.add(ios.id[slot]!, time, this.context.annotations.causes[ios.cause[slot]!] || 'metadata');
      device.evidence.cover(time, time, sector, sectors);
      return;
    }
    if (sectors > BLOCK_SECTORS) return;
    const place = (sector / sectors) % WATCHED;
    const at = Math.floor(place);
    if (device.block[at] !== sector || time - device.since[at]! > HOT_WINDOW_NS) {
      device.block[at] = sector;
      device.since[at] = time;
      device.times[at] = 0;
    }
    const times = ++device.times[at]!;
    if (times < HOT_WRITES) return;
    // those that made it hot were of its kind
    device.hot += times === HOT_WRITES ? HOT_WRITES : 1;
    if (times > device.worst) {
      device.worst = times;
      device.worstSector = sector;
    }
    device.evidence.add(ios.id[slot]!, time, `written ${times} times within a second`);
    device.evidence.cover(device.since[at]!, time, sector, sectors);
  }

  findings(): Finding[] {
    const { layers } = this.context.annotations;
    const written = (layer: string): number => [...this.devices.all].reduce((sum, [device, { bytes }]) => sum + (layers.get(device) === layer ? bytes : 0), 0);
    // RAM states are data that no disk was asked for
    const userBytes = Math.max(written('disk'), written('data'));
    return [...this.devices.all].flatMap(([device, state]) => {
      if (device === OTHERS) return [];
      const layer = layers.get(device);
      if (layer === undefined) return this.judgeHot(state, device);
      return layer === 'metadata' ? judgeLayer(state, device, userBytes) : [];
    });
  }

  private judgeHot(device: Device, id: number): Finding[] {
    const share = device.hot / device.writes;
    if (device.writes < MIN_WRITES || device.worst < HOT_WRITES || share < MIN_HOT_SHARE) return [];
    return [{
      rule: 'metadata', severity: 'warning', device: id, title: 'Metadata amplification',
      sentence: `${percent(share)} of ${device.writes} writes go to blocks of 4 KiB or less that are written again and again; sector ${device.worstSector} ${device.worst} times within a second.`,
      cure: 'Collect changes of bookkeeping before writing them: fewer commits, a larger metadata cache, space allocated ahead.',
      evidence: device.evidence.rows, region: device.evidence.region,
      numbers: { share, writes: device.writes, worst: device.worst },
    }];
  }
}

function judgeLayer(device: Device, id: number, userBytes: number): Finding[] {
  const share = device.bytes / Math.max(1, userBytes);
  if (device.writes < MIN_METADATA_WRITES || share < MIN_LAYER_SHARE) return [];
  return [{
    rule: 'metadata', severity: 'warning', device: id, title: 'Metadata amplification',
    sentence: `${size(device.bytes)} of metadata were written in ${device.writes} requests, for ${size(userBytes)} of data: ${percent(share)} on top.`,
    cure: 'Make changes of tables rarer: larger clusters, space allocated ahead (preallocation), a larger metadata cache.',
    evidence: device.evidence.rows, region: device.evidence.region,
    numbers: { share, writes: device.writes, metadataBytes: device.bytes, userBytes },
  }];
}
