import type { Finding } from '../../finding.js';
import { DeviceRule, Evidence, isData, isWrite, percent, size, type RuleContext } from './rule.js';

/** Requests of one stream that are looked at together. */
const WINDOW = 64;
/** What a window covers is filled so far: a stream that takes everything, each once. */
const MIN_FILLED = 0.9;
const MAX_FILLED = 1.1;
/** Of the requests of such a window, those that go on where the former ended: fewer, and it is out of order. */
const MAX_SEQUENTIAL = 0.5;
/** Windows of a stream: fewer are chance, or its beginning. */
const MIN_WINDOWS = 4;
const MIN_SHARE = 0.5;
/** Streams of one device. Those beyond share places. */
const STREAMS = 64;

interface Stream {
  pid: number;
  write: boolean;
  count: number;
  sequential: number;
  descending: number;
  bytes: number;
  from: number;
  to: number;
  lastStart: number;
  lastEnd: number;
  firstId: number;
  firstNs: number;
}

class Device {
  readonly streams = new Map<number, Stream>();
  windows = 0;
  shuffled = 0;
  backwards = 0;
  requests = 0;
  sizes = 0;
  readonly evidence = new Evidence();
}

/** A stream of one process that takes a whole range, but not from its start to its end. */
export class Disorder extends DeviceRule<Device> {
  constructor(context: RuleContext) {
    super(context, () => new Device());
  }

  requestOpened(slot: number, time: number): void {
    const { ios } = this;
    if (!isData(ios, slot)) return;
    const device = this.of(slot);
    const write = isWrite(ios, slot);
    const stream = streamOf(device, ios.pid[slot]!, write);
    const sector = ios.sector[slot]!;
    const end = sector + ios.bytes[slot]! / 512;
    if (stream.count === 0) {
      stream.firstId = ios.id[slot]!;
      stream.firstNs = time;
      stream.from = sector;
      stream.to = end;
    } else {
      if (sector === stream.lastEnd) stream.sequential++;
      if (end === stream.lastStart) stream.descending++;
      if (sector < stream.from) stream.from = sector;
      if (end > stream.to) stream.to = end;
    }
    stream.bytes += ios.bytes[slot]!;
    stream.lastStart = sector;
    stream.lastEnd = end;
    if (++stream.count < WINDOW) return;
    this.endWindow(device, stream, time);
  }

  private endWindow(device: Device, stream: Stream, time: number): void {
    const filled = stream.bytes / ((stream.to - stream.from) * 512);
    device.windows++;
    if (filled >= MIN_FILLED && filled <= MAX_FILLED && stream.sequential / (WINDOW - 1) < MAX_SEQUENTIAL) {
      device.shuffled++;
      if (stream.descending / (WINDOW - 1) >= MAX_SEQUENTIAL) device.backwards++;
      device.requests += WINDOW;
      device.sizes += stream.bytes;
      device.evidence.add(stream.firstId, stream.firstNs, `the first of ${WINDOW} ${stream.write ? 'writes' : 'reads'} that fill ${size((stream.to - stream.from) * 512)} out of order`);
      device.evidence.cover(stream.firstNs, time, stream.from, stream.to - stream.from);
    }
    stream.count = stream.sequential = stream.descending = stream.bytes = 0;
  }

  protected judge(device: Device, id: number): Finding | null {
    const share = device.shuffled / device.windows;
    if (device.shuffled < MIN_WINDOWS || share < MIN_SHARE) return null;
    const backwards = device.backwards / device.shuffled >= MIN_SHARE;
    return {
      rule: 'random', severity: 'warning', device: id, title: backwards ? 'Read or written backwards' : 'Random where sequential was meant',
      sentence: `${device.requests} requests of ${size(device.sizes / device.requests)} take whole ranges, each part once, but ${
        backwards ? 'from the end to the start' : 'out of order'} (${percent(share)} of the streams' stretches).`,
      cure: 'Ask for the parts in ascending order, or for larger ones: read-ahead, merging and disks themselves help only with those.',
      evidence: device.evidence.rows, region: device.evidence.region,
      numbers: { share, windows: device.windows, shuffled: device.shuffled, backwards: device.backwards },
    };
  }
}

function streamOf(device: Device, pid: number, write: boolean): Stream {
  const key = pid * 2 + (write ? 1 : 0);
  let stream = device.streams.get(key);
  if (stream === undefined) {
    // the one that has been there longest makes room: a process that lives on comes back with an empty window
    if (device.streams.size >= STREAMS) device.streams.delete(device.streams.keys().next().value!);
    stream = { pid, write, count: 0, sequential: 0, descending: 0, bytes: 0, from: 0, to: 0, lastStart: -1, lastEnd: -1, firstId: -1, firstNs: 0 };
    device.streams.set(key, stream);
  }
  return stream;
}
