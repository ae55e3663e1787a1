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

interface Owner {
  count: number;
  /** Kind and guest place of the first reference: all others must agree. */
  readonly use: string;
}

interface Root {
  readonly name: string;
  readonly offset: number;
  readonly entries: number;
}

const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;

export function readReferences(file: Uint8Array): ReferenceReport {
  return new ReferenceReader(file).report();
}

class ReferenceReader {
  readonly #file: Buffer;
  readonly #clusterSize: number;
  readonly #refcountBits: number;
  readonly #owners = new Map<number, Owner>();
  readonly #copied = new Map<number, string>();
  readonly #problems: string[] = [];
  #names: string[] = [];

  constructor(file: Uint8Array) {
    this.#file = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
    this.#clusterSize = 2 ** this.#u32(20);
    this.#refcountBits = this.#u32(4) === 2 ? 16 : 2 ** this.#u32(96);
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
      const entry = this.#u64(root.offset + l1 * 8);
      const table = Number(entry & OFFSET_MASK);
      if (table === 0) continue;
      if (table + this.#clusterSize > this.#file.length) this.#problems.push(`L2 table ${l1} of ${root.name} lies beyond the end of the file`);
      this.#own(table, 1, `L2 table ${l1}`);
      if (active && (entry & COPIED) !== 0n) this.#copied.set(table / this.#clusterSize, `L2 table ${l1}`);
      for (let l2 = 0; l2 < perTable; l2++) this.#walkEntry(this.#u64(table + l2 * 8), l1 * perTable + l2, active);
    }
  }

  #walkEntry(entry: bigint, guestCluster: number, active: boolean): void {
    if ((entry & COMPRESSED) !== 0n) {
      this.#problems.push(`guest cluster ${guestCluster} is compressed, which nothing here writes`);
      return;
    }
    const host = Number(entry & OFFSET_MASK);
    if (host === 0) return;
    this.#own(host, 1, `guest cluster ${guestCluster}`);
    if (active && (entry & COPIED) !== 0n) this.#copied.set(host / this.#clusterSize, `guest cluster ${guestCluster}`);
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
    if (offset % this.#clusterSize !== 0) this.#problems.push(`${use} at ${offset} is not aligned`);
    for (let cluster = offset / this.#clusterSize; cluster < offset / this.#clusterSize + clusters; cluster++) {
      const owner = this.#owners.get(cluster);
      if (owner === undefined) {
        this.#owners.set(cluster, { count: 1, use });
        continue;
      }
      owner.count++;
      const shared = owner.use === use && (use.startsWith('guest cluster') || use.startsWith('L2 table'));
      if (!shared) this.#problems.push(`cluster ${cluster} is used as ${owner.use} and as ${use}`);
    }
  }

  #compareCopied(): void {
    for (const [cluster, use] of this.#copied) {
      const references = this.#owners.get(cluster)!.count;
      if (references > 1) this.#problems.push(`${use} is marked as owned, but cluster ${cluster} has ${references} references`);
    }
  }

  /** Returns the number of leaked clusters. */
  #compareRefcounts(): number {
    for (const [cluster, { count, use }] of this.#owners) {
      const recorded = this.#refcount(cluster);
      if (recorded < count) this.#problems.push(`cluster ${cluster} (${use}) has refcount ${recorded} and ${count} references`);
    }
    let leaks = 0;
    for (let cluster = 0; cluster * this.#clusterSize < this.#file.length; cluster++) {
      if (this.#refcount(cluster) > (this.#owners.get(cluster)?.count ?? 0)) leaks++;
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

  #u64(at: number): bigint {
    return at + 8 <= this.#file.length ? this.#file.readBigUInt64BE(at) : 0n;
  }

  #offset(at: number): number {
    return Number(this.#u64(at));
  }
}
