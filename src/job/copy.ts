/** Copies what one image holds into another: sparse, with several requests in flight, in bounded memory. */
import { BufferPool, type Lease } from '../base/buffer-pool.js';
import { KiB, MiB } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import { MOST_PIPED, PipeBuffer } from '../base/pipe-buffer.js';
import type { BlockNode } from '../block/node.js';
import { makeRequest, RequestFlag } from '../block/request.js';
import { chainStatus } from '../block/status.js';
import { createImage, openImage, type OpenImageOptions } from '../image/open.js';
import type { FormatName } from '../image/formats.js';
import { isFileName } from '../image/tree-name.js';
import { isNbdName } from '../nbd/name.js';
import type { NbdDriver } from '../protocol/nbd.js';

export interface CopyOptions {
  /** Reads and writes in flight at once; each has a buffer of `chunkBytes`. Default 16, and no more than 16 MiB; between Unix sockets 8. */
  readonly requests?: number | undefined;
  /** Default 1 MiB: larger ones leave a server's caches. */
  readonly chunkBytes?: number | undefined;
  /** Data that is zero for this many bytes is not written as data (between sockets, after much data, only where a whole chunk is zero). Default 64 KiB; 0 writes it as it is. */
  readonly sparseBytes?: number | undefined;
  /** The target reads as zeros where nobody has written: it is not asked, and zeros are skipped. */
  readonly targetIsZero?: boolean | undefined;
  /** Bytes of the image that are dealt with (copied, zeroed or skipped), of how many. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface CopyResult {
  /** The size of the source. */
  readonly bytes: number;
  /** Written as data. */
  readonly copied: number;
  /** Zeroed without data, or found to be zero in the target. */
  readonly zeroed: number;
}

const CHUNK = MiB;
const REQUESTS = 16;
/** Enough to keep two servers of this host busy; with more, what they hold leaves the processor's caches before it is sent. */
const NEAR_REQUESTS = 8;
const IN_FLIGHT = 16 * MiB;
const ONLY_DATA = 32 * MiB;
const ZERO_STEP = 128 * MiB;
const STATUS_STEP = 1024 * MiB;
const ASK_AHEAD = 128 * MiB;
const NO_BYTES = new Uint8Array(0);

/** Copies the whole of `source` to the start of `target`, and flushes it. Rejects with the first error, when nothing is in flight any more. */
export async function copyNode(source: BlockNode, target: BlockNode, options: CopyOptions = {}): Promise<CopyResult> {
  const bytes = source.length();
  if (!target.driver.growable && target.length() < bytes) {
    throw new BlockError('OUT_OF_RANGE', `'${target.name}' has ${target.length()} bytes, too few for the ${bytes} bytes of '${source.name}'`, { node: target.name, errno: 'EINVAL' });
  }
  const copy = new Copy(source, target, bytes, options);
  await copy.run();
  await target.flush();
  options.onProgress?.(bytes, bytes);
  return { bytes, copied: copy.copied, zeroed: copy.zeroed };
}

export interface CopyImageOptions extends CopyOptions {
  /** Default: raw for an NBD name, else found by probing. */
  readonly sourceFormat?: FormatName | undefined;
  /** Default raw. */
  readonly targetFormat?: FormatName | undefined;
  /** Make the target anew, as large as the source (default); false writes into what is there. An NBD export is never made. */
  readonly createTarget?: boolean | undefined;
  /** Connections to each NBD server that allows several. Default 4. */
  readonly connections?: number | undefined;
  readonly cache?: OpenImageOptions['cache'];
  readonly backing?: OpenImageOptions['backing'];
}

/** As copyNode, between files and NBD exports by their names. Where it fails, a target that it made anew is empty: half a copy looks like a disk. */
export async function copyImage(source: string, target: string, options: CopyImageOptions = {}): Promise<CopyResult> {
  const create = isFileName(target) && (options.createTarget ?? true);
  // one does not wait for the other: much of it is connecting
  const opening = create ? null : openTarget(target, options);
  opening?.catch(() => {}); // told below, behind what is wrong with the source
  const from = await openSource(source, options).catch(async (error: unknown) => {
    await opening?.then((to) => to.close()).catch(() => {});
    throw error;
  });
  try {
    if (opening !== null) return await copyInto(from, await opening, options);
    await createImage(target, { format: options.targetFormat ?? 'raw', size: from.length() });
    try {
      return await copyInto(from, await openTarget(target, options), options);
    } catch (error) {
      await createImage(target, { format: 'raw', size: 0 }).catch(() => {}); // a device cannot be empty
      throw error;
    }
  } finally {
    await from.close();
  }
}

function openSource(source: string, { sourceFormat, connections = 4, cache, backing, signal }: CopyImageOptions): Promise<BlockNode> {
  return openImage(source, { format: sourceFormat ?? (isNbdName(source) ? 'raw' : undefined), readOnly: true, cache, backing, connections, signal });
}

function openTarget(target: string, { targetFormat = 'raw', connections = 4, cache, backing, signal }: CopyImageOptions): Promise<BlockNode> {
  return openImage(target, { format: targetFormat, cache, backing, connections, signal, discard: 'unmap' });
}

async function copyInto(from: BlockNode, to: BlockNode, options: CopyImageOptions): Promise<CopyResult> {
  try {
    const result = await copyNode(from, to, options);
    await to.close();
    return result;
  } finally {
    await to.close();
  }
}

/** What is known of the source up to `end`. */
interface Extent {
  end: number;
  readonly zero: boolean;
}

/** The export that the node shows, or null. */
function nbdBelow(node: BlockNode): NbdDriver | null {
  const below = node.driver.formatName === 'raw' ? node.children[0]?.node : node;
  // only the type is imported: who copies files loads nothing of NBD
  return below?.driver.formatName === 'nbd' ? below.driver as NbdDriver : null;
}

/** What the source has from `offset` on: all extents that a server tells in one answer, else one. */
async function extentsOf(source: BlockNode, offset: number, bytes: number): Promise<readonly { readonly bytes: number; readonly zero: boolean }[]> {
  const nbd = nbdBelow(source);
  // equal lengths: a raw window into an export has other offsets
  if (nbd?.canTellExtents === true && nbd.length() === source.length()) return nbd.extents(offset, bytes);
  const status = await chainStatus(source, offset, bytes);
  return [{ bytes: status.bytes, zero: status.kind !== 'data' }];
}

class Copy {
  copied = 0;
  zeroed = 0;
  readonly #source: BlockNode;
  readonly #target: BlockNode;
  readonly #bytes: number;
  readonly #options: CopyOptions;
  readonly #chunk: number;
  readonly #piped: boolean;
  readonly #sparse: number;
  readonly #zeros: Uint8Array;
  /** Where the next piece begins, what is known from there on, and up to where. */
  #position = 0;
  #known: Extent[] = [];
  #knownTo = 0;
  #asking: Promise<void> | null = null;
  /** Since zeros were found in what was said to be data. */
  #dataBytes = 0;
  #error: unknown = undefined;
  #failed = false;

  constructor(source: BlockNode, target: BlockNode, bytes: number, options: CopyOptions) {
    this.#source = source;
    this.#target = target;
    this.#bytes = bytes;
    this.#options = options;
    this.#sparse = options.sparseBytes ?? 64 * KiB;
    // in what comes out of a file nobody finds zeros on the way
    const piped = this.#sparse === 0 || nbdBelow(source) !== null ? Math.min(source.pipeBytes, target.pipeBytes) : 0;
    this.#chunk = options.chunkBytes ?? CHUNK;
    this.#piped = this.#chunk <= Math.min(piped, MOST_PIPED);
    this.#zeros = this.#sparse > 0 ? new Uint8Array(this.#sparse) : NO_BYTES;
  }

  async run(): Promise<void> {
    const requests = Math.max(1, Math.min(this.#options.requests ?? Math.min(this.#piped ? NEAR_REQUESTS : REQUESTS, Math.floor(IN_FLIGHT / this.#chunk)), Math.ceil(this.#bytes / this.#chunk)));
    const pool = new BufferPool(requests * this.#chunk);
    await Promise.all(Array.from({ length: requests }, () => this.#work(pool)));
    if (this.#failed) throw this.#options.signal?.aborted === true ? this.#cancelled() : this.#error;
  }

  async #work(pool: BufferPool): Promise<void> {
    const lease = await pool.lease(this.#chunk);
    const pipe = this.#piped ? PipeBuffer.open() : null;
    try {
      while (!this.#failed) {
        if (this.#options.signal?.aborted === true) throw this.#cancelled();
        if (this.#position >= this.#bytes) return;
        // a server's answer waits behind the data that was asked for before: ask long before it is needed
        if (this.#knownTo < this.#bytes && this.#knownTo - this.#position < ASK_AHEAD) this.#asking ??= this.#ask();
        if (this.#known.length === 0) {
          await this.#asking;
          continue;
        }
        await this.#piece(lease, pipe);
        this.#options.onProgress?.(this.copied + this.zeroed, this.#bytes);
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      pipe?.close();
      lease.release();
    }
  }

  /** Learns what the source has behind what is known. */
  async #ask(): Promise<void> {
    const offset = this.#knownTo;
    try {
      for (const extent of await extentsOf(this.#source, offset, Math.min(STATUS_STEP, this.#bytes - offset))) {
        const last = this.#known.at(-1);
        this.#knownTo += extent.bytes;
        if (last !== undefined && last.zero === extent.zero) last.end = this.#knownTo;
        else this.#known.push({ end: this.#knownTo, zero: extent.zero });
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#asking = null;
    }
  }

  #cancelled(): BlockError {
    return new BlockError('CANCELLED', `copying '${this.#source.name}' was cancelled`, { cause: this.#options.signal?.reason });
  }

  #fail(error: unknown): void {
    if (!this.#failed) this.#error = error;
    this.#failed = true;
  }

  /** Takes the next piece before it waits for anything, so that no two workers have the same. */
  #piece(lease: Lease, pipe: PipeBuffer | null): Promise<void> {
    const offset = this.#position;
    const { zero, end } = this.#known[0]!;
    // pieces end where those of an image cut into whole chunks do: no block of a target is touched by two
    const most = zero ? ZERO_STEP : this.#chunk - offset % this.#chunk;
    const bytes = Math.min(end - offset, most);
    this.#position += bytes;
    if (this.#position === end) this.#known.shift();
    if (zero) return this.#zero(offset, bytes);
    const buffer = lease.buffer.subarray(0, bytes);
    return pipe === null ? this.#data(offset, buffer) : this.#pipe(offset, buffer, pipe);
  }

  /** From server to server without a copy in this process; the buffer is for what has to be looked at. */
  async #pipe(offset: number, buffer: Uint8Array, pipe: PipeBuffer): Promise<void> {
    const { byteLength } = buffer;
    // to look for small zeros costs a tenth of the time: after much data without any, only whole pieces are looked at
    pipe.begin(buffer, this.#sparse > 0 && this.#dataBytes >= ONLY_DATA ? Math.max(this.#sparse, byteLength) : this.#sparse);
    await this.#source.submit(makeRequest('read', offset, byteLength, buffer, 0, 'interactive', pipe));
    if (!pipe.inKernel) return this.#put(offset, buffer);
    this.#dataBytes += byteLength;
    await this.#target.submit(makeRequest('write', offset, byteLength, buffer, 0, 'interactive', pipe));
    this.copied += byteLength;
  }

  async #data(offset: number, buffer: Uint8Array): Promise<void> {
    await this.#source.read(offset, buffer);
    await this.#put(offset, buffer);
  }

  async #put(offset: number, buffer: Uint8Array): Promise<void> {
    for (let at = 0; at < buffer.byteLength;) {
      const zero = this.#isZero(buffer, at);
      let end = this.#unitEnd(buffer, at);
      while (end < buffer.byteLength && this.#isZero(buffer, end) === zero) end = this.#unitEnd(buffer, end);
      if (zero) {
        this.#dataBytes = 0;
        await this.#zero(offset + at, end - at);
      } else {
        await this.#target.write(offset + at, buffer.subarray(at, end));
        this.copied += end - at;
      }
      at = end;
    }
  }

  async #zero(offset: number, bytes: number): Promise<void> {
    for (let at = offset; at < offset + bytes;) {
      const left = offset + bytes - at;
      const known = this.#options.targetIsZero === true ? left : await this.#zeroInTarget(at, left);
      if (known >= 0) {
        at += known;
        continue;
      }
      await this.#target.writeZeroes(at, -known, RequestFlag.MAY_UNMAP);
      at += -known;
    }
    this.zeroed += bytes;
  }

  /** How many bytes from `offset` are zero in the target already; as a negative number, how many are not known to be. */
  async #zeroInTarget(offset: number, bytes: number): Promise<number> {
    const target = this.#target;
    const inside = Math.min(bytes, target.length() - offset);
    if (inside <= 0) return -bytes;
    const status = await chainStatus(target, offset, inside);
    return status.kind === 'data' || (status.kind === 'unallocated' && status.node !== null) ? -status.bytes : status.bytes;
  }

  #unitEnd(buffer: Uint8Array, at: number): number {
    return this.#sparse === 0 ? buffer.byteLength : Math.min(at + this.#sparse, buffer.byteLength);
  }

  #isZero(buffer: Uint8Array, at: number): boolean {
    if (this.#sparse === 0) return false;
    const unit = buffer.subarray(at, this.#unitEnd(buffer, at));
    return unit[0] === 0 && Buffer.compare(unit, unit.byteLength === this.#sparse ? this.#zeros : this.#zeros.subarray(0, unit.byteLength)) === 0;
  }
}
