import { Category, majorOf, QUIESCE_MAJOR, type RecordBatch } from '../record.js';
import type { Matching } from './matching.js';
import { Kind, NO_SECTOR, NONE, State, type OpenIos } from './open-ios.js';
import { payloadDevice, payloadSector } from './payload.js';

/** What remaps told of requests that are yet to be queued on the device below: whose children they are. */
export class RemapLinks {
  /** Of the last one taken. */
  parentDevice = 0;
  private count = 0;

  constructor(private readonly ios: OpenIos, private readonly matching: Matching) {}

  /** Notes which request of the upper device the next one at these sectors of the lower device is made for. */
  note(batch: RecordBatch, at: number, time: number): void {
    const { ios } = this;
    const from = payloadSector(batch, at, 8);
    if (Number.isNaN(from)) return;
    const upper = payloadDevice(batch, at, 0);
    const bytes = batch.bytes[at]!;
    const start = bytes === 0 ? NO_SECTOR : from;
    let parent = NONE;
    let slot = this.matching.find(upper, start, bytes, batch.category[at]!, State.QUEUED, State.ISSUED);
    if (slot === NONE) slot = this.matching.containing(upper, start, bytes, batch.category[at]!);
    // a flush of a disk of ours has its tables written, and lies at no sector itself
    if (slot === NONE && start === 0 && majorOf(upper) === QUIESCE_MAJOR) slot = this.matching.find(upper, NO_SECTOR, 0, Category.FLUSH, State.QUEUED, State.ISSUED);
    if (slot !== NONE) {
      const io = this.matching.wholeOf(slot);
      parent = ios.id[io]!;
      this.parentDevice = upper;
      if (Number.isNaN(ios.remapped[io]!)) ios.remapped[io] = time;
    } else if (this.count > 0) parent = this.take(upper, start, bytes);
    if (parent === NONE) return;
    // a partition's number stands in the payload, its disk's in the record
    const lower = payloadDevice(batch, at, 4);
    const link = ios.open(Kind.LINK, lower === upper || lower === 0 ? batch.device[at]! : lower, bytes === 0 ? NO_SECTOR : batch.sector[at]!, bytes, time);
    ios.parent[link] = parent;
    ios.parentDevice[link] = this.parentDevice;
    ios.category[link] = batch.category[at]!;
    this.count++;
  }

  /** The row of the request that this one is made for. */
  take(device: number, start: number, bytes: number): number {
    const { ios } = this;
    if (this.count === 0) return NONE;
    let found = NONE;
    for (let slot = ios.first(device, start); slot !== NONE; slot = ios.next(slot)) {
      if (ios.kind[slot] === Kind.LINK && ios.device[slot] === device && ios.start[slot] === start && ios.bytes[slot]! >= bytes) found = slot;
    }
    if (found === NONE) return NONE;
    const parent = ios.parent[found]!;
    this.parentDevice = ios.parentDevice[found]!;
    this.drop(found);
    return parent;
  }

  drop(slot: number): void {
    this.ios.release(slot);
    this.count--;
  }
}
