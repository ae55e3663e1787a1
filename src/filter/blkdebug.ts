/** The blkdebug filter: fails requests by rules that follow what the format above does, and narrows what it takes. For tests. */
import { promises as files } from 'node:fs';
import { constants } from 'node:os';
import { isPowerOfTwo } from '../base/bytes.js';
import { BlockError, wrapHostError } from '../base/errors.js';
import type { BlockChild } from '../block/child.js';
import { NO_LIMITS, type BlockLimits, type BlockStatus } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { edgeUse, type EdgeUse } from '../block/permissions.js';
import type { BlockRequest } from '../block/request.js';
import { BLKDEBUG_EVENTS, BlkdebugState, parseBlkdebugConfig, type BlkdebugIoType, type BlkdebugRule } from './blkdebug-rules.js';
import { FilterDriver } from './filter.js';

const MAX_LIMIT = 2 ** 31 - 1;

/** In bytes; 0 or left out = none. */
export interface BlkdebugLimits {
  readonly align?: number | undefined;
  readonly maxTransfer?: number | undefined;
  readonly optWriteZero?: number | undefined;
  readonly maxWriteZero?: number | undefined;
  readonly optDiscard?: number | undefined;
  readonly maxDiscard?: number | undefined;
}

export interface BlkdebugOptions extends BlkdebugLimits {
  readonly image: BlockNode;
  readonly rules?: readonly BlkdebugRule[];
  /** Permission bits to take on the image beyond what is needed, and bits not to share. */
  readonly takeChildPerms?: number;
  readonly unshareChildPerms?: number;
}

interface Suspended {
  readonly tag: string;
  readonly go: () => void;
}

export class BlkdebugDriver extends FilterDriver {
  readonly formatName = 'blkdebug';
  readonly #limits: BlockLimits;
  readonly #state: BlkdebugState;
  readonly #perms: EdgeUse;
  /** Newest first. */
  readonly #suspended: Suspended[] = [];
  #waiters: { readonly tag: string; readonly wake: () => void }[] = [];

  /** Throws INVALID_ARGUMENT where the limits do not fit together. */
  constructor(options: BlkdebugOptions) {
    const { image } = options;
    checkBlkdebugLimits(options, image.limits.requestAlignment);
    super(image, 'image');
    this.#limits = limitsOf(options);
    this.#state = new BlkdebugState(options.rules ?? []);
    this.#perms = { used: options.takeChildPerms ?? 0, shared: options.unshareChildPerms ?? 0 };
    this.#state.happened('none');
  }

  override get limits(): BlockLimits { return this.#limits; }

  readonly debugEvent = (event: string): void => this.#state.happened(event);

  override async submit(request: BlockRequest): Promise<void> {
    for (const tag of this.#state.takeReached()) await this.#suspend(tag);
    await this.#check(request.op, request.offset, request.bytes);
    await this.forward(request);
  }

  override async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    await this.#check('block-status', offset, bytes);
    return super.blockStatus(offset, bytes);
  }

  /** Lets the first request after `event` wait under the name of `tag`. False where there is no such event. */
  addBreakpoint(event: string, tag: string): boolean {
    if (!(BLKDEBUG_EVENTS as readonly string[]).includes(event)) return false;
    this.#state.addBreakpoint({ event, tag });
    return true;
  }

  /** Lets the requests of this tag go on, too. False where no breakpoint was left to remove. */
  removeBreakpoint(tag: string): boolean {
    const removed = this.#state.removeBreakpoints(tag);
    while (this.resume(tag));
    return removed;
  }

  /** Lets the newest request of this tag go on. False where none waits. */
  resume(tag: string): boolean {
    const index = this.#suspended.findIndex((suspended) => suspended.tag === tag);
    if (index < 0) return false;
    this.#suspended.splice(index, 1)[0]!.go();
    return true;
  }

  isSuspended(tag: string): boolean {
    return this.#suspended.some((suspended) => suspended.tag === tag);
  }

  /** Resolves once a request waits under this tag. */
  whenSuspended(tag: string): Promise<void> {
    if (this.isSuspended(tag)) return Promise.resolve();
    return new Promise((wake) => { this.#waiters.push({ tag, wake }); });
  }

  #suspend(tag: string): Promise<void> {
    const stopped = new Promise<void>((go) => { this.#suspended.unshift({ tag, go }); });
    for (const waiter of this.#waiters) if (waiter.tag === tag) waiter.wake();
    this.#waiters = this.#waiters.filter((waiter) => waiter.tag !== tag);
    return stopped;
  }

  readonly childUse = (child: BlockChild, parent: EdgeUse, writable: boolean): EdgeUse => {
    const { used, shared } = edgeUse(child.role, parent, writable);
    return { used: used | this.#perms.used, shared: shared & ~this.#perms.shared };
  };

  async #check(ioType: BlkdebugIoType, offset: number, bytes: number): Promise<void> {
    const rule = this.#state.failing(ioType, offset, bytes);
    if (rule === null) return;
    if (!rule.immediately) await new Promise((resolve) => setImmediate(resolve));
    throw wrapHostError({ code: errnoName(rule.errno) }, `'${this.file.name}' fails a ${ioType} of ${bytes} bytes at ${offset}, as blkdebug is told to`,
      { node: this.file.name, offset, bytes });
  }
}

function errnoName(number: number): string {
  return Object.entries(constants.errno).find(([, value]) => value === number)?.[0] ?? 'EIO';
}

function limitsOf(options: BlkdebugLimits): BlockLimits {
  const { align = 0, maxTransfer = 0, optWriteZero = 0, maxWriteZero = 0, optDiscard = 0, maxDiscard = 0 } = options;
  const given = (value: number): number | undefined => value === 0 ? undefined : value;
  return {
    ...NO_LIMITS,
    requestAlignment: Math.max(align, 1),
    maxTransfer: given(maxTransfer) ?? Infinity,
    zeroAlignment: given(Math.max(optWriteZero, align)),
    maxZeroes: given(maxWriteZero),
    discardAlignment: given(Math.max(optDiscard, align)),
    maxDiscard: given(maxDiscard),
  };
}

/** `imageAlignment`: what the image itself wants. */
function checkBlkdebugLimits(options: BlkdebugLimits, imageAlignment: number): void {
  const { maxTransfer = 0, optWriteZero = 0, maxWriteZero = 0, optDiscard = 0, maxDiscard = 0 } = options;
  const align = Math.max(options.align ?? 0, imageAlignment);
  const refuse = (name: string, value: number): never => {
    throw new BlockError('INVALID_ARGUMENT', `Cannot meet constraints with ${name} ${value}`, { errno: 'EINVAL' });
  };
  if (align >= MAX_LIMIT || !isPowerOfTwo(align)) refuse('align', options.align ?? 0);
  const check = (name: string, value: number, unit: number): void => {
    if (value !== 0 && (value >= MAX_LIMIT || value % unit !== 0)) refuse(name, value);
  };
  check('max-transfer', maxTransfer, align);
  check('opt-write-zero', optWriteZero, align);
  check('max-write-zero', maxWriteZero, Math.max(optWriteZero, align));
  check('opt-discard', optDiscard, align);
  check('max-discard', maxDiscard, Math.max(optDiscard, align));
}

/** The rules of a config file. */
export async function readBlkdebugConfig(path: string): Promise<readonly BlkdebugRule[]> {
  const text = await files.readFile(path, 'utf8').catch((error: unknown) => { throw wrapHostError(error, 'Could not read blkdebug config file'); });
  return parseBlkdebugConfig(text);
}

const PREFIX = 'blkdebug:';

/** Takes `blkdebug:CONFIG:IMAGE` apart; without the prefix all of it is the image. */
export function parseBlkdebugName(name: string): { readonly config: string | null; readonly image: string } {
  if (!name.startsWith(PREFIX)) return { config: null, image: name };
  const colon = name.indexOf(':', PREFIX.length);
  if (colon < 0) throw new BlockError('INVALID_ARGUMENT', 'blkdebug requires both config file and image path', { errno: 'EINVAL' });
  return { config: colon === PREFIX.length ? null : name.slice(PREFIX.length, colon), image: name.slice(colon + 1) };
}
