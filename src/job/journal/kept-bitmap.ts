/**
 * What an interrupted job has to copy, granule by granule, in the image of its source: marked as in use, so that QEMU
 * takes it for what it is to others, a bitmap that nobody can rely on.
 */
import { KiB, MiB } from '../../base/bytes.js';
import { BlockError } from '../../base/errors.js';
import { beginGuarded, endGuarded } from '../../block/change-guard.js';
import type { BitmapStore } from '../../block/dirty-bitmaps.js';
import { DirtyBitmap } from '../../block/dirty-bitmap.js';
import type { BlockNode } from '../../block/node.js';

const NO_RANGE = { offset: 0, bytes: 0 };
const LEAST_GRANULARITY = 64 * KiB;
const MOST_BYTES = 2 * MiB;

export class KeptBitmap {
  readonly name: string;
  readonly #store: BitmapStore;
  readonly #source: BlockNode;
  readonly #size: number;
  /** Null while that is not known. */
  #stored: string | null = null;
  #removed = false;

  private constructor(name: string, store: BitmapStore, source: BlockNode) {
    this.name = name;
    this.#store = store;
    this.#source = source;
    this.#size = source.length();
  }

  /** Empty; null where the source keeps no bitmaps. */
  static async make(name: string, source: BlockNode): Promise<KeptBitmap | null> {
    const store = storeOf(source);
    if (store === null) return null;
    const kept = new KeptBitmap(name, store, source);
    try {
      store.checkNew(name, kept.#granularity);
      await kept.put(new DirtyBitmap({ name: '', granularity: kept.#granularity, size: kept.#size }));
      return kept;
    } catch (error) {
      if (error instanceof BlockError) return null;
      throw error;
    }
  }

  /** As an interrupted job left it; null where it is not there any more. */
  static async find(name: string, source: BlockNode): Promise<{ readonly kept: KeptBitmap; readonly bits: DirtyBitmap } | null> {
    const store = storeOf(source);
    const bits = await store?.readKept(name).catch(() => null) ?? null;
    return store === null || bits === null || bits.size !== source.length() ? null : { kept: new KeptBitmap(name, store, source), bits };
  }

  /** Durable when it resolves. */
  async put(differing: DirtyBitmap): Promise<void> {
    const bitmap = new DirtyBitmap({ name: this.name, granularity: this.#granularity, size: this.#size });
    bitmap.merge(differing);
    const hash = bitmap.sha256();
    if (hash === this.#stored) return;
    this.#stored = null;
    await this.#changing(async () => (this.#removed ? undefined : this.#store.keep(bitmap)));
    this.#stored = hash;
  }

  async remove(): Promise<void> {
    this.#removed = true;
    await this.#changing(() => this.#store.remove(this.name));
  }

  /** The image changes, and nothing of the disk: all journals of the source must know. */
  async #changing(change: () => Promise<void>): Promise<void> {
    const guards = [...this.#source.changeGuards];
    try {
      await beginGuarded(guards, NO_RANGE);
      await change();
    } finally {
      endGuarded(guards, NO_RANGE);
    }
  }

  get #granularity(): number {
    let granularity = LEAST_GRANULARITY;
    while (this.#size / granularity / 8 > MOST_BYTES) granularity *= 2;
    return granularity;
  }
}

function storeOf(node: BlockNode): BitmapStore | null {
  return node.readOnly ? null : node.driver.bitmapStore ?? null;
}
