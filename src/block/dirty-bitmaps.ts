/** The dirty bitmaps of one node, by name. They hear of its writes while there is at least one. */
import { assert } from '../base/assert.js';
import type { DirtyBitmap, DirtyBitmapInfo } from './dirty-bitmap.js';
import type { BlockRequest } from './request.js';

/** Hears of every range whose content may change. */
export interface WriteObserver {
  /** The change begins: no driver has heard of it. */
  writes?(offset: number, bytes: number): void;
  /** The change has ended, well or not. */
  wrote?(offset: number, bytes: number, request: BlockRequest): void;
}

/** What a format that keeps bitmaps in its image offers to who adds, changes and removes them. */
export interface BitmapStore {
  /** The bitmaps of the node: filled when the image is opened, stored from when it is closed. */
  readonly bitmaps: DirtyBitmaps;
  /** Throws, in QEMU's words, where one more with this name could not be stored. */
  checkNew(name: string, granularity: number): void;
  /** From now on no bitmap on the disk claims to be right, until the image is closed: before the first change. */
  beginChanges(): Promise<void>;
  /** Takes the bitmap of this name off the disk, if it is there. */
  remove(name: string): Promise<void>;
  /**
   * Stores the bitmap in place of the one of this name, for a job of ours and as in use: no program trusts it, and nobody
   * sees it here. The disk has the old one or the new one, and the new one when it resolves.
   */
  keep(bitmap: DirtyBitmap): Promise<void>;
  /** What `keep` stored last under the name, in whatever process; null where there is none. Nobody sees it any more. */
  readKept(name: string): Promise<DirtyBitmap | null>;
}

export class DirtyBitmaps implements WriteObserver {
  readonly #byName = new Map<string, DirtyBitmap>();
  /** Those of jobs, which have no name: shown with the others, and nothing else. Who put one here sets its bits. */
  readonly anonymous = new Set<DirtyBitmap>();
  #observers: Set<WriteObserver> | null = null;

  get size(): number { return this.#byName.size; }
  get(name: string): DirtyBitmap | undefined { return this.#byName.get(name); }
  /** In the order in which they were added. */
  values(): IterableIterator<DirtyBitmap> { return this.#byName.values(); }
  [Symbol.iterator](): IterableIterator<DirtyBitmap> { return this.#byName.values(); }

  /** Lets the bitmaps hear the writes of a node. */
  listenTo(observers: Set<WriteObserver>): void {
    this.#observers = observers;
    if (this.size > 0) observers.add(this);
  }

  add(bitmap: DirtyBitmap): void {
    assert(!this.#byName.has(bitmap.name), 'a bitmap name of its own');
    this.#byName.set(bitmap.name, bitmap);
    this.#observers?.add(this);
  }

  delete(name: string): void {
    this.#byName.delete(name);
    if (this.size === 0) this.#observers?.delete(this);
  }

  wrote(offset: number, bytes: number): void {
    for (const bitmap of this.#byName.values()) {
      const recorder = bitmap.successor ?? bitmap;
      if (!recorder.enabled) continue;
      if (offset + bytes > bitmap.size) bitmap.resize(offset + bytes); // the write made the node longer
      recorder.set(offset, bytes);
    }
  }

  /** Throws where the node cannot change its length now. */
  checkResize(): void {
    for (const bitmap of this.#byName.values()) bitmap.check('busy', 'readOnly', 'inconsistent');
  }

  resize(bytes: number): void {
    for (const bitmap of this.#byName.values()) bitmap.resize(bytes);
  }

  /** As `query-block` lists them: newest first. */
  info(): DirtyBitmapInfo[] {
    const named = [...this.#byName.values()].flatMap((bitmap) => (bitmap.successor === null ? [bitmap] : [bitmap, bitmap.successor]));
    return [...named, ...this.anonymous].toSorted((a, b) => b.serial - a.serial).map((bitmap) => bitmap.info());
  }
}
