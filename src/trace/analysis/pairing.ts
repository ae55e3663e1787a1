import { Action, Category, CGROUP_FLAG, majorOf, QUIESCE_MAJOR, type RecordBatch } from '../record.js';
import { Annotations } from './annotations.js';
import { Matching } from './matching.js';
import { Kind, NO_SECTOR, NONE, State, type OpenIos } from './open-ios.js';
import type { PairingCounts, PairingListener } from './pairing-listener.js';
import { payloadSector } from './payload.js';
import { RemapLinks } from './remap-links.js';

/** A request of which nothing was heard for longer has lost its end: timeouts and retries of disks take minutes at most. */
export const MAX_AGE_NS = 600e9;
/** So many are under way at once in no healthy machine; the oldest have lost their end. Bounds memory to about 30 MB. */
export const MAX_OPEN = 131_072;
/**
 * Pairs records into requests as they come. Requests with the same first sector are served in the order of being queued.
 * Memory is that of the requests under way, and those are bounded in number and age.
 */
export class Pairing {
  readonly counts: PairingCounts = { withoutQueue: 0, withoutEnd: 0, refused: 0, failed: 0, requeued: 0, splits: 0, merges: 0, passedOver: 0 };
  /** ns, of the last record. */
  endNs = 0;
  records = 0;
  private readonly onOpened: PairingListener[];
  private readonly onMerged: PairingListener[];
  private readonly onIssued: PairingListener[];
  private readonly onRequeued: PairingListener[];
  private readonly onCompleted: PairingListener[];
  private readonly onClosed: PairingListener[];
  private readonly onOther: PairingListener[];
  private readonly matching: Matching;
  private readonly links: RemapLinks;
  /** The request that bios were last merged into, or that was made last. */
  private carrier = NONE;

  constructor(readonly ios: OpenIos, listeners: readonly PairingListener[], readonly annotations = new Annotations()) {
    this.matching = new Matching(ios, (slot) => this.giveUp(slot));
    this.links = new RemapLinks(ios, this.matching);
    this.onOpened = listeners.filter((one) => one.requestOpened !== undefined);
    this.onMerged = listeners.filter((one) => one.requestMerged !== undefined);
    this.onIssued = listeners.filter((one) => one.requestIssued !== undefined);
    this.onRequeued = listeners.filter((one) => one.requestRequeued !== undefined);
    this.onCompleted = listeners.filter((one) => one.requestCompleted !== undefined);
    this.onClosed = listeners.filter((one) => one.requestClosed !== undefined);
    this.onOther = listeners.filter((one) => one.otherRecord !== undefined);
  }

  add(batch: RecordBatch): void {
    for (let at = 0; at < batch.count; at++) this.record(batch, at);
    this.records += batch.count;
    const { ios } = this;
    while (ios.oldest !== NONE && ios.opened[ios.oldest]! < this.endNs - MAX_AGE_NS) this.giveUp(ios.oldest);
  }

  /** Closes what is still open. */
  finish(): void {
    while (this.ios.oldest !== NONE) this.giveUp(this.ios.oldest);
  }

  private record(batch: RecordBatch, at: number): void {
    const category = batch.category[at]!;
    if ((category & Category.NOTIFY) !== 0) {
      this.annotations.note(batch, at);
      for (const one of this.onOther) one.otherRecord!(batch, at);
      return;
    }
    const time = batch.time[at]!;
    if (time > this.endNs) this.endNs = time;
    if ((category & Category.PC) !== 0) {
      this.counts.passedOver++;
      return;
    }
    const device = batch.device[at]!;
    const sector = batch.sector[at]!;
    const bytes = batch.bytes[at]!;
    switch (batch.action[at]! & (CGROUP_FLAG - 1)) {
      case Action.QUEUE: this.queue(batch, at, time); break;
      case Action.GET_REQUEST: this.getRequest(device, sector, bytes, category, batch.pid[at]!, time); break;
      case Action.INSERT: this.insert(device, sector, bytes, category, batch.pid[at]!, time); break;
      case Action.ISSUE: this.issue(device, sector, bytes, category, batch.pid[at]!, time); break;
      case Action.COMPLETE: this.complete(batch, at, time); break;
      case Action.BACK_MERGE: this.merge(device, sector, bytes, category, time, true); break;
      case Action.FRONT_MERGE: this.merge(device, sector, bytes, category, time, false); break;
      case Action.REQUEUE: this.requeue(device, sector, bytes, category, time); break;
      case Action.SLEEP: this.sleep(device, sector, bytes, category, time); break;
      case Action.REMAP: this.makeRoom(); this.links.note(batch, at, time); break;
      case Action.SPLIT: this.split(batch, at, time); for (const one of this.onOther) one.otherRecord!(batch, at); break;
      default: for (const one of this.onOther) one.otherRecord!(batch, at);
    }
  }

  private queue(batch: RecordBatch, at: number, time: number): void {
    const { ios } = this;
    const device = batch.device[at]!;
    const bytes = batch.bytes[at]!;
    const start = bytes === 0 ? NO_SECTOR : batch.sector[at]!;
    const parent = this.links.take(device, start, bytes);
    const slot = this.open(device, start, bytes, batch.category[at]!, batch.pid[at]!, time);
    ios.queued[slot] = time;
    ios.parent[slot] = parent;
    if (parent !== NONE) ios.parentDevice[slot] = this.links.parentDevice;
    ios.cause[slot] = this.annotations.take(device);
    for (const one of this.onOpened) one.requestOpened!(slot, time);
  }

  private makeRoom(): void {
    if (this.ios.count >= MAX_OPEN) this.giveUp(this.ios.oldest);
  }

  private open(device: number, start: number, bytes: number, category: number, pid: number, time: number): number {
    const { ios } = this;
    this.makeRoom();
    const slot = ios.open(Kind.IO, device, start, bytes, time);
    ios.category[slot] = category;
    ios.pid[slot] = pid;
    return slot;
  }

  /** Of a request that was queued before the trace began. */
  private openLate(device: number, start: number, bytes: number, category: number, pid: number, time: number): number {
    this.counts.withoutQueue++;
    const slot = this.open(device, start, bytes, category, pid, time);
    for (const one of this.onOpened) one.requestOpened!(slot, time);
    return slot;
  }

  private getRequest(device: number, sector: number, bytes: number, category: number, pid: number, time: number): void {
    const { ios } = this;
    const start = bytes === 0 ? NO_SECTOR : sector;
    let slot = this.matching.find(device, start, bytes, category, State.QUEUED, State.QUEUED);
    if (slot === NONE) slot = this.matching.containing(device, start, bytes, category);
    if (slot === NONE) slot = this.openLate(device, start, bytes, category, pid, time);
    if (ios.state[slot] === State.QUEUED) ios.state[slot] = State.GOT;
    const io = this.matching.wholeOf(slot);
    if (Number.isNaN(ios.gotRequest[io]!)) ios.gotRequest[io] = time;
    this.carrier = slot;
  }

  private insert(device: number, sector: number, bytes: number, category: number, pid: number, time: number): void {
    const { ios } = this;
    const start = bytes === 0 ? NO_SECTOR : sector;
    let slot = this.matching.find(device, start, bytes, category, State.QUEUED, State.GOT);
    if (slot === NONE) slot = this.matching.containing(device, start, bytes, category);
    if (slot === NONE) slot = this.openLate(device, start, bytes, category, pid, time);
    if (ios.state[slot]! < State.INSERTED) ios.state[slot] = State.INSERTED;
    const io = this.matching.wholeOf(slot);
    if (Number.isNaN(ios.inserted[io]!)) ios.inserted[io] = time;
    for (let merged = ios.nextMerged[slot]!; merged !== NONE; merged = ios.nextMerged[merged]!) {
      if (Number.isNaN(ios.inserted[this.matching.wholeOf(merged)]!)) ios.inserted[this.matching.wholeOf(merged)] = time;
    }
  }

  private sleep(device: number, sector: number, bytes: number, category: number, time: number): void {
    const slot = this.matching.find(device, bytes === 0 ? NO_SECTOR : sector, bytes, category, State.QUEUED, State.QUEUED);
    if (slot !== NONE) this.ios.slept[slot] = time;
  }

  private issue(device: number, sector: number, bytes: number, category: number, pid: number, time: number): void {
    if (bytes === 0) {
      this.issueFlush(device, category, pid, time);
      return;
    }
    const { ios } = this;
    let slot = this.matching.find(device, sector, bytes, category, State.QUEUED, State.INSERTED);
    if (slot === NONE || ios.length[slot]! < bytes) slot = this.matching.gather(slot, device, sector, bytes, category);
    if (slot === NONE) slot = this.matching.containing(device, sector, bytes, category);
    if (slot === NONE) slot = this.openLate(device, sector, bytes, category, pid, time);
    ios.state[slot] = State.ISSUED;
    this.markIssued(slot, time, sector, bytes);
    for (let merged = ios.nextMerged[slot]!; merged !== NONE; merged = ios.nextMerged[merged]!) {
      const io = this.matching.wholeOf(merged);
      if (Number.isNaN(ios.issued[io]!)) ios.issued[io] = time;
    }
  }

  private markIssued(slot: number, time: number, sector: number, bytes: number): void {
    const { ios } = this;
    const io = this.matching.wholeOf(slot);
    if (Number.isNaN(ios.issued[io]!)) ios.issued[io] = time;
    ios.inDevice[slot]!++;
    for (const one of this.onIssued) one.requestIssued!(io, time, sector, bytes);
  }

  /**
   * One flush of the device serves all that wait for one, where it is the kernel that tells (it counts as a read there). Where data
   * asked for it, none waits.
   */
  private issueFlush(device: number, category: number, pid: number, time: number): void {
    const { ios } = this;
    const forDevice = servesAll(device, category);
    if (forDevice) this.endFlushes(device);
    let slot = this.matching.find(device, NO_SECTOR, 0, category, State.QUEUED, State.INSERTED);
    if (slot === NONE && forDevice) {
      slot = this.open(device, NO_SECTOR, 0, category, pid, time);
      for (const one of this.onOpened) one.requestOpened!(slot, time);
    } else if (slot === NONE) slot = this.openLate(device, NO_SECTOR, 0, category, pid, time);
    if (forDevice) {
      for (let other = ios.first(device, NO_SECTOR); other !== NONE; other = ios.next(other)) {
        if (ios.device[other] !== device || ios.start[other] !== NO_SECTOR || ios.state[other]! >= State.ISSUED) continue;
        ios.state[other] = State.ISSUED;
        ios.issued[other] = time;
      }
    }
    ios.state[slot] = State.ISSUED;
    this.markIssued(slot, time, NO_SECTOR, 0);
  }

  private complete(batch: RecordBatch, at: number, time: number): void {
    const code = batch.error[at]!;
    const error = code > 0x7fff ? 0x1_0000 - code : code;
    const device = batch.device[at]!;
    const sector = batch.sector[at]!;
    const bytes = batch.bytes[at]!;
    const category = batch.category[at]!;
    if (bytes === 0) {
      this.completeFlush(device, category, error, time);
      return;
    }
    const { ios } = this;
    let slot = this.matching.completing(device, sector, bytes, category, error === 0 ? NONE : batch.pid[at]!);
    if (slot === NONE || ios.length[slot]! < bytes) slot = this.matching.gather(slot, device, sector, bytes, category);
    if (slot === NONE) slot = this.matching.containing(device, sector, bytes, category);
    if (slot === NONE) slot = this.openLate(device, sector, bytes, category, 0, time);
    const wasIssued = ios.inDevice[slot]! > 0;
    if (wasIssued) ios.inDevice[slot]!--;
    const io = this.matching.wholeOf(slot);
    for (const one of this.onCompleted) one.requestCompleted!(io, time, sector, bytes, wasIssued);
    ios.remaining[slot]! -= bytes;
    if (error !== 0) ios.error[this.matching.wholeOf(slot)] = error;
    if (ios.remaining[slot]! > 0) {
      // the other pieces of one that was split are found by sectors of their own
      if (ios.length[slot] === bytes) ios.unindex(slot);
      return;
    }
    this.end(slot, time);
  }

  /** The kernel tells the end of a flush twice: for the device, and, as a write of nothing, for each that waited. */
  private completeFlush(device: number, category: number, error: number, time: number): void {
    const { ios } = this;
    if ((category & Category.FLUSH) === 0) {
      const slot = this.matching.find(device, NO_SECTOR, 0, 0, State.ENDING, State.ENDING);
      if (slot === NONE) {
        this.counts.passedOver++;
        return;
      }
      if (error !== 0) ios.error[slot] = error;
      this.end(slot, time);
      return;
    }
    let slot = this.matching.find(device, NO_SECTOR, 0, category, State.ISSUED, State.ISSUED);
    if (slot === NONE) slot = this.matching.find(device, NO_SECTOR, 0, category, State.QUEUED, State.INSERTED);
    if (slot === NONE) slot = this.openLate(device, NO_SECTOR, 0, category, 0, time);
    const forDevice = servesAll(device, category);
    for (let other = ios.first(device, NO_SECTOR), next: number; other !== NONE; other = next) {
      next = ios.next(other);
      const isOne = ios.device[other] === device && ios.start[other] === NO_SECTOR && (forDevice ? ios.state[other] === State.ISSUED : other === slot);
      if (!isOne) continue;
      if (ios.inDevice[other]! > 0) {
        ios.inDevice[other]!--;
        for (const one of this.onCompleted) one.requestCompleted!(other, time, NO_SECTOR, 0, true);
      }
      if (error !== 0) ios.error[other] = error;
      ios.completed[other] = time;
      ios.state[other] = State.ENDING;
      if (!forDevice || Number.isNaN(ios.queued[other]!)) this.end(other, time);
    }
    // one that was never issued
    if (ios.kind[slot] === Kind.IO && ios.state[slot]! < State.ISSUED) this.end(slot, time);
  }

  /** Those whose second end was not told have the first one's time. */
  private endFlushes(device: number): void {
    const { ios } = this;
    for (let slot = ios.first(device, NO_SECTOR), next: number; slot !== NONE; slot = next) {
      next = ios.next(slot);
      if (ios.device[slot] === device && ios.start[slot] === NO_SECTOR && ios.state[slot] === State.ENDING) this.end(slot, ios.completed[slot]!);
    }
  }

  private requeue(device: number, sector: number, bytes: number, category: number, time: number): void {
    const { ios } = this;
    const slot = this.matching.find(device, bytes === 0 ? NO_SECTOR : sector, bytes, category, State.ISSUED, State.ISSUED);
    if (slot === NONE) return;
    this.counts.requeued++;
    ios.state[slot] = State.INSERTED;
    const io = this.matching.wholeOf(slot);
    ios.issued[io] = NaN;
    ios.requeues[io]!++;
    for (let merged = ios.nextMerged[slot]!; merged !== NONE; merged = ios.nextMerged[merged]!) ios.issued[this.matching.wholeOf(merged)] = NaN;
    if (ios.inDevice[slot]! > 0) ios.inDevice[slot]!--;
    for (const one of this.onRequeued) one.requestRequeued!(io, time);
  }

  /** The one at these sectors joins the request that ends where it begins, or begins where it ends. */
  private merge(device: number, sector: number, bytes: number, category: number, time: number, atBack: boolean): void {
    const { ios } = this;
    this.counts.merges++;
    let slot = this.matching.find(device, sector, bytes, category, State.QUEUED, State.QUEUED);
    if (slot === NONE) slot = this.matching.find(device, sector, bytes, category, State.GOT, State.INSERTED);
    if (slot === NONE) return;
    const io = this.matching.wholeOf(slot);
    if (Number.isNaN(ios.merged[io]!) && slot === io) {
      ios.merged[io] = time;
      for (const one of this.onMerged) one.requestMerged!(io, time);
    }
    let into = this.carrier !== NONE && this.matching.adjoins(this.carrier, slot, atBack) ? this.carrier : NONE;
    if (into === NONE) into = this.matching.adjoining(slot, atBack);
    if (into === NONE) return;
    this.carrier = into;
    this.matching.absorb(into, slot);
  }

  private split(batch: RecordBatch, at: number, time: number): void {
    const { ios } = this;
    const middle = payloadSector(batch, at, 0);
    const device = batch.device[at]!;
    const sector = batch.sector[at]!;
    const slot = Number.isNaN(middle) ? NONE : this.matching.findSplit(device, sector, middle, batch.category[at]!);
    if (slot === NONE) return;
    this.counts.splits++;
    const rest = ios.length[slot]! - (middle - sector) * 512;
    const io = this.matching.wholeOf(slot);
    const piece = ios.open(Kind.PIECE, device, middle, rest, time);
    ios.category[piece] = ios.category[io]!;
    ios.owner[piece] = io;
    ios.parent[piece] = ios.id[io]!;
    ios.length[slot] = (middle - sector) * 512;
    // a piece ends with its bytes, the whole with those of all pieces
    if (slot !== io) ios.remaining[slot] = ios.bytes[slot] = ios.length[slot]!;
  }

  private end(slot: number, time: number): void {
    const { ios } = this;
    const error = ios.error[this.matching.wholeOf(slot)]!;
    let merged = ios.nextMerged[slot]!;
    ios.detach(slot);
    this.close(slot, time, error);
    while (merged !== NONE) {
      const next = ios.nextMerged[merged]!;
      if (error !== 0) ios.error[this.matching.wholeOf(merged)] = error;
      // the first piece of one that was split: the others are on their way
      const rest = ios.kind[merged] === Kind.IO ? ios.bytes[merged]! - ios.length[merged]! : 0;
      if (rest > 0 && error === 0 && ios.remaining[merged]! > ios.length[merged]!) {
        ios.remaining[merged]! -= ios.length[merged]!;
        ios.attach(merged);
      } else this.close(merged, time, error);
      merged = next;
    }
  }

  private close(slot: number, time: number, error: number): void {
    const { ios } = this;
    if (this.carrier === slot) this.carrier = NONE;
    if (ios.kind[slot] === Kind.PIECE) {
      const io = this.matching.wholeOf(slot);
      const bytes = ios.bytes[slot]!;
      ios.release(slot);
      if (io === slot) return;
      ios.remaining[io]! -= bytes;
      if (ios.remaining[io]! <= 0) this.end(io, time);
      return;
    }
    ios.completed[slot] = time;
    if (error !== 0) {
      if (Number.isNaN(ios.issued[slot]!) && Number.isNaN(ios.gotRequest[slot]!)) this.counts.refused++;
      else this.counts.failed++;
    }
    for (const one of this.onClosed) one.requestClosed!(slot);
    ios.release(slot);
  }

  /** Of one whose end did not come, and of those it carries. */
  private giveUp(slot: number): void {
    const { ios } = this;
    if (ios.kind[slot] === Kind.LINK) {
      this.links.drop(slot);
      return;
    }
    if (ios.state[slot] === State.ENDING) {
      this.end(slot, ios.completed[slot]!);
      return;
    }
    let merged = ios.nextMerged[slot]!;
    this.abandon(slot);
    while (merged !== NONE) {
      const next = ios.nextMerged[merged]!;
      this.abandon(merged);
      merged = next;
    }
  }

  private abandon(slot: number): void {
    const { ios } = this;
    if (this.carrier === slot) this.carrier = NONE;
    if (ios.kind[slot] === Kind.IO) {
      this.counts.withoutEnd++;
      for (const one of this.onClosed) one.requestClosed!(slot);
    }
    ios.release(slot);
  }
}

/** The kernel has one flush of a device for all that wait, and tells it as a read; in recordings of ours each is issued and ends by itself. */
function servesAll(device: number, category: number): boolean {
  return (category & Category.WRITE) === 0 && majorOf(device) !== QUIESCE_MAJOR;
}
