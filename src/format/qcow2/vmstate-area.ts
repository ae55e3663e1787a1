/**
 * The VM state of the next snapshot. It is mapped by an L1 table that exists in memory only: a crash before the
 * snapshot is complete leaks its clusters, and no later snapshot can pick a half-written state up.
 */
import { BlockError } from '../../base/errors.js';
import { because } from '../../block/request.js';
import type { VmStateArea } from '../../block/driver.js';
import { GuestIo } from './guest-io.js';
import type { Qcow2Image } from './image.js';
import { L1Table } from './l1-table.js';
import { ENTRY_BYTES, l1EntriesFor, MAX_L1_BYTES } from './layout.js';
import { Mapping } from './mapping.js';
import { releaseTree } from './tree.js';

const MIN_L1_ENTRIES = 64;

function emptyL1(entries: number): L1Table {
  return new L1Table(0, new Uint8Array(entries * ENTRY_BYTES));
}

export class PendingVmState implements VmStateArea {
  readonly clusterSize: number;
  readonly #image: Qcow2Image;
  readonly #io: GuestIo;
  /** A short table in an image that may hold only that: it grows with the state. */
  #l1 = emptyL1(MIN_L1_ENTRIES);

  constructor(image: Qcow2Image) {
    this.#image = image;
    this.clusterSize = image.geometry.clusterSize;
    this.#io = new GuestIo(new Mapping(image, () => this.#l1), null);
  }

  get l1(): L1Table { return this.#l1; }

  async save(position: number, data: Uint8Array): Promise<void> {
    if (data.byteLength === 0) return;
    if (this.#neededEntries(position + data.byteLength) > this.#l1.entries) await this.#growL1(position + data.byteLength);
    this.#image.file.debugEvent('vmstate_save');
    await because('vmstate', () => this.#io.write(position, data));
  }

  async load(position: number, into: Uint8Array): Promise<number> {
    this.#image.file.debugEvent('vmstate_load');
    await because('vmstate', () => this.#io.read(position, into));
    return into.byteLength;
  }

  async discard(): Promise<void> {
    if (this.isEmpty()) return;
    await this.#image.exclusive(async () => {
      const l1 = this.take();
      await this.#image.barrier(); // its L2 slices may be dirty in the cache
      await releaseTree(this.#image, l1, 0, 'other');
    });
  }

  /** Hands the tables over (to a snapshot, or to be released) and starts anew. */
  take(): L1Table {
    const l1 = this.#l1;
    this.#l1 = emptyL1(MIN_L1_ENTRIES);
    return l1;
  }

  isEmpty(): boolean {
    for (let index = 0; index < this.#l1.entries; index++) if (this.#l1.l2Offset(index) !== 0) return false;
    return true;
  }

  #neededEntries(end: number): number {
    return l1EntriesFor(this.#image.geometry, end);
  }

  /** Under the mutex: other saves add L2 tables to the table that this one replaces. */
  async #growL1(end: number): Promise<void> {
    const { header, name } = this.#image;
    const needed = this.#neededEntries(end);
    if ((needed + this.#neededEntries(header.size)) * ENTRY_BYTES > MAX_L1_BYTES) {
      throw new BlockError('NO_SPACE', `'${name}' cannot hold ${end} bytes of VM state: its L1 table would exceed 32 MiB`, { node: name, errno: 'EFBIG' });
    }
    await this.#image.exclusive(async () => {
      if (needed > this.#l1.entries) this.#l1 = this.#l1.resized(0, Math.max(needed, this.#l1.entries * 2));
    });
  }
}
