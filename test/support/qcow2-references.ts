/**
 * An independent reading of a qcow2 file, straight from the format's description and sharing no code with the engine:
 * who references which cluster, what refcount is recorded, and what a crash must never leave.
 */
import { readStoredBitmaps } from './qcow2-stored-bitmaps.js';

export interface ReferenceReport {
  /** What no crash may leave: too low refcounts, shared clusters marked as owned, clusters used twice. */
  readonly problems: readonly string[];
  /** Clusters whose recorded refcount is higher than their references. */
  readonly leaks: number;
  readonly dirty: boolean;
  readonly snapshotNames: readonly string[];
}

/** What a cluster is used for is a number, since there are thousands and nobody is told of them: below these, it is the place among the other uses. */
const GUEST_CLUSTER = 2 ** 40;
const L2_TABLE = 2 ** 41;

/** References to clusters, in columns. A cluster in the file has its own number as its slot, one beyond the end the next free one. */
class Owners {
  readonly counts: number[];
  /** Of the first reference: all others must agree. */
  readonly uses: number[];
  /** Whether the active disk says that it owns the cluster, and what it is used for there. */
  readonly copied: number[];
  readonly #inside: number;
  readonly #beyond = new Map<number, number>();

  constructor(inside: number) {
    this.#inside = inside;
    this.counts = new Array<number>(inside).fill(0);
    this.uses = new Array<number>(inside).fill(0);
    this.copied = new Array<number>(inside).fill(-1);
  }

  slot(cluster: number): number {
    if (cluster < this.#inside) return cluster;
    const known = this.#beyond.get(cluster);
    if (known !== undefined) return known;
    this.#beyond.set(cluster, this.counts.length);
    this.uses.push(0);
    this.copied.push(-1);
    return this.counts.push(0) - 1;
  }

  /** All that have references, with their slots. */
  *referenced(): Generator<readonly [cluster: number, slot: number]> {
    for (let cluster = 0; cluster < this.#inside; cluster++) if (this.counts[cluster]! > 0) yield [cluster, cluster];
    yield* this.#beyond;
  }
}

interface Root {
  readonly name: string;
  readonly offset: number;
  readonly entries: number;
}

/** Of the upper half of an entry. */
const COPIED = 2 ** 31;
const COMPRESSED = 2 ** 30;
const OFFSET_BITS = 2 ** 24;

export function readReferences(file: Uint8Array): ReferenceReport {
  return new ReferenceReader(file).report();
}

class ReferenceReader {
  readonly #file: Buffer;
  readonly #clusterSize: number;
  readonly #refcountBits: number;
  readonly #owners: Owners;
  readonly #otherUses: string[] = [];
  readonly #problems: string[] = [];
  #names: string[] = [];

  constructor(file: Uint8Array) {
    this.#file = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
    this.#clusterSize = 2 ** this.#u32(20);
    this.#refcountBits = this.#u32(4) === 2 ? 16 : 2 ** this.#u32(96);
    this.#owners = new Owners(Math.ceil(file.byteLength / this.#clusterSize));
  }

  report(): ReferenceReport {
    this.#own(0, 1, 'header');
    this.#own(this.#offset(48), this.#u32(56), 'refcount table');
    for (let index = 0; index < this.#tableEntries(); index++) {
      const block = this.#offset(this.#offset(48) + index * 8);
      if (block !== 0) this.#own(block, 1, `refcount block ${index}`);
    }
    const active = { name: 'active', offset: this.#offset(40), entries: this.#u32(36) };
    this.#walk(active, true);
    const roots = this.#snapshots();
    this.#names = roots.map(({ name }) => name);
    for (const root of roots) this.#walk(root, false);
    for (const { offset, bytes, use } of readStoredBitmaps(this.#file).owned) this.#own(offset, Math.ceil(bytes / this.#clusterSize), use);
    this.#compareCopied();
    return { problems: this.#problems, leaks: this.#compareRefcounts(), dirty: this.#isDirty(), snapshotNames: this.#names };
  }

  #isDirty(): boolean {
    return this.#u32(4) >= 3 && this.#u32(76) % 2 === 1;
  }

  #walk(root: Root, active: boolean): void {
    if (root.entries === 0) return;
    this.#own(root.offset, Math.ceil((root.entries * 8) / this.#clusterSize), `L1 table of ${root.name}`);
    const perTable = this.#clusterSize / 8;
    for (let l1 = 0; l1 < root.entries; l1++) {
      const at = root.offset + l1 * 8;
      const table = this.#clusterAt(at);
      if (table === 0) continue;
      if (table + this.#clusterSize > this.#file.length) this.#problems.push(`L2 table ${l1} of ${root.name} lies beyond the end of the file`);
      this.#ownOne(table, L2_TABLE + l1, active && this.#u64High(at) >= COPIED);
      for (let l2 = 0; l2 < perTable; l2++) this.#walkEntry(table + l2 * 8, l1 * perTable + l2, active);
    }
  }

  #walkEntry(at: number, guestCluster: number, active: boolean): void {
    const high = this.#u64High(at);
    if (high % COPIED >= COMPRESSED) {
      this.#problems.push(`guest cluster ${guestCluster} is compressed, which nothing here writes`);
      return;
    }
    const host = this.#clusterAt(at);
    if (host === 0) return;
    this.#ownOne(host, GUEST_CLUSTER + guestCluster, active && high >= COPIED);
  }

  #snapshots(): Root[] {
    const roots: Root[] = [];
    const start = this.#offset(64);
    let at = start;
    for (let left = this.#u32(60); left > 0; left--) {
      const idBytes = this.#file.readUInt16BE(at + 12);
      const nameBytes = this.#file.readUInt16BE(at + 14);
      const strings = at + 40 + this.#u32(at + 36);
      const name = this.#file.toString('utf8', strings + idBytes, strings + idBytes + nameBytes);
      roots.push({ name, offset: this.#offset(at), entries: this.#u32(at + 8) });
      at = Math.ceil((strings + idBytes + nameBytes - start) / 8) * 8 + start;
    }
    if (roots.length > 0) this.#own(start, Math.ceil((at - start) / this.#clusterSize), 'snapshot table');
    return roots;
  }

  #own(offset: number, clusters: number, use: string): void {
    for (let index = 0; index < clusters; index++) this.#ownOne(offset + index * this.#clusterSize, this.#otherUses.push(use) - 1, false);
  }

  #ownOne(offset: number, use: number, copied: boolean): void {
    if (offset % this.#clusterSize !== 0) {
      this.#problems.push(`${this.#useName(use)} at ${offset} is not aligned`);
      return;
    }
    const cluster = offset / this.#clusterSize;
    const { counts, uses } = this.#owners;
    const slot = this.#owners.slot(cluster);
    if (copied) this.#owners.copied[slot] = use;
    if (counts[slot]!++ === 0) uses[slot] = use;
    else if (use < GUEST_CLUSTER || uses[slot] !== use) this.#problems.push(`cluster ${cluster} is used as ${this.#useName(uses[slot]!)} and as ${this.#useName(use)}`);
  }

  #useName(use: number): string {
    if (use >= L2_TABLE) return `L2 table ${use - L2_TABLE}`;
    return use >= GUEST_CLUSTER ? `guest cluster ${use - GUEST_CLUSTER}` : this.#otherUses[use]!;
  }

  #compareCopied(): void {
    const { counts, copied } = this.#owners;
    for (const [cluster, slot] of this.#owners.referenced()) {
      if (copied[slot]! >= 0 && counts[slot]! > 1) this.#problems.push(`${this.#useName(copied[slot]!)} is marked as owned, but cluster ${cluster} has ${counts[slot]} references`);
    }
  }

  /** Returns the number of leaked clusters. */
  #compareRefcounts(): number {
    const { counts, uses } = this.#owners;
    for (const [cluster, slot] of this.#owners.referenced()) {
      const recorded = this.#refcount(cluster);
      if (recorded < counts[slot]!) this.#problems.push(`cluster ${cluster} (${this.#useName(uses[slot]!)}) has refcount ${recorded} and ${counts[slot]} references`);
    }
    let leaks = 0;
    for (let cluster = 0; cluster * this.#clusterSize < this.#file.length; cluster++) {
      if (this.#refcount(cluster) > counts[cluster]!) leaks++;
    }
    return leaks;
  }

  #tableEntries(): number {
    return (this.#u32(56) * this.#clusterSize) / 8;
  }

  #refcount(cluster: number): number {
    const perBlock = (this.#clusterSize * 8) / this.#refcountBits;
    const index = Math.floor(cluster / perBlock);
    const block = index < this.#tableEntries() ? this.#offset(this.#offset(48) + index * 8) : 0;
    if (block === 0) return 0;
    const bit = (cluster % perBlock) * this.#refcountBits;
    const at = block + Math.floor(bit / 8);
    if (at >= this.#file.length) return 0;
    if (this.#refcountBits < 8) return Math.floor(this.#file[at]! / 2 ** (bit % 8)) % 2 ** this.#refcountBits;
    return this.#file.readUIntBE(at + Math.max(0, this.#refcountBits / 8 - 6), Math.min(6, this.#refcountBits / 8));
  }

  #u32(at: number): number {
    return at + 4 <= this.#file.length ? this.#file.readUInt32BE(at) : 0;
  }

  #u64High(at: number): number {
    return at + 8 <= this.#file.length ? this.#file.readUInt32BE(at) : 0;
  }

  /** Where the entry at `at` leads: its bits 9 to 55. */
  #clusterAt(at: number): number {
    if (at + 8 > this.#file.length) return 0;
    const low = this.#file.readUInt32BE(at + 4);
    return this.#file.readUInt32BE(at) % OFFSET_BITS * 2 ** 32 + low - low % 512;
  }

  #offset(at: number): number {
    return at + 8 <= this.#file.length ? this.#file.readUInt32BE(at) * 2 ** 32 + this.#file.readUInt32BE(at + 4) : 0;
  }
}
