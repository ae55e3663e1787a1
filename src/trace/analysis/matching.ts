import { Category } from '../record.js';
import { Kind, NO_SECTOR, NONE, State, type OpenIos } from './open-ios.js';

/** A search that no index helps, among the open requests, looks at so many; at fewer while it finds nothing. */
const MAX_SEARCH = 4096;
const MIN_SEARCH = 32;

/** What a request moves: those that differ never belong together. */
const OP_BITS = Category.WRITE + Category.DISCARD;

/** Finds the open request that a record is about. */
export class Matching {
  private searchLimit = MAX_SEARCH;

  /** `giveUp` closes one that has lost its end. */
  constructor(private readonly ios: OpenIos, private readonly giveUp: (slot: number) => void) {}

  /** The oldest that starts there and stands between these states; with exactly these bytes, if any has. */
  find(device: number, start: number, bytes: number, category: number, least: number, most: number): number {
    const { ios } = this;
    let exact = NONE;
    let near = NONE;
    let steps = 0;
    let last = NONE;
    for (let slot = ios.first(device, start); slot !== NONE; slot = ios.next(slot)) {
      steps++;
      last = slot;
      if (ios.start[slot] !== start || ios.device[slot] !== device || ios.kind[slot] === Kind.LINK) continue;
      const state = ios.state[slot]!;
      if (state < least || state > most) continue;
      if (start !== NO_SECTOR && ((ios.category[slot]! ^ category) & OP_BITS) !== 0) continue;
      if (ios.length[slot] === bytes) exact = slot;
      else near = slot;
    }
    const found = exact === NONE ? near : exact;
    if (ios.isTooLong(steps) && last !== found) this.giveUp(last);
    return found;
  }

  /** Who is refused at once is the one that asks; else those that are in the device come first. */
  completing(device: number, sector: number, bytes: number, category: number, refusedPid: number): number {
    const { ios } = this;
    const issued = this.find(device, sector, bytes, category, State.ISSUED, State.ISSUED);
    if (issued !== NONE && ios.length[issued] === bytes && refusedPid === NONE) return issued;
    const queued = this.find(device, sector, bytes, category, State.QUEUED, State.INSERTED);
    if (issued === NONE || queued === NONE) return issued === NONE ? queued : issued;
    if (refusedPid !== NONE && ios.state[queued] === State.QUEUED && ios.pid[queued] === refusedPid) return queued;
    return ios.length[issued] !== bytes && ios.length[queued] === bytes ? queued : issued;
  }

  /** A piece whose whole was given up stands for itself. */
  wholeOf(slot: number): number {
    const { ios } = this;
    if (ios.kind[slot] !== Kind.PIECE) return slot;
    const io = ios.owner[slot]!;
    return ios.kind[io] === Kind.IO && ios.id[io] === ios.parent[slot] ? io : slot;
  }

  findSplit(device: number, sector: number, middle: number, category: number): number {
    const { ios } = this;
    let found = NONE;
    for (let slot = ios.first(device, sector); slot !== NONE; slot = ios.next(slot)) {
      const isOne = ios.device[slot] === device && ios.start[slot] === sector && ios.kind[slot] !== Kind.LINK && ios.state[slot]! < State.ISSUED
        && middle > sector && sector + ios.length[slot]! / 512 > middle && ((ios.category[slot]! ^ category) & OP_BITS) === 0;
      if (isOne) found = slot;
    }
    return found;
  }

  adjoining(slot: number, atBack: boolean): number {
    const { ios } = this;
    let budget = this.searchLimit;
    for (let other = ios.newest; other !== NONE && budget > 0; other = ios.older[other]!, budget--) {
      if (!this.adjoins(other, slot, atBack)) continue;
      this.learn(true);
      return other;
    }
    this.learn(false);
    return NONE;
  }

  /** Whether `other` waits for the device and ends where `slot` begins; or begins where it ends. */
  adjoins(other: number, slot: number, atBack: boolean): boolean {
    const { ios } = this;
    if (other === slot || ios.device[other] !== ios.device[slot] || ios.state[other]! >= State.ISSUED || ios.mergedInto[other] !== NONE) return false;
    if ((ios.kind[other] !== Kind.IO && ios.kind[other] !== Kind.PIECE) || ((ios.category[other]! ^ ios.category[slot]!) & OP_BITS) !== 0) return false;
    if (atBack) return ios.start[other]! + ios.length[other]! / 512 === ios.start[slot];
    return ios.start[other] === ios.start[slot]! + ios.length[slot]! / 512;
  }

  /** Where merges were not recorded, a request to the device is longer than what was queued: it carries all that is inside its range. */
  gather(found: number, device: number, sector: number, bytes: number, category: number): number {
    const { ios } = this;
    const end = sector + bytes / 512;
    let into = found;
    let budget = this.searchLimit;
    let gathered = 0;
    for (let slot = ios.oldest, next: number; slot !== NONE && budget > 0; slot = next, budget--) {
      next = ios.newer[slot]!;
      if (slot === into || ios.device[slot] !== device || ios.kind[slot] === Kind.LINK || ios.state[slot]! >= State.ISSUED) continue;
      if (ios.start[slot]! < sector || ios.start[slot]! + ios.length[slot]! / 512 > end || ios.start[slot] === NO_SECTOR) continue;
      if (((ios.category[slot]! ^ category) & OP_BITS) !== 0) continue;
      if (into === NONE) into = slot;
      else this.absorb(into, slot);
      gathered++;
    }
    this.learn(gathered > 0);
    return into;
  }

  /** The open request that a piece of it belongs to. */
  containing(device: number, start: number, bytes: number, category: number): number {
    if (start === NO_SECTOR) return NONE;
    const { ios } = this;
    const end = start + bytes / 512;
    let budget = this.searchLimit;
    for (let slot = ios.oldest; slot !== NONE && budget > 0; slot = ios.newer[slot]!, budget--) {
      if (ios.device[slot] !== device || ios.kind[slot] === Kind.LINK || ((ios.category[slot]! ^ category) & OP_BITS) !== 0) continue;
      const inQueued = ios.sector[slot]! <= start && ios.sector[slot]! + ios.bytes[slot]! / 512 >= end && ios.bytes[slot]! > bytes;
      const inRequest = ios.start[slot]! <= start && ios.start[slot]! + ios.length[slot]! / 512 >= end && ios.length[slot]! > bytes;
      if (!inQueued && !inRequest) continue;
      this.learn(true);
      return slot;
    }
    this.learn(false);
    return NONE;
  }

  absorb(into: number, slot: number): void {
    const { ios } = this;
    ios.detach(slot);
    // rows merge into rows: a piece stays with its own
    ios.mergedInto[slot] = ios.id[this.wholeOf(into)]!;
    ios.nextMerged[ios.lastMerged[into]!] = slot;
    ios.lastMerged[into] = ios.lastMerged[slot]!;
    const start = Math.min(ios.start[into]!, ios.start[slot]!);
    const end = Math.max(ios.start[into]! + ios.length[into]! / 512, ios.start[slot]! + ios.length[slot]! / 512);
    const added = (end - start) * 512 - ios.length[into]!;
    ios.remaining[into]! += added;
    ios.length[into]! += added;
    if (start !== ios.start[into]) ios.restart(into, start);
  }

  private learn(found: boolean): void {
    if (found) this.searchLimit = MAX_SEARCH;
    else if (this.searchLimit > MIN_SEARCH) this.searchLimit--;
  }
}
