/** Regular files and block devices through their descriptor. */
import fs from 'node:fs';
import { assert } from '../base/assert.js';
import { alignDown, alignUp, formatRange } from '../base/bytes.js';
import { DONE, rejected } from '../base/done.js';
import { BlockError, errnoOf, errnoText, wrapHostError } from '../base/errors.js';
import { Growth } from '../base/growth.js';
import { capabilities, deviceDiscard, punchHole, replaceDescriptor, seekData, seekHole, zeroRange } from '../base/libc.js';
import { MOST_PIPED_PAGES, type PipeBuffer } from '../base/pipe-buffer.js';
import { spendTurn } from '../base/turn-budget.js';
import type { RingUser } from '../base/uring.js';
import { NO_LIMITS, type BlockDriver, type BlockLimits, type BlockStatus, type Preallocation, type PreparedUse } from '../block/driver.js';
import { Permission, type EdgeUse } from '../block/permissions.js';
import { RequestFlag, type BlockOp, type BlockRequest } from '../block/request.js';
import type { FollowingLocks } from './image-lock.js';
import { allocateTail } from './allocate-tail.js';
import { closeFd, MAX_RING, readFully, truncate, writeFully } from './file-io.js';
import { FileSync } from './file-sync.js';
import type { QuickIo } from './quick-io.js';
import { EarlyWriteOut } from './write-out.js';

interface FileDriverOptions {
  readonly fd: number;
  readonly name: string;
  readonly isDevice: boolean;
  readonly bytes: number;
  readonly limits: BlockLimits;
  /** Alignment of write-zeroes on a device; 1 for files. */
  readonly sectorBytes: number;
  /** Allocate ahead of growing writes; for files opened with O_DIRECT. */
  readonly growAhead: boolean;
  /** What can be done without the thread pool; null = nothing. */
  readonly quick: QuickIo | null;
  /** For what the host must be waited for; null = the thread pool does all. */
  readonly ring: RingUser | null;
  /** On a file system without a disk: nothing has to be waited for. */
  readonly inMemory: boolean;
  /** The page cache keeps what is written until it is flushed. */
  readonly cached: boolean;
  /** How it follows the users of its node; null where it was opened for one use. */
  readonly following: Following | null;
}

export interface FileAccess {
  readonly readOnly: boolean;
  /** Open read-only until a user writes (auto-read-only). */
  readonly later: boolean;
  readonly direct: boolean;
}

/** How a file follows the users of its node. */
export interface Following {
  readonly locks: FollowingLocks | null;
  readonly access: FileAccess;
  /** Opens the file once more, in another way. */
  readonly open: (how: { readonly readOnly: boolean; readonly direct: boolean }) => Promise<Reopened>;
}

interface Reopened {
  readonly fd: number;
  readonly limits: BlockLimits;
  readonly growAhead: boolean;
  readonly quickFor: (fd: number) => QuickIo | null;
}

type SpaceCall = 'punch' | 'zero' | 'device discard';

/** Splices that will never work. */
const NO_SPLICE: readonly (string | undefined)[] = ['EINVAL', 'ENOSYS', 'EOPNOTSUPP', 'ENOTSUP'];
const LOOK_BYTES = 128 * 1024;

/** The file system or device lacks the call; it will lack it the next time too. */
const UNSUPPORTED: readonly (string | undefined)[] = ['EOPNOTSUPP', 'ENOTSUP', 'ENOSYS', 'ENODEV', 'ENOTTY'];

export class FileDriver implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName: 'file' | 'host_device';
  limits: BlockLimits;
  readonly growable: boolean;
  readonly fuaBytes: number;
  readonly resize?: (bytes: number, preallocation?: Preallocation) => Promise<void>;
  readonly prepareUse?: (use: EdgeUse) => Promise<PreparedUse>;
  readonly prepareAccess?: (access: FileAccess) => Promise<PreparedUse>;
  /** Of discards alone, as QEMU counts them. */
  readonly discards = { ok: 0, failed: 0, bytes: 0 };
  readonly writeOut: EarlyWriteOut | undefined;
  readonly #fd: number;
  readonly #name: string;
  readonly #sectorBytes: number;
  /** Counts growing writes from the moment they are submitted, so that the next one sees where they end. */
  #length: number;
  #growth: Growth | null;
  #quick: QuickIo | null;
  readonly #ring: RingUser | null;
  readonly #sync: FileSync;
  #access: FileAccess | null;
  /** What a reopen that is prepared will make of it, and how the descriptor it has opened is replaced by a better one. */
  #coming: { readonly access: FileAccess; readonly replace: (opened: PreparedUse) => void } | null = null;
  /** The descriptor is open for writing. */
  #writable: boolean;
  readonly #lacking = new Set<SpaceCall>();
  readonly #inMemory: boolean;
  #refusesPipes = false;
  /**
   * The data that was found last: to find where it ends, a file system may walk all of it. Data that becomes a hole while
   * nobody tells us is still told as data, which is never wrong.
   */
  #dataFrom = 0;
  #dataTo = 0;
  #closed = false;

  constructor(options: FileDriverOptions) {
    this.formatName = options.isDevice ? 'host_device' : 'file';
    this.limits = options.limits;
    this.growable = !options.isDevice;
    this.#fd = options.fd;
    this.#name = options.name;
    this.#sectorBytes = options.sectorBytes;
    this.#length = options.bytes;
    this.#growth = options.growAhead && !options.isDevice ? new Growth(options.fd, options.bytes) : null;
    this.#quick = options.quick;
    this.#inMemory = options.inMemory;
    this.#ring = options.ring;
    this.writeOut = options.cached ? new EarlyWriteOut(options.fd) : undefined;
    this.fuaBytes = options.ring === null ? 0 : MAX_RING;
    this.#sync = new FileSync(options.fd, options.ring, (error) => this.#failure('flush', 0, 0, error));
    const { punchHole: punch, zeroRange: zero, ioctl } = capabilities();
    if (!punch) this.#lacking.add('punch');
    if (!zero) this.#lacking.add('zero');
    if (!ioctl) this.#lacking.add('device discard');
    if (!options.isDevice) this.resize = (bytes, preallocation) => this.#resize(bytes, preallocation);
    const { following } = options;
    this.#access = following?.access ?? null;
    this.#writable = following !== null && !following.access.readOnly && !following.access.later;
    if (following !== null) {
      this.prepareUse = (use) => this.#prepareUse(following, use);
      this.prepareAccess = (access) => this.#prepareAccess(following, access);
    }
  }

  length(): number { return this.#length; }

  submit(request: BlockRequest): Promise<void> {
    try {
      this.#refuse(request.op);
    } catch (error) {
      return rejected(error);
    }
    switch (request.op) {
      case 'read': return this.#read(request);
      case 'write': return this.#write(request);
      default: return this.#arrange(request);
    }
  }

  /** Not past the page cache, whose memory a pipe has; and not where the host has refused once. */
  get pipeBytes(): number { return this.limits === NO_LIMITS && !this.#refusesPipes ? MOST_PIPED_PAGES : 0; }

  #read(request: BlockRequest): Promise<void> {
    const { pipe } = request;
    if (pipe?.inKernel === true && (pipe.seeksZeros || !pipe.hasPlaceFor(request.offset, request.bytes))) pipe.spill();
    return pipe?.inKernel === true ? this.#readPipe(request, pipe) : this.#readMemory(request);
  }

  async #readPipe(request: BlockRequest, pipe: PipeBuffer): Promise<void> {
    // what is in memory already costs less to take than to have taken
    if (this.#isAtHand(request) && pipe.pullFileNow(this.#fd, request.offset)) return;
    pipe.restart();
    const pulled = await pipe.pullFile(this.#fd, request.offset).catch((error: unknown) => this.#refusedPipe(error));
    if (pulled === true) return;
    try {
      pipe.spill();
    } catch (error) {
      throw this.#failedRequest(request, error);
    }
    await this.#readMemory(request); // which tells the error, too
  }

  /** Looks at a byte here and there: whoever takes pages waits for those that are still being read. */
  #isAtHand({ offset, bytes, buffer }: BlockRequest): boolean {
    if (this.#inMemory || this.#quick === null) return this.#inMemory;
    const one = buffer!.subarray(0, 1);
    for (let at = bytes - 1; at >= 0; at -= LOOK_BYTES) if (!this.#quick.read(one, offset + at)) return false;
    return true;
  }

  #refusedPipe(error: unknown): void {
    if (NO_SPLICE.includes(errnoOf(error))) this.#refusesPipes = true;
  }

  #readMemory(request: BlockRequest): Promise<void> {
    const buffer = request.buffer!;
    if (this.#quick?.read(buffer, request.offset) === true) return DONE;
    return readFully(this.#fd, buffer, request.offset, this.limits.requestAlignment, this.#ring, (error) => this.#failedRequest(request, error));
  }

  #write(request: BlockRequest): Promise<void> {
    const end = request.offset + request.bytes;
    if (end > this.#length) {
      const wait = this.#growth?.before(this.#length, request.offset, end) ?? null;
      this.#length = end;
      if (wait !== null) return wait.then(() => this.#writeNow(request));
    }
    return this.#writeNow(request);
  }

  #writeNow(request: BlockRequest): Promise<void> {
    const { pipe } = request;
    const buffer = request.buffer!;
    if ((request.flags & RequestFlag.FUA) !== 0) pipe?.spill();
    if (pipe?.inKernel === true) return this.#writePipe(request, pipe);
    if ((request.flags & RequestFlag.FUA) !== 0) return this.#sync.write(buffer, request.offset, (error) => this.#failedRequest(request, error));
    if (this.#quick?.write(buffer, request.offset) === true) return DONE;
    const writing = writeFully(this.#fd, buffer, request.offset, this.#ring, (error) => this.#failedRequest(request, error));
    return this.writeOut?.wanted === true ? this.#writeOut(writing, request) : writing;
  }

  async #writePipe(request: BlockRequest, pipe: PipeBuffer): Promise<void> {
    assert(pipe.left === request.bytes, 'a pipe with other content than the request');
    if (this.#inMemory && spendTurn(request.bytes)) pipe.pushFileNow(this.#fd, request.offset);
    const rest = await pipe.pushFile(this.#fd, request.offset, (error) => this.#refusedPipe(error)).catch((error: unknown) => { throw this.#failedRequest(request, error); });
    if (rest !== null) await writeFully(this.#fd, rest, request.offset + request.bytes - rest.byteLength, null, (error) => this.#failedRequest(request, error));
    if (this.writeOut?.wanted === true) this.writeOut.wrote(request.offset, request.bytes);
  }

  async #writeOut(writing: Promise<void>, { offset, bytes }: BlockRequest): Promise<void> {
    await writing;
    this.writeOut!.wrote(offset, bytes);
  }

  /** All that is not a transfer. */
  async #arrange(request: BlockRequest): Promise<void> {
    const end = request.offset + request.bytes;
    try {
      if (request.op === 'write-zeroes') await this.#writeZeroes(request, end);
      else if (request.op === 'discard') await this.#countDiscard(request.bytes, this.#discard(request.offset, end));
      else await this.#sync.flush();
    } catch (error) {
      throw this.#failedRequest(request, error);
    } finally {
      if (request.op !== 'flush') this.#dataTo = 0;
    }
  }

  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    this.#refuse('read');
    const all: BlockStatus = { kind: 'data', bytes, hostOffset: offset };
    if (this.formatName === 'host_device' || !capabilities().seekData) return all;
    if (offset >= this.#dataFrom && offset < this.#dataTo) return { ...all, bytes: Math.min(bytes, this.#dataTo - offset) };
    try {
      const data = seekData(this.#fd, offset);
      if (data === null) return { kind: 'zero', bytes, hostOffset: offset };
      if (data > offset) return { kind: 'zero', bytes: Math.min(bytes, data - offset), hostOffset: offset };
      const hole = seekHole(this.#fd, offset) ?? offset + bytes;
      this.#dataFrom = offset;
      this.#dataTo = hole;
      return { ...all, bytes: Math.min(bytes, Math.max(1, hole - offset)) };
    } catch (error) {
      if (errnoOf(error) === 'EINVAL') return all; // a file system without holes
      throw this.#failure('read', offset, bytes, error);
    }
  }

  async #prepareUse(following: Following, { used, shared }: EdgeUse): Promise<PreparedUse> {
    const locked = following.locks?.prepare(this.#fd, this.#name, used, Permission.ALL & ~shared);
    const writes = (used & (Permission.WRITE | Permission.WRITE_UNCHANGED)) !== 0;
    const opened: PreparedUse[] = [];
    try {
      if (writes && !this.#writable) opened.push(...await this.#prepareWriting(following));
    } catch (error) {
      locked?.abort();
      throw error;
    }
    return {
      commit: () => {
        for (const one of opened) one.commit();
        locked?.commit();
      },
      abort: () => {
        locked?.abort();
        for (const one of opened) one.abort();
      },
    };
  }

  /**
   * For the first user that writes: a descriptor of the present access, and of the one that a reopen is about to bring.
   * Whether the user came with that reopen or beside it, and whether it then commits or not, there is one that fits.
   */
  async #prepareWriting(following: Following): Promise<PreparedUse[]> {
    const coming = this.#coming;
    const now = this.#access!.later ? await this.#prepareDescriptor(following, { readOnly: false, direct: this.#access!.direct }) : null;
    const fits = now !== null && coming?.access.direct === this.#access!.direct;
    if (coming === null || !coming.access.later || fits) return now === null ? [] : [now];
    try {
      const next = await this.#prepareDescriptor(following, { readOnly: false, direct: coming.access.direct });
      return [...now === null ? [] : [now], { commit: () => coming.replace(next), abort: () => next.abort() }];
    } catch (error) {
      now?.abort();
      throw error;
    }
  }

  /** On a drained node, with its limits looked at anew afterwards. */
  async #prepareAccess(following: Following, access: FileAccess): Promise<PreparedUse> {
    const readOnly = access.readOnly || (access.later && !this.#writable);
    const same = readOnly === !this.#writable && access.direct === this.#access!.direct;
    let opened = same ? null : await this.#prepareDescriptor(following, { readOnly, direct: access.direct });
    let forWriting = !readOnly;
    this.#coming = {
      access,
      replace: (better) => {
        opened?.abort();
        opened = better;
        forWriting = true;
      },
    };
    return {
      commit: () => {
        // A user that writes came meanwhile: the descriptor at hand is the better one
        if (access.later && !forWriting && this.#writable) opened?.abort();
        else opened?.commit();
        this.#access = access;
        this.#coming = null;
      },
      abort: () => {
        opened?.abort();
        this.#coming = null;
      },
    };
  }

  async #prepareDescriptor({ open, locks }: Following, how: { readonly readOnly: boolean; readonly direct: boolean }): Promise<PreparedUse> {
    const { fd, limits, growAhead, quickFor } = await open(how);
    await this.#settleErrors().catch((error: unknown) => {
      fs.closeSync(fd);
      throw error;
    });
    return {
      commit: () => {
        locks?.copyTo(fd);
        if (!growAhead || how.readOnly) this.#growth?.trim(this.#length); // a read-only descriptor could not, at the close
        replaceDescriptor(fd, this.#fd); // I/O in flight keeps what it began with
        fs.closeSync(fd);
        this.limits = limits;
        this.#quick = quickFor(this.#fd);
        this.#growth = growAhead && this.growable ? this.#growth ?? new Growth(this.#fd, this.#length) : null;
        this.#writable = !how.readOnly;
      },
      abort: () => fs.closeSync(fd),
    };
  }

  /**
   * The kernel tells a lost write once to each descriptor that was open by then. What was lost before the new one was
   * opened is asked of the old one while it is there.
   */
  async #settleErrors(): Promise<void> {
    if (!this.#writable) return;
    await this.#sync.flush().catch((error: unknown) => {
      const errno = errnoOf(error);
      throw new BlockError('IO', `Error flushing drive: ${errnoText(errno)}`, { node: this.#name, errno, cause: error });
    });
  }

  async allocatedBytes(): Promise<number> {
    this.#refuse('read');
    return fs.fstatSync(this.#fd).blocks * 512;
  }

  /** Also drops the image locks, which live as long as the descriptor. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#ring?.close();
    await this.writeOut?.settled();
    try {
      this.#growth?.trim(this.#length);
    } catch (error) {
      await closeFd(this.#fd).catch(() => {});
      throw this.#closeFailure(error);
    }
    await closeFd(this.#fd).catch((error: unknown) => { throw this.#closeFailure(error); });
  }

  #closeFailure(error: unknown): BlockError {
    return wrapHostError(error, `Could not close '${this.#name}'`, { node: this.#name });
  }

  #refuse(op: BlockOp): void {
    if (this.#closed) throw new BlockError('CLOSED', `'${this.#name}' is closed`, { node: this.#name });
    if (this.#sync.error !== null && op !== 'read') throw this.#sync.error;
  }

  #failedRequest({ op, offset, bytes }: BlockRequest, error: unknown): BlockError {
    return this.#failure(op, offset, bytes, error);
  }

  #failure(op: BlockOp, offset: number, bytes: number, error: unknown): BlockError {
    const what = op === 'flush' ? `Could not flush '${this.#name}'` : `Could not ${op} ${formatRange(offset, bytes)} of '${this.#name}'`;
    return wrapHostError(error, what, { node: this.#name, offset, bytes });
  }

  /** Deallocates where the caller allows it, else keeps the range allocated; NOT_SUPPORTED where the host can do neither. */
  async #writeZeroes(request: BlockRequest, end: number): Promise<void> {
    const { offset, bytes } = request;
    if (offset % this.#sectorBytes === 0 && bytes % this.#sectorBytes === 0) {
      const mayUnmap = (request.flags & RequestFlag.MAY_UNMAP) !== 0;
      this.#extendTo(end);
      if (mayUnmap && await this.#tries('punch', () => punchHole(this.#fd, offset, bytes))) return;
      if (await this.#tries('zero', () => zeroRange(this.#fd, offset, bytes))) return;
    }
    throw new BlockError('NOT_SUPPORTED', `'${this.#name}' cannot zero ${formatRange(offset, bytes)} without writing it`, { node: this.#name });
  }

  async #countDiscard(bytes: number, discard: Promise<void>): Promise<void> {
    try {
      await discard;
    } catch (error) {
      this.discards.failed++;
      throw error;
    }
    this.discards.ok++;
    this.discards.bytes += bytes;
  }

  async #discard(offset: number, end: number): Promise<void> {
    if (this.growable) {
      await this.#tries('punch', () => punchHole(this.#fd, offset, end - offset));
      return;
    }
    const start = alignUp(offset, this.#sectorBytes);
    const bytes = alignDown(end, this.#sectorBytes) - start;
    if (bytes > 0) await this.#tries('device discard', () => deviceDiscard(this.#fd, start, bytes));
  }

  /** False where the host lacks the call; every other error is the caller's. */
  async #tries(name: SpaceCall, call: () => Promise<void>): Promise<boolean> {
    if (this.#lacking.has(name)) return false;
    try {
      await call();
      return true;
    } catch (error) {
      if (!UNSUPPORTED.includes(errnoOf(error))) throw error;
      this.#lacking.add(name);
      return false;
    }
  }

  /**
   * Makes the file as long as it says it is. Synchronous, because an asynchronous ftruncate could cut off a write that
   * was submitted after it and finished before it; #length covers every write in flight at this moment.
   */
  #extendTo(end: number): void {
    if (end <= this.#length) return;
    assert(this.growable, `zeroes past the end of the device '${this.#name}'`);
    this.#growth?.trim(this.#length);
    fs.ftruncateSync(this.#fd, end);
    this.#length = end;
  }

  async #extendAllocated(mode: 'falloc' | 'full', end: number): Promise<void> {
    const from = this.#length;
    this.#growth?.trim(from);
    try {
      await allocateTail(this.#fd, mode, from, end, this.limits.requestAlignment);
    } catch (error) {
      await truncate(this.#fd, from).catch(() => {});
      throw error;
    }
    this.#length = end;
  }

  /** Call it on a drained node: shrinking would cut off a growing write in flight. */
  async #resize(bytes: number, preallocation: Preallocation = 'off'): Promise<void> {
    this.#refuse('write');
    if (preallocation === 'metadata') throw new BlockError('NOT_SUPPORTED', 'Unsupported preallocation mode: metadata', { node: this.#name });
    if (preallocation !== 'off' && bytes < this.#length) {
      throw new BlockError('INVALID_ARGUMENT', "Preallocation can't be used for shrinking files", { node: this.#name });
    }
    try {
      if (bytes > this.#length) {
        if (preallocation === 'off') this.#extendTo(bytes);
        else await this.#extendAllocated(preallocation, bytes);
      } else {
        this.#dataTo = 0;
        this.#growth?.trim(bytes);
        await truncate(this.#fd, bytes);
        this.#length = bytes;
      }
    } catch (error) {
      throw wrapHostError(error, `Could not resize '${this.#name}' to ${bytes} bytes`, { node: this.#name });
    }
  }
}
