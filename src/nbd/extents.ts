/** Answers to BLOCK_STATUS: a range as extents of one context. */
import { viewOf } from '../base/bytes.js';
import type { ExportBitmap } from './export.js';
import { ContextId } from './meta-contexts.js';
import { Allocation } from './protocol.js';
import type { NbdRequest } from './transmission.js';

export const EXTENT_BYTES = 8;
/** Of all contexts of a request. An answer may be shorter than the question; the client asks on where it ends. */
export const MAX_EXTENTS = 16_384;
const DIRTY = 1;
const MAX_LENGTH = 0xffff_ffff;

/** Adjacent extents with equal flags become one. */
class ExtentList {
  readonly #limit: number;
  readonly #words: number[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** False where there is no room: the list ends before this extent. */
  add(bytes: number, flags: number): boolean {
    if (bytes === 0) return true;
    const words = this.#words;
    const last = words.length - 2;
    if (last >= 0 && words[last + 1] === flags && words[last]! + bytes <= MAX_LENGTH) {
      words[last]! += bytes;
      return true;
    }
    if (words.length === 2 * this.#limit) return false;
    words.push(bytes, flags);
    return true;
  }

  /** Returns the part of `into` that it filled. */
  encode(into: Uint8Array): Uint8Array {
    const view = viewOf(into);
    for (const [index, word] of this.#words.entries()) view.setUint32(4 * index, word);
    return into.subarray(0, 4 * this.#words.length);
  }
}

export async function describeExtents(request: NbdRequest, contextId: number, limit: number): Promise<ExtentList> {
  const extents = new ExtentList(limit);
  const { owner, offset, bytes } = request;
  if (contextId >= ContextId.DIRTY_BITMAP) {
    describeBitmap(owner.negotiated.export.source.bitmaps[contextId - ContextId.DIRTY_BITMAP]!, offset, offset + bytes, extents);
    return extents;
  }
  for (let done = 0; done < bytes;) {
    const status = await owner.backend.blockStatus(offset + done, bytes - done);
    const present = status.kind === 'data';
    const flags = contextId === ContextId.BASE_ALLOCATION
      ? (present ? 0 : Allocation.HOLE | Allocation.ZERO)
      : (status.kind === 'unallocated' && status.pastEnd !== true ? 0 : status.depth + 1);
    if (!extents.add(status.bytes, flags)) break;
    done += status.bytes;
  }
  return extents;
}

function describeBitmap(bitmap: ExportBitmap, start: number, end: number, extents: ExtentList): void {
  for (let at = start; at < end;) {
    const dirty = bitmap.nextDirty(at, end);
    if (!extents.add(dirty - at, 0) || dirty === end) return;
    const clean = bitmap.nextClean(dirty, end);
    if (!extents.add(clean - dirty, DIRTY)) return;
    at = clean;
  }
}
