/** The blkverify filter: does everything on two nodes and fails for good where they differ. For testing drivers. */
import { BlockError, errnoOf } from '../base/errors.js';
import { BlockChild } from '../block/child.js';
import { NO_LIMITS, type BlockDriver, type BlockStatus } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { makeRequest, type BlockRequest } from '../block/request.js';
import { firstDifference } from './difference.js';

export class BlkverifyFilter implements BlockDriver {
  readonly kind = 'filter';
  readonly formatName = 'blkverify';
  readonly limits = NO_LIMITS;
  readonly growable = false;
  readonly children: readonly BlockChild[];
  readonly #raw: BlockChild;
  readonly #test: BlockChild;
  #difference: BlockError | null = null;

  /** `test` is the node under test, `raw` a copy that is known to be right. */
  constructor({ test, raw }: { readonly test: BlockNode; readonly raw: BlockNode }) {
    this.#raw = new BlockChild('raw', 'filtered', raw);
    this.#test = new BlockChild('test', 'data', test);
    this.children = [this.#raw, this.#test];
  }

  length(): number { return this.#test.length(); }

  async submit(request: BlockRequest): Promise<void> {
    if (this.#difference !== null) throw this.#difference;
    switch (request.op) {
      case 'read': return this.#read(request);
      case 'write': return this.#both(request, request.buffer!);
      case 'flush': return this.#test.flush(); // of the copy nobody wants to keep anything
      case 'discard': return; // the two may show different things afterwards
      case 'write-zeroes':
        throw new BlockError('NOT_SUPPORTED', `'${this.#test.name}' is verified by writes only`, { node: this.#test.name, errno: 'ENOTSUP' });
    }
  }

  blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    return this.#raw.blockStatus(offset, bytes);
  }

  async close(): Promise<void> {}

  async #read(request: BlockRequest): Promise<void> {
    const copy = new Uint8Array(request.bytes);
    await this.#both(request, copy);
    const at = firstDifference(request.buffer!, copy);
    if (at >= 0) throw this.#differs(request, `contents mismatch at offset ${request.offset + at}`);
  }

  async #both(request: BlockRequest, rawBuffer: Uint8Array): Promise<void> {
    const { op, offset, bytes, flags, ioClass } = request;
    const [test, raw] = await Promise.allSettled([
      this.#test.submit(makeRequest(op, offset, bytes, request.buffer, flags, ioClass)),
      this.#raw.submit(makeRequest(op, offset, bytes, rawBuffer, flags, ioClass)),
    ]);
    const [testErrno, rawErrno] = [test, raw].map((result) => result.status === 'fulfilled' ? 'success' : errnoOf(result.reason) ?? 'EIO');
    if (testErrno !== rawErrno) throw this.#differs(request, `return value mismatch ${testErrno} != ${rawErrno}`);
    if (test.status === 'rejected') throw test.reason;
  }

  #differs({ op, offset, bytes }: BlockRequest, what: string): BlockError {
    this.#difference ??= new BlockError('IO', `blkverify: ${op} offset=${offset} bytes=${bytes} ${what}`, { node: this.#test.name, offset, bytes, errno: 'EIO' });
    return this.#difference;
  }
}

const PREFIX = 'blkverify:';

/** Takes `blkverify:RAW:IMAGE` apart, as QEMU does. */
export function parseBlkverifyName(name: string): { readonly raw: string; readonly image: string } {
  if (!name.startsWith(PREFIX)) throw new BlockError('INVALID_ARGUMENT', `File name string must start with '${PREFIX}'`);
  const colon = name.indexOf(':', PREFIX.length);
  if (colon < 0) throw new BlockError('INVALID_ARGUMENT', 'blkverify requires raw copy and original image path');
  return { raw: name.slice(PREFIX.length, colon), image: name.slice(colon + 1) };
}
