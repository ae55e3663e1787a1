/**
 * What the source holds where, asked for ahead of the copies. An answer is as old as the question: a range that was
 * written since may hold anything, so what was told of it is forgotten. Data that became zeros does no harm, it is read.
 */
import type { BlockNode } from '../../block/node.js';
import type { NbdDriver } from '../../protocol/nbd.js';
import { chainStatus } from '../../block/status.js';

export interface Extent {
  readonly start: number;
  readonly end: number;
  readonly zero: boolean;
}

const MAX_KNOWN = 4096;

export class SourceMap {
  /** Waits until the source is in no drained section. */
  readonly #source: () => Promise<BlockNode>;
  /** Ascending, without gaps between them. */
  #known: Extent[] = [];
  /** The range that is being asked about, and whether it was written meanwhile. */
  #asked: { readonly start: number; readonly end: number; stale: boolean } | null = null;

  constructor(source: () => Promise<BlockNode>) {
    this.#source = source;
  }

  /** What is known of `offset`. */
  find(offset: number): Extent | null {
    while (this.#known.length > 0 && this.#known[0]!.end <= offset) this.#known.shift();
    const first = this.#known[0];
    return first !== undefined && first.start <= offset ? first : null;
  }

  /** Asks about a range, whose bits have been cleared already. What comes back holds for its start at least. */
  async ask(offset: number, bytes: number): Promise<Extent> {
    const asked = { start: offset, end: offset + bytes, stale: false };
    this.#asked = asked;
    this.#known = [];
    const extents = await this.#extents(offset, bytes);
    if (!asked.stale) this.#known = extents.slice(0, MAX_KNOWN);
    if (this.#asked === asked) this.#asked = null;
    return extents[0]!;
  }

  /** The range was written. */
  changed(offset: number, bytes: number): void {
    const end = offset + bytes;
    if (this.#asked !== null && offset < this.#asked.end && end > this.#asked.start) this.#asked.stale = true;
    const first = this.#known[0];
    if (first === undefined || end <= first.start || offset >= this.#known.at(-1)!.end) return;
    if (this.#known.some((extent) => extent.zero && offset < extent.end && end > extent.start)) this.#known = [];
  }

  async #extents(offset: number, bytes: number): Promise<Extent[]> {
    const source = await this.#source();
    const nbd = nbdBelow(source);
    if (nbd !== null) {
      let start = offset;
      return (await nbd.extents(offset, bytes)).map((extent) => {
        const told = { start, end: start + extent.bytes, zero: extent.zero };
        start = told.end;
        return told;
      });
    }
    const status = await chainStatus(source, offset, bytes);
    return [{ start: offset, end: offset + status.bytes, zero: status.kind !== 'data' }];
  }
}

/** Tells many extents in one answer, where the source is an export as it is. */
function nbdBelow(source: BlockNode): NbdDriver | null {
  const below = source.driver.formatName === 'raw' ? source.children[0]?.node : source;
  // only the type is imported: who copies files loads nothing of NBD
  const nbd = below?.driver.formatName === 'nbd' ? below.driver as NbdDriver : null;
  return nbd?.canTellExtents === true && nbd.length() === source.length() ? nbd : null;
}
