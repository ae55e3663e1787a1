/** The bitmap that a mirror with sync mode `bitmap` or `incremental` copies by. Nobody else changes it while the mirror runs. */
import { findBitmap } from '../../block/bitmap-verbs.js';
import type { DirtyBitmap } from '../../block/dirty-bitmap.js';
import type { MirrorOptions } from './mirror.js';

export class WantedBitmap {
  readonly bitmap: DirtyBitmap;
  readonly #clears: boolean;

  private constructor(bitmap: DirtyBitmap, clears: boolean) {
    this.bitmap = bitmap;
    this.#clears = clears;
  }

  /** Null with other sync modes. */
  static of({ source, sync, bitmap: name = '' }: MirrorOptions): WantedBitmap | null {
    if (sync !== 'bitmap' && sync !== 'incremental') return null;
    const clears = sync === 'incremental';
    const bitmap = findBitmap(source, name);
    bitmap.check('busy', 'inconsistent');
    if (clears) bitmap.check('readOnly');
    return new WantedBitmap(bitmap, clears);
  }

  /** From now on a successor records. Whoever copies by the bitmap must hear of writes already. */
  freeze(): void {
    this.bitmap.createSuccessor();
  }

  /** While nobody writes: with `equal` the target lasts, and has all that the source has. Idempotent. */
  settle(equal: boolean): void {
    const { bitmap } = this;
    if (bitmap.successor === null) return;
    bitmap.reclaim();
    if (equal && this.#clears) bitmap.clear(0, bitmap.size);
  }
}
