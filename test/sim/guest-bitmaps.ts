/**
 * What must hold of a guest's persistent bitmaps, whenever the power goes: where one does not say that it is in use,
 * whatever it calls clean is as it was when the bitmap was last cleared.
 */
import { BlockError } from '../../src/base/errors.js';
import { addBitmap, clearBitmap, disableBitmap, enableBitmap, mergeBitmaps, removeBitmap } from '../../src/block/bitmap-verbs.js';
import type { BlockNode } from '../../src/block/node.js';
import { readStoredBitmaps, type StoredBitmap } from '../support/qcow2-stored-bitmaps.js';

interface Model {
  readonly granularity: number;
  /** The disk when it was cleared. */
  baseline: Uint8Array;
  enabled: boolean;
  /** Granules written while it did not record. */
  readonly unrecorded: Set<number>;
  inconsistent: boolean;
  /** A close has stored it. */
  stored: boolean;
}

export class GuestBitmaps {
  readonly models = new Map<string, Model>();
  /** The directory on disk is being replaced: by a close, or without the bitmap of this name. */
  closing = false;
  #removing: string | null = null;
  #names = 0;

  get usable(): string[] { return [...this.models].filter(([, { inconsistent }]) => !inconsistent).map(([name]) => name); }
  get anyInconsistent(): boolean { return [...this.models.values()].some(({ inconsistent }) => inconsistent); }

  /** One that an image has from before. */
  expectKept(name: string, granularity: number, disk: Uint8Array): void {
    this.models.set(name, { granularity, baseline: disk.slice(), enabled: true, unrecorded: new Set(), inconsistent: false, stored: true });
  }

  /** The disk became `size` long: what it lost reads as zeros if it comes back, and no bitmap tells of that. */
  resized(size: number): void {
    for (const model of this.models.values()) model.baseline = model.baseline.slice(0, size);
  }

  /** Before a request changes the disk. */
  writing(offset: number, bytes: number): void {
    for (const { enabled, granularity, unrecorded } of this.models.values()) {
      if (enabled) continue;
      for (let granule = Math.floor(offset / granularity); granule * granularity < offset + bytes; granule++) unrecorded.add(granule);
    }
  }

  async add(node: BlockNode, granularity: number, enabled: boolean, disk: Uint8Array): Promise<void> {
    const name = `bitmap-${this.#names++}`;
    try {
      await addBitmap(node, { name, granularity, persistent: true, disabled: !enabled });
    } catch (error) {
      // a long backing file's name may fill the header
      if (error instanceof BlockError && error.code === 'NO_SPACE') return;
      throw error;
    }
    this.models.set(name, { granularity, baseline: disk.slice(), enabled, unrecorded: new Set(), inconsistent: false, stored: false });
  }

  async clear(node: BlockNode, name: string, disk: Uint8Array): Promise<void> {
    await clearBitmap(node, name);
    const model = this.models.get(name)!;
    model.baseline = disk.slice();
    model.unrecorded.clear();
  }

  async toggle(node: BlockNode, name: string): Promise<void> {
    const model = this.models.get(name)!;
    await (model.enabled ? disableBitmap(node, name) : enableBitmap(node, name));
    model.enabled = !model.enabled;
  }

  async merge(node: BlockNode, name: string, source: string): Promise<void> {
    await mergeBitmaps(node, name, [source]);
  }

  async remove(node: BlockNode, name: string): Promise<void> {
    this.#removing = name;
    await removeBitmap(node, name);
    this.#removing = null;
    this.models.delete(name);
  }

  /** All of them are on the disk now, and the image is closed. */
  closed(): void {
    this.closing = false;
    for (const model of this.models.values()) model.stored = true;
  }

  /** Nothing that the file says of them is a lie; `disk` is what the image holds. */
  expectHonest(file: Uint8Array, disk: Uint8Array): void {
    const { bitmaps } = readStoredBitmaps(file);
    for (const stored of bitmaps) {
      const model = this.models.get(stored.name);
      if (model === undefined) throw new Error(`bitmap ${stored.name} was removed, and is there`);
      if (!stored.inUse) expectTrue(stored, model, disk);
    }
    for (const [name, { stored }] of this.models) {
      if (!stored || this.closing || this.#removing !== null || bitmaps.some((bitmap) => bitmap.name === name)) continue;
      throw new Error(`bitmap ${name} is gone, though nothing was replacing the directory`);
    }
  }

  /** The image was opened again: what it has is the truth from now on. */
  adopt(node: BlockNode): void {
    for (const [name, model] of [...this.models]) {
      const bitmap = node.bitmaps.get(name);
      if (bitmap === undefined) {
        this.models.delete(name);
        continue;
      }
      model.stored = true;
      model.inconsistent = bitmap.inconsistent;
      if (bitmap.inconsistent) model.enabled = false;
      else if (model.enabled !== bitmap.enabled) throw new Error(`bitmap ${name} is ${bitmap.enabled ? '' : 'not '}enabled`);
    }
    this.closing = false;
    this.#removing = null;
  }

  /** Bits of every usable bitmap, to be the same after the next open. */
  static sums(node: BlockNode): string {
    return [...node.bitmaps].filter(({ inconsistent }) => !inconsistent).map((bitmap) => `${bitmap.name} ${bitmap.enabled} ${bitmap.sha256()}`).sort().join('\n');
  }
}

function expectTrue(stored: StoredBitmap, model: Model, disk: Uint8Array): void {
  const { granularity, baseline, unrecorded } = model;
  if (model.inconsistent) throw new Error(`bitmap ${stored.name} was inconsistent, and claims to be right`);
  if (stored.auto !== model.enabled) throw new Error(`bitmap ${stored.name} is enabled: ${stored.auto}`);
  const before = new Uint8Array(disk.byteLength);
  before.set(baseline.subarray(0, disk.byteLength));
  for (let granule = 0; granule * granularity < disk.byteLength; granule++) {
    if (unrecorded.has(granule) || stored.isDirty(granule)) continue;
    const [start, end] = [granule * granularity, (granule + 1) * granularity];
    if (Buffer.compare(disk.subarray(start, end), before.subarray(start, end)) !== 0) {
      throw new Error(`bitmap ${stored.name} calls granule ${granule} (at ${start}) clean, which was written`);
    }
  }
}
