/**
 * The preallocate filter: a write past the end of the file first makes room, as zeros, for many more to come, so that the
 * file grows in large steps. What was never used is cut off when the node closes, or when nobody may write any more.
 */
import { alignUp, MiB } from '../base/bytes.js';
import { BlockError } from '../base/errors.js';
import type { BlockChild } from '../block/child.js';
import type { Preallocation, PreparedUse } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { Permission, type EdgeUse } from '../block/permissions.js';
import { makeRequest, RequestFlag, type BlockRequest } from '../block/request.js';
import { FilterDriver } from './filter.js';

const SECTOR = 512;
const WRITE_AND_RESIZE = Permission.WRITE | Permission.RESIZE;

interface PreallocateOptions {
  readonly child: BlockNode;
  /** The file ends at a multiple of it, in bytes. Default 1 MiB. */
  readonly align?: number;
  /** How much room a step makes, in bytes. Default 128 MiB. */
  readonly size?: number;
}

/** What is known of the end of the file. */
interface Ends {
  /** Where what was written ends: the length that the node shows. */
  data: number;
  /** From here to `file` everything is zeros that the filter made. */
  zeros: number;
  file: number;
}

export class PreallocateFilter extends FilterDriver {
  readonly formatName = 'preallocate';
  #align!: number;
  #size!: number;
  /** Null while others may write or resize the file too. */
  #ends: Ends | null = null;
  /** The users may do it; without a graph nobody asks. */
  #mayResize: boolean;
  #failed = false;
  /** The step under way: writes that it makes room for wait, lest its zeros hit them. */
  #step: Promise<void> | null = null;

  /** Throws INVALID_ARGUMENT where the alignment is not one of the file's. */
  constructor({ child, align = MiB, size = 128 * MiB }: PreallocateOptions) {
    checkAlignment(align, child);
    super(child);
    this.changeRoom(align, size)();
    this.#mayResize = !child.readOnly;
  }

  /** Other room to make: checked now, in force when the function returned is called. */
  changeRoom(align = MiB, size = 128 * MiB): () => void {
    checkAlignment(align, this.file.node);
    return () => {
      this.#align = Math.max(align, this.file.limits.requestAlignment);
      this.#size = size;
    };
  }

  override length(): number { return this.#ends?.data ?? this.file.length(); }

  override async submit(request: BlockRequest): Promise<void> {
    if (request.op !== 'write' && request.op !== 'write-zeroes') return this.forward(request);
    const end = request.offset + request.bytes;
    while (this.#step !== null && end > this.#ends!.file) await this.#step;
    if (!this.#known()) return this.forward(request);
    const ends = this.#ends!;
    const asPreallocated = request.op === 'write-zeroes' && (request.flags & ~RequestFlag.NO_FALLBACK) === 0;
    if (!asPreallocated) ends.zeros = Math.max(ends.zeros, end);
    if (end <= ends.data) return this.forward(request);
    if (!await this.#extend(request.offset, end, asPreallocated)) await this.forward(request);
  }

  override readonly resize = async (bytes: number, preallocation?: Preallocation): Promise<void> => {
    const { node } = this.file;
    const { driver } = node;
    if (driver.resize === undefined) throw new BlockError('NOT_SUPPORTED', `'${node.name}' cannot be resized`, { node: node.name, errno: 'ENOTSUP' });
    if (bytes > this.length()) await this.dropPreallocation();
    this.#ends = null;
    await node.drained(() => driver.resize!(bytes, preallocation));
  };

  /** Cuts off what no write has reached. On a drained node. */
  async dropPreallocation(): Promise<void> {
    const ends = this.#ends;
    this.#ends = null;
    if (ends !== null && ends.data < ends.file) await this.file.node.driver.resize!(ends.data);
  }

  readonly childUse = (_child: BlockChild, { used, shared }: EdgeUse): EdgeUse =>
    ({ used, shared: (used & WRITE_AND_RESIZE) === WRITE_AND_RESIZE ? shared & ~WRITE_AND_RESIZE : shared });

  readonly prepareUse = async ({ used }: EdgeUse): Promise<PreparedUse> => {
    const may = (used & WRITE_AND_RESIZE) === WRITE_AND_RESIZE;
    if (!may) await this.dropPreallocation();
    return { commit: () => { this.#mayResize = may; }, abort: () => {} };
  };

  override async close(): Promise<void> {
    await this.dropPreallocation();
  }

  #known(): boolean {
    if (this.#ends !== null) return true;
    if (!this.#mayResize || this.file.readOnly || !this.file.growable || this.file.node.driver.resize === undefined) return false;
    const bytes = this.file.length();
    this.#ends = { data: bytes, zeros: bytes, file: bytes };
    return true;
  }

  /** Notes that a request ends past the data, and makes room where it ends past the file. True where its zeros are there already. */
  async #extend(offset: number, end: number, asPreallocated: boolean): Promise<boolean> {
    const ends = this.#ends!;
    ends.data = end;
    if (end <= ends.file) return asPreallocated && offset >= ends.zeros;
    if (this.#failed) return false;
    const { requestAlignment } = this.file.limits;
    const start = alignUp(asPreallocated ? Math.min(offset, ends.file) : ends.file, requestAlignment);
    const stop = alignUp(Math.max(start, end) + this.#size, this.#align);
    const step = this.file.submit(makeRequest('write-zeroes', start, stop - start, null, RequestFlag.NO_FALLBACK)).then(
      () => { ends.file = stop; },
      () => { this.#failed = true; }, // the file grows with the writes then, as without this filter
    );
    this.#step = step;
    await step;
    this.#step = null;
    return !this.#failed && asPreallocated && start <= offset;
  }
}

function invalid(why: string): BlockError {
  return new BlockError('INVALID_ARGUMENT', `prealloc-align parameter of preallocate filter ${why}`);
}

function checkAlignment(align: number, child: BlockNode): void {
  const { requestAlignment } = child.limits;
  if (align % SECTOR !== 0) throw invalid('is not aligned to 512');
  if (align % requestAlignment !== 0) throw invalid(`is not aligned to underlying node request alignment (${requestAlignment})`);
}
