/** The raw format: the disk is the file, byte for byte, or a window of it. */
import { alignUp, formatRange } from '../base/bytes.js';
import { DONE, rejected } from '../base/done.js';
import { BlockError } from '../base/errors.js';
import { NO_LIMITS, type BlockDriver, type BlockLimits, type BlockStatus, type Preallocation } from '../block/driver.js';
import { BlockChild } from '../block/child.js';
import type { BlockNode } from '../block/node.js';
import { Permission, type EdgeUse } from '../block/permissions.js';
import { makeRequest, type BlockRequest } from '../block/request.js';
import { looksFormatted } from './signatures.js';

const SECTOR = 512;

interface RawOptions {
  /** Where in the file the disk begins. */
  readonly offset?: number | undefined;
  /** Bytes of the disk; by default all that follows. A multiple of 512. */
  readonly size?: number | undefined;
}

export class RawDriver implements BlockDriver {
  readonly kind = 'format';
  readonly formatName = 'raw';
  limits: BlockLimits = NO_LIMITS;
  readonly passesWrites = true;
  readonly children: readonly BlockChild[];
  offset: number;
  /** The size that was asked for; undefined = all of the file. */
  size: number | undefined;
  readonly #file: BlockChild;
  #bytes: number;
  #guarded = false;

  constructor(file: BlockNode, { offset = 0, size }: RawOptions = {}) {
    this.offset = offset;
    this.size = size;
    this.#bytes = windowBytes(file, offset, size);
    this.#file = new BlockChild('file', offset === 0 && size === undefined ? 'filtered' : 'data', file);
    this.children = [this.#file];
  }

  length(): number {
    return this.#bytes;
  }

  /** As in QEMU: for nodes above that may resize it (formats), in no window of fixed size. Users' doors never write beyond its end. */
  get growable(): boolean {
    if (this.size !== undefined || !this.#file.growable) return false;
    for (const { edge, use } of this.#file.parent?.parents ?? []) if (edge !== 'root' && (use.used & Permission.RESIZE) !== 0) return true;
    return false;
  }

  get pipeBytes(): number { return this.#guarded ? 0 : this.#file.node.pipeBytes; }

  /**
   * The format was only guessed: from here on the first sector cannot be made to look like another one. The limits are
   * others then.
   */
  guardFirstSector(): void {
    this.#guarded = true;
    this.limits = { ...NO_LIMITS, requestAlignment: SECTOR }; // so that a write has all of the sector, or nothing
  }

  submit(request: BlockRequest): Promise<void> {
    if (this.#guarded && request.op === 'write' && request.offset === 0 && looksFormatted(request.buffer!)) return rejected(this.#refusal());
    if (request.op === 'flush') this.#file.debugEvent('flush_to_disk');
    const { op, offset, bytes, buffer, flags, ioClass, pipe } = request;
    const running = this.#file.submit(makeRequest(op, op === 'flush' ? 0 : offset + this.offset, bytes, buffer, flags, ioClass, pipe));
    if (offset + bytes <= this.#bytes || (op !== 'write' && op !== 'write-zeroes')) return running;
    if (running !== DONE) return this.#growAfter(running, offset + bytes);
    this.#grow(offset + bytes);
    return DONE;
  }

  async #growAfter(writing: Promise<void>, end: number): Promise<void> {
    await writing;
    this.#grow(end);
  }

  #grow(end: number): void {
    this.#bytes = Math.max(this.#bytes, wholeSectors(this.#file.node, end));
  }

  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    const inFile = this.#file.length() - (offset + this.offset);
    return inFile > 0 ? this.#file.blockStatus(offset + this.offset, Math.min(bytes, inFile)) : { kind: 'zero', bytes };
  }

  #refusal(): BlockError {
    return new BlockError('INVALID_ARGUMENT',
      `'${this.#file.name}' was guessed to be raw, and would look like another format: raw has to be named as its format for that`,
      { node: this.#file.name, offset: 0, bytes: SECTOR, errno: 'EPERM' });
  }

  /** Another window, on the file that will be below: checked now, in force when the function returned is called. */
  changeWindow(file: BlockNode, { offset = 0, size }: RawOptions): () => void {
    const bytes = windowBytes(file, offset, size);
    return () => {
      this.offset = offset;
      this.size = size;
      this.#bytes = bytes;
    };
  }

  /** Raw itself needs nothing: it writes and resizes only where its users do. */
  readonly childUse = (_child: BlockChild, { used, shared }: EdgeUse): EdgeUse =>
    ({ used, shared: this.#file.role === 'data' ? shared & ~Permission.RESIZE : shared });

  readonly resize = async (bytes: number, preallocation?: Preallocation): Promise<void> => {
    const { node, name } = this.#file;
    const { resize } = node.driver;
    if (resize === undefined) throw new BlockError('NOT_SUPPORTED', `'${name}' cannot be resized`, { node: name });
    if (this.size !== undefined) throw new BlockError('NOT_SUPPORTED', 'Cannot resize fixed-size raw disks', { node: name });
    await node.drained(() => resize.call(node.driver, this.offset + bytes, preallocation));
    this.#bytes = wholeSectors(node, bytes);
  };

  /** O_DIRECT writes whole blocks: the last one may have made the file longer than the disk. */
  async close(): Promise<void> {
    const { driver, readOnly } = this.#file.node;
    const beyond = this.#file.length() - this.#bytes;
    const padding = this.offset === 0 && this.size === undefined && beyond > 0 && beyond < this.#file.limits.requestAlignment;
    if (padding && !readOnly && driver.growable) await driver.resize?.(this.#bytes);
  }
}

function windowBytes(file: BlockNode, offset: number, size: number | undefined): number {
  const whole = alignUp(file.length(), SECTOR);
  const refuse = (why: string): never => { throw new BlockError('INVALID_ARGUMENT', why, { node: file.name }); };
  if (offset > whole) refuse(`Offset (${offset}) cannot be greater than size of the containing file (${whole})`);
  if (size !== undefined && whole - offset < size) {
    refuse(`The sum of offset (${offset}) and size (${size}) has to be smaller or equal to the  actual size of the containing file (${whole})`);
  }
  if (size !== undefined && size % SECTOR !== 0) refuse('Specified size is not multiple of 512');
  if (!Number.isSafeInteger(offset)) refuse(`${formatRange(offset, 0)} is no place in a file`);
  return size ?? wholeSectors(file, whole - offset);
}

/** A disk has whole sectors, as in QEMU: what the last one lacks in the file reads as zeros, and a write makes the file longer. */
function wholeSectors(file: BlockNode, bytes: number): number {
  return file.driver.growable ? alignUp(bytes, SECTOR) : bytes;
}
