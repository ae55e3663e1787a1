/**
 * The requests that are under way, in columns: one slot each, found by device and first sector, in a list by age. Slots are used again.
 * A slot is a request of its own, a piece of one that was split, or the note of a remap that waits for the request it announces.
 */

export const Kind = { FREE: 0, IO: 1, PIECE: 2, LINK: 3 } as const;
export const State = { QUEUED: 0, GOT: 1, INSERTED: 2, ISSUED: 3, ENDING: 4 } as const;

/** No slot. */
export const NONE = -1;
/** Stands for the first sector of what has no bytes. */
export const NO_SECTOR = -1;

/** More on one bucket than this are no requests in flight, but ones whose end was not recorded. */
const MAX_CHAIN = 1024;

/** Columns of the numbers of slots; times are ns, NaN where nothing was seen. */
export class OpenIos {
  /** Slots in use. */
  count = 0;
  kind = new Uint8Array(0);
  state = new Uint8Array(0);
  /** Row of the request: counted in the order of being opened. */
  id = new Int32Array(0);
  device = new Uint32Array(0);
  /** As queued. */
  sector = new Float64Array(0);
  bytes = new Float64Array(0);
  category = new Uint32Array(0);
  pid = new Uint32Array(0);
  opened = new Float64Array(0);
  queued = new Float64Array(0);
  slept = new Float64Array(0);
  gotRequest = new Float64Array(0);
  inserted = new Float64Array(0);
  merged = new Float64Array(0);
  remapped = new Float64Array(0);
  issued = new Float64Array(0);
  completed = new Float64Array(0);
  error = new Uint16Array(0);
  /** Rows, -1 for none. */
  parent = new Int32Array(0);
  mergedInto = new Int32Array(0);
  /** Of the parent, where there is one. */
  parentDevice = new Uint32Array(0);
  cause = new Uint16Array(0);
  requeues = new Uint16Array(0);
  /** The range of the request to the device: longer than what was queued where others were merged, shorter where it was split. */
  start = new Float64Array(0);
  length = new Float64Array(0);
  /** Bytes that no completion has covered. */
  remaining = new Float64Array(0);
  /** Issues that are not complete. */
  inDevice = new Uint16Array(0);
  /** Of a piece: the slot it belongs to. Of a link: none. */
  owner = new Int32Array(0);
  /** The next one merged into the same. */
  nextMerged = new Int32Array(0);
  lastMerged = new Int32Array(0);
  older = new Int32Array(0);
  newer = new Int32Array(0);
  oldest = NONE;
  newest = NONE;

  private chained = new Int32Array(0);
  private buckets = new Int32Array(0);
  private hashed = new Uint8Array(0);
  private free = NONE;
  private nextId = 0;

  constructor() {
    this.grow(256);
  }

  /** Requests ever opened: ids are below. */
  get opens(): number {
    return this.nextId;
  }

  /** A slot in the list and the index; times are not known, all else is as given. */
  open(kind: number, device: number, sector: number, bytes: number, time: number): number {
    if (this.free === NONE) this.grow(this.kind.length * 2);
    const slot = this.free;
    this.free = this.newer[slot]!;
    this.count++;
    this.kind[slot] = kind;
    this.state[slot] = State.QUEUED;
    this.id[slot] = kind === Kind.IO ? this.nextId++ : NONE;
    this.device[slot] = device;
    this.sector[slot] = this.start[slot] = sector;
    this.bytes[slot] = this.length[slot] = this.remaining[slot] = bytes;
    this.opened[slot] = time;
    this.queued[slot] = this.slept[slot] = this.gotRequest[slot] = this.inserted[slot] = NaN;
    this.merged[slot] = this.remapped[slot] = this.issued[slot] = this.completed[slot] = NaN;
    this.error[slot] = this.cause[slot] = this.requeues[slot] = this.inDevice[slot] = 0;
    this.category[slot] = this.pid[slot] = 0;
    this.parent[slot] = this.mergedInto[slot] = NONE;
    this.owner[slot] = this.nextMerged[slot] = NONE;
    this.lastMerged[slot] = slot;
    this.attach(slot);
    this.index(slot);
    return slot;
  }

  /** To the end of the list. */
  attach(slot: number): void {
    this.older[slot] = this.newest;
    this.newer[slot] = NONE;
    if (this.newest === NONE) this.oldest = slot;
    else this.newer[this.newest] = slot;
    this.newest = slot;
  }

  /** Out of the list and the index, as one that another carries. It stays in use. */
  detach(slot: number): void {
    this.unindex(slot);
    const older = this.older[slot]!;
    const newer = this.newer[slot]!;
    if (older === NONE) {
      if (this.oldest !== slot) return;
      this.oldest = newer;
    } else this.newer[older] = newer;
    if (newer === NONE) this.newest = older;
    else this.older[newer] = older;
    this.older[slot] = this.newer[slot] = NONE;
  }

  release(slot: number): void {
    this.detach(slot);
    this.kind[slot] = Kind.FREE;
    this.newer[slot] = this.free;
    this.free = slot;
    this.count--;
  }

  /** Moves the first sector of the request to the device. */
  restart(slot: number, start: number): void {
    this.unindex(slot);
    this.start[slot] = start;
    this.index(slot);
  }

  index(slot: number): void {
    const bucket = this.bucket(this.device[slot]!, this.start[slot]!);
    this.chained[slot] = this.buckets[bucket]!;
    this.buckets[bucket] = slot;
    this.hashed[slot] = 1;
  }

  unindex(slot: number): void {
    if (this.hashed[slot] === 0) return;
    this.hashed[slot] = 0;
    const bucket = this.bucket(this.device[slot]!, this.start[slot]!);
    let at = this.buckets[bucket]!;
    if (at === slot) {
      this.buckets[bucket] = this.chained[slot]!;
      return;
    }
    while (this.chained[at] !== slot) at = this.chained[at]!;
    this.chained[at] = this.chained[slot]!;
  }

  /** The first of those that may start there; `next` gives the others. They come from the newest to the oldest. */
  first(device: number, start: number): number {
    return this.buckets[this.bucket(device, start)]!;
  }

  next(slot: number): number {
    return this.chained[slot]!;
  }

  /** Whether a walk of so many steps went along requests of which most are dead. */
  isTooLong(steps: number): boolean {
    return steps > MAX_CHAIN;
  }

  private bucket(device: number, start: number): number {
    // the low bits of sectors are alike: multiplied, they reach the upper ones
    const mixed = Math.imul(start ^ Math.imul(device, 0x9e37_79b1), 0x85eb_ca6b);
    return (mixed ^ (mixed >>> 15)) & (this.buckets.length - 1);
  }

  private grow(capacity: number): void {
    const before = this.kind.length;
    this.kind = wider(this.kind, capacity);
    this.state = wider(this.state, capacity);
    this.hashed = wider(this.hashed, capacity);
    this.error = wider(this.error, capacity);
    this.cause = wider(this.cause, capacity);
    this.requeues = wider(this.requeues, capacity);
    this.inDevice = wider(this.inDevice, capacity);
    this.device = wider(this.device, capacity);
    this.category = wider(this.category, capacity);
    this.pid = wider(this.pid, capacity);
    this.parentDevice = wider(this.parentDevice, capacity);
    for (const name of ['id', 'parent', 'mergedInto', 'owner', 'nextMerged', 'lastMerged', 'older', 'newer'] as const) this[name] = wider(this[name], capacity);
    this.chained = wider(this.chained, capacity);
    for (const name of FLOATS) this[name] = wider(this[name], capacity);
    for (let slot = capacity - 1; slot >= before; slot--) {
      this.newer[slot] = this.free;
      this.free = slot;
    }
    this.buckets = new Int32Array(capacity * 2).fill(NONE);
    // from the oldest on, so that chains keep their order
    for (let slot = this.oldest; slot !== NONE; slot = this.newer[slot]!) if (this.hashed[slot] === 1) this.index(slot);
  }
}

const FLOATS = [
  'sector', 'bytes', 'opened', 'queued', 'slept', 'gotRequest', 'inserted', 'merged', 'remapped', 'issued', 'completed', 'start', 'length', 'remaining',
] as const;

function wider<T extends Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array>(column: T, capacity: number): T {
  const grown = new (column.constructor as new (length: number) => T)(capacity);
  grown.set(column);
  return grown;
}
