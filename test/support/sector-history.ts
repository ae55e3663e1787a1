/**
 * What every 512-byte sector of a disk may hold after a power cut: its durable content, or any version written to it
 * since. The simulated disk chooses among these, and the oracle of guest disks allows nothing else.
 */
export const SECTOR_BYTES = 512;

/** One write to any number of sectors; `completedAt` is Infinity while it is in flight. */
export interface Write {
  completedAt: number;
}

export interface Version {
  readonly write: Write;
  readonly bytes: Uint8Array;
}

export class SectorHistory {
  #length = 0;
  #current = new Uint8Array(0);
  #durable = new Uint8Array(0);
  readonly #versions = new Map<number, Version[]>();

  constructor(content: Uint8Array) {
    this.reset(content);
  }

  get length(): number { return this.#length; }
  /** What a read returns. Valid until the next change. */
  get current(): Uint8Array { return this.#current.subarray(0, this.#length); }
  get volatileSectors(): IterableIterator<number> { return this.#versions.keys(); }

  /** Forgets the past: `content` is there, and durable. */
  reset(content: Uint8Array): void {
    this.#versions.clear();
    this.#length = 0;
    this.#current = new Uint8Array(0);
    this.#durable = new Uint8Array(0);
    this.extendTo(content.byteLength);
    this.#current.set(content);
    this.#durable.set(content);
  }

  /** Makes it longer; the new sectors are zeros. */
  extendTo(length: number): void {
    if (length <= this.#length) return;
    this.#length = length;
    if (length <= this.#current.byteLength) return;
    const capacity = Math.ceil(Math.max(length, this.#current.byteLength * 1.5, 65536) / SECTOR_BYTES) * SECTOR_BYTES;
    this.#current = resized(this.#current, capacity);
    this.#durable = resized(this.#durable, capacity);
  }

  /** Makes it shorter. What was cut off reads as zeros where it becomes longer again, and may survive as it was until a flush. */
  cutTo(write: Write, length: number): void {
    if (length >= this.#length) return;
    this.zero(write, length, this.#length - length);
    this.#length = length;
  }

  /** The sectors from `length` on were never written. */
  forgetFrom(length: number): void {
    for (const sector of [...this.#versions.keys()]) if (sector * SECTOR_BYTES >= length) this.#versions.delete(sector);
    this.#current.fill(0, length);
    this.#durable.fill(0, length);
    this.#length = Math.min(this.#length, length);
  }

  read(offset: number, into: Uint8Array): void {
    const part = this.#current.subarray(Math.min(offset, this.#length), Math.min(offset + into.byteLength, this.#length));
    into.set(part);
    into.fill(0, part.byteLength);
  }

  write(write: Write, offset: number, data: Uint8Array): void {
    this.extendTo(offset + data.byteLength);
    this.#current.set(data, offset);
    this.#record(write, offset, offset + data.byteLength);
  }

  zero(write: Write, offset: number, bytes: number): void {
    this.extendTo(offset + bytes);
    this.#current.fill(0, offset, offset + bytes);
    this.#record(write, offset, offset + bytes);
  }

  /** The sector may survive as `bytes`, though it reads as before. */
  mayBecome(write: Write, sector: number, bytes: Uint8Array): void {
    this.#add(sector, { write, bytes });
  }

  /** All writes that had completed before `tick` are durable; so nothing older survives in their sectors. */
  flush(tick: number): void {
    for (const [sector, versions] of [...this.#versions]) {
      const last = versions.findLastIndex(({ write }) => write.completedAt < tick);
      if (last < 0) continue;
      this.#durable.set(versions[last]!.bytes, sector * SECTOR_BYTES);
      if (last + 1 === versions.length) this.#versions.delete(sector);
      else this.#versions.set(sector, versions.slice(last + 1));
    }
  }

  durable(sector: number): Uint8Array {
    return this.#durable.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
  }

  /** Versions newer than the durable one, in the order they were written. */
  versions(sector: number): readonly Version[] {
    return this.#versions.get(sector) ?? [];
  }

  /** Whatever a read may give while writes are in flight: the durable content and all versions since. */
  versionsNow(sector: number): readonly Uint8Array[] {
    return [this.durable(sector).slice(), ...this.versions(sector).map(({ bytes }) => bytes)];
  }

  allows(sector: number, bytes: Uint8Array): boolean {
    return Buffer.compare(bytes, this.durable(sector)) === 0 || this.versions(sector).some((version) => Buffer.compare(bytes, version.bytes) === 0);
  }

  isCurrent(sector: number, bytes: Uint8Array): boolean {
    return Buffer.compare(bytes, this.#current.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)) === 0;
  }

  #record(write: Write, start: number, end: number): void {
    const first = Math.floor(start / SECTOR_BYTES);
    const stop = Math.ceil(end / SECTOR_BYTES);
    const copy = this.#current.slice(first * SECTOR_BYTES, stop * SECTOR_BYTES);
    for (let sector = first; sector < stop; sector++) {
      const at = (sector - first) * SECTOR_BYTES;
      this.#add(sector, { write, bytes: copy.subarray(at, at + SECTOR_BYTES) });
    }
  }

  #add(sector: number, version: Version): void {
    const versions = this.#versions.get(sector);
    if (versions === undefined) this.#versions.set(sector, [version]);
    else versions.push(version);
  }
}

function resized(bytes: Uint8Array, length: number): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(length);
  copy.set(bytes);
  return copy;
}
