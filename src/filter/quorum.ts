/**
 * Quorum: writes go to all children, and succeed where enough of them say so; what is read is what enough children
 * agree on. With `rewrite-corrupted` those that were outvoted get the right data. Discards end here: children need not
 * agree on what they leave.
 */
import { createHash } from 'node:crypto';
import { BlockError, errnoOf, errnoText, wrapHostError } from '../base/errors.js';
import { RangeLock } from '../base/range-lock.js';
import { BlockChild } from '../block/child.js';
import { NO_LIMITS, type BlockDriver, type BlockStatus } from '../block/driver.js';
import type { BlockNode } from '../block/node.js';
import { Permission, refuseCycle, type EdgeUse } from '../block/permissions.js';
import { makeRequest, type BlockRequest } from '../block/request.js';
import { chainStatus } from '../block/status.js';
import { firstDifference } from './difference.js';

const SECTOR = 512;

export interface QuorumOptions {
  readonly children: readonly BlockNode[];
  /** So many children must agree. */
  readonly voteThreshold: number;
  /** Two children that must never differ; the first difference ends it. */
  readonly blkverify?: boolean;
  readonly rewriteCorrupted?: boolean;
  /** `fifo` reads from the first child that can. */
  readonly readPattern?: 'quorum' | 'fifo';
  readonly onEvent?: (event: QuorumEvent) => void;
}

/** QEMU's QUORUM_REPORT_BAD and QUORUM_FAILURE, keys in its order. */
export type QuorumEvent =
  | { readonly event: 'QUORUM_REPORT_BAD'; readonly data: {
    readonly type: 'read' | 'write' | 'flush'; readonly error?: string; readonly 'node-name': string;
    readonly 'sector-num': number; readonly 'sectors-count': number; }; }
  | { readonly event: 'QUORUM_FAILURE'; readonly data: { readonly reference: string; readonly 'sector-num': number; readonly 'sectors-count': number } };

/** What one child made of a request; `error` null = it succeeded. */
interface Answer {
  readonly child: BlockChild;
  readonly buffer: Uint8Array | null;
  readonly error: unknown;
}

export class QuorumDriver implements BlockDriver {
  readonly kind = 'filter';
  readonly formatName = 'quorum';
  readonly limits = NO_LIMITS;
  readonly growable = false;
  readonly voteThreshold: number;
  readonly blkverify: boolean;
  readonly rewriteCorrupted: boolean;
  readonly readPattern: 'quorum' | 'fifo';
  readonly #children: BlockChild[];
  readonly #onEvent: (event: QuorumEvent) => void;
  /** A rewrite holds its range alone from reading to writing, so that no newer write is undone. */
  readonly #ranges = new RangeLock();
  #nextIndex: number;
  #difference: BlockError | null = null;

  /** Throws INVALID_ARGUMENT (QEMU's texts), and EIO where the children have different lengths. */
  constructor(options: QuorumOptions) {
    checkQuorum(options);
    const { children, readPattern = 'quorum' } = options;
    const voting = readPattern === 'quorum';
    this.voteThreshold = options.voteThreshold;
    this.readPattern = readPattern;
    this.blkverify = voting && (options.blkverify ?? false);
    this.rewriteCorrupted = voting && (options.rewriteCorrupted ?? false);
    if (children.some((child) => child.length() !== children[0]!.length())) {
      throw new BlockError('IO', 'Could not refresh total sector count: Input/output error', { errno: 'EIO' });
    }
    this.#children = children.map((child, index) => new BlockChild(`children.${index}`, 'data', child));
    this.#nextIndex = children.length;
    this.#onEvent = options.onEvent ?? (() => {});
  }

  get children(): readonly BlockChild[] { return this.#children; }

  length(): number { return this.#children[0]!.length(); }

  async submit(request: BlockRequest): Promise<void> {
    if (this.#difference !== null) throw this.#difference;
    switch (request.op) {
      case 'read': return this.readPattern === 'fifo' ? this.#readFirst(request) : this.#readVoting(request);
      case 'write':
      case 'write-zeroes': return this.#write(request);
      case 'discard': return;
      case 'flush': return this.#flush(request);
    }
  }

  /** Zeros only where all children say so. */
  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    let zeros = bytes;
    let data = 0;
    for (const child of this.#children) {
      const status = await child.settled().then((node) => chainStatus(node, offset, bytes)).catch((error: unknown) => {
        this.#reportBad('read', child, offset, bytes, error);
        return { kind: 'data', bytes } as const;
      });
      if (status.kind === 'data') data = Math.max(data, status.bytes);
      else zeros = Math.min(zeros, status.bytes);
    }
    return data > 0 ? { kind: 'data', bytes: data } : { kind: 'zero', bytes: zeros };
  }

  readonly childUse = (_child: BlockChild, { used, shared }: EdgeUse): EdgeUse => ({
    used: used | (this.rewriteCorrupted ? Permission.WRITE : 0),
    shared: shared & (Permission.CONSISTENT_READ | Permission.WRITE_UNCHANGED),
  });

  /** x-blockdev-change; on a drained node. The new edge. */
  addChild(node: BlockNode): BlockChild {
    if (this.blkverify) throw new BlockError('INVALID_ARGUMENT', 'Cannot add a child to a quorum in blkverify mode');
    const edge = `children.${this.#nextIndex}`;
    const { parent } = this.#children[0]!;
    if (parent !== null) refuseCycle(parent, node, edge);
    this.#nextIndex++;
    const child = new BlockChild(edge, 'data', node);
    child.parent = parent;
    this.#children.push(child);
    return child;
  }

  /** Where its users do not get along with others of the node. Still on the drained node. */
  undoAdd(child: BlockChild): void {
    this.#children.splice(this.#children.indexOf(child), 1);
    this.#nextIndex--;
    child.node.parents.delete(child);
  }

  /** Takes an edge out; the caller detaches it. On a drained node. */
  removeChild(child: BlockChild): void {
    if (this.#children.length <= this.voteThreshold) {
      throw new BlockError('INVALID_ARGUMENT', `The number of children cannot be lower than the vote threshold ${this.voteThreshold}`);
    }
    this.#children.splice(this.#children.indexOf(child), 1);
  }

  async close(): Promise<void> {}

  async #write(request: BlockRequest): Promise<void> {
    const end = request.offset + request.bytes;
    const hold = this.#ranges.tryAcquire(request.offset, end, false) ?? await this.#ranges.acquire(request.offset, end, false);
    try {
      const answers = await this.#askAll(request, () => request.buffer);
      this.#requireEnough(answers, request);
    } finally {
      this.#ranges.release(hold);
    }
  }

  async #flush(request: BlockRequest): Promise<void> {
    const answers = await this.#askAll(request, () => null);
    if (succeeded(answers).length < this.voteThreshold) throw asError(commonError(answers));
  }

  async #readFirst(request: BlockRequest): Promise<void> {
    for (const [index, child] of this.#children.entries()) {
      const answer = await this.#ask(child, request, request.buffer);
      if (answer.error === null) return;
      this.#reportBad('read', child, request.offset, request.bytes, answer.error);
      if (index === this.#children.length - 1) throw asError(answer.error);
    }
  }

  async #readVoting(request: BlockRequest): Promise<void> {
    const outvoted = await this.#vote(request);
    if (outvoted.length === 0 || !this.rewriteCorrupted) return;
    const end = request.offset + request.bytes;
    const hold = await this.#ranges.acquire(request.offset, end);
    try {
      // Read anew: what was outvoted may have been a write in flight
      for (const child of await this.#vote(request, false)) {
        await this.#ask(child, makeRequest('write', request.offset, request.bytes, request.buffer, 0, request.ioClass), request.buffer);
      }
    } finally {
      this.#ranges.release(hold);
    }
  }

  /** Fills the request's buffer with what won; returns the children that said something else. */
  async #vote(request: BlockRequest, report = true): Promise<readonly BlockChild[]> {
    const answers = await this.#askAll(request, () => new Uint8Array(request.bytes), report);
    this.#requireEnough(answers, request);
    const heard = succeeded(answers);
    if (heard.every(({ buffer }) => this.#same(heard[0]!.buffer!, buffer!, request))) {
      request.buffer!.set(heard[0]!.buffer!);
      return [];
    }
    const winner = largestGroup(heard, ({ buffer }) => createHash('sha256').update(buffer!).digest('hex'));
    if (winner.length < this.voteThreshold) {
      this.#reportFailure(request);
      throw new BlockError('IO', `the children of a quorum do not agree on ${request.bytes} bytes at ${request.offset}`,
        { offset: request.offset, bytes: request.bytes, errno: 'EIO' });
    }
    request.buffer!.set(winner[0]!.buffer!);
    const bad = heard.filter((answer) => !winner.includes(answer));
    if (report) for (const { child } of bad) this.#reportBad('read', child, request.offset, request.bytes);
    return bad.map(({ child }) => child);
  }

  #same(a: Uint8Array, b: Uint8Array, { offset, bytes }: BlockRequest): boolean {
    if (!this.blkverify) return Buffer.compare(a, b) === 0;
    const at = firstDifference(a, b);
    if (at < 0) return true;
    this.#difference = new BlockError('IO', `quorum: offset=${offset} bytes=${bytes} contents mismatch at offset ${offset + at}`, { offset, bytes, errno: 'EIO' });
    throw this.#difference;
  }

  async #askAll(request: BlockRequest, bufferFor: () => Uint8Array | null, report = true): Promise<readonly Answer[]> {
    return Promise.all(this.#children.map(async (child) => {
      const answer = await this.#ask(child, request, bufferFor());
      const { op } = request;
      if (answer.error !== null && report) this.#reportBad(op === 'write-zeroes' || op === 'discard' ? 'write' : op, child, request.offset, request.bytes, answer.error);
      return answer;
    }));
  }

  async #ask(child: BlockChild, { op, offset, bytes, flags, ioClass }: BlockRequest, buffer: Uint8Array | null): Promise<Answer> {
    try {
      await child.submit(makeRequest(op, offset, bytes, buffer, flags, ioClass));
      return { child, buffer, error: null };
    } catch (error) {
      return { child, buffer, error };
    }
  }

  #requireEnough(answers: readonly Answer[], request: BlockRequest): void {
    if (succeeded(answers).length >= this.voteThreshold) return;
    this.#reportFailure(request);
    throw asError(commonError(answers));
  }

  #reportBad(type: 'read' | 'write' | 'flush', child: BlockChild, offset: number, bytes: number, error?: unknown): void {
    this.#onEvent({
      event: 'QUORUM_REPORT_BAD',
      data: { type, ...(error === undefined ? {} : { error: errnoText(errnoOf(error) ?? 'EIO') }), 'node-name': child.node.nodeName, ...sectors(offset, bytes) },
    });
  }

  #reportFailure({ offset, bytes }: BlockRequest): void {
    this.#onEvent({ event: 'QUORUM_FAILURE', data: { reference: this.#children[0]!.parent?.nodeName ?? '', ...sectors(offset, bytes) } });
  }
}

function sectors(offset: number, bytes: number): { readonly 'sector-num': number; readonly 'sectors-count': number } {
  const first = Math.floor(offset / SECTOR);
  return { 'sector-num': first, 'sectors-count': Math.ceil((offset + bytes) / SECTOR) - first };
}

function succeeded(answers: readonly Answer[]): readonly Answer[] {
  return answers.filter(({ error }) => error === null);
}

function asError(error: unknown): Error {
  return wrapHostError(error, 'a child of a quorum failed');
}

/** The error that most children met. */
function commonError(answers: readonly Answer[]): unknown {
  return largestGroup(answers.filter(({ error }) => error !== null), ({ error }) => errnoOf(error) ?? 'EIO')[0]!.error;
}

/** The answers that most have in common; of equally many, those whose kind came up last, as in QEMU. */
function largestGroup(answers: readonly Answer[], kindOf: (answer: Answer) => string): readonly Answer[] {
  const groups = new Map<string, Answer[]>();
  for (const answer of answers) groups.set(kindOf(answer), [...(groups.get(kindOf(answer)) ?? []), answer]);
  let largest: readonly Answer[] = [];
  for (const group of [...groups.values()].reverse()) if (group.length > largest.length) largest = group;
  return largest;
}

/** Throws what QEMU says of options that do not fit; before any child is opened. */
export function checkQuorum(options: Omit<QuorumOptions, 'children'> & { readonly children: readonly unknown[] }): void {
  const { children, voteThreshold, blkverify = false, rewriteCorrupted = false, readPattern = 'quorum' } = options;
  const refuse = (why: string): never => { throw new BlockError('INVALID_ARGUMENT', why); };
  if (children.length === 0) refuse('Number of provided children must be 1 or more');
  if (voteThreshold < 1) refuse("Parameter 'vote-threshold' expects a value >= 1");
  if (voteThreshold > children.length) refuse('threshold may not exceed children count');
  if (readPattern !== 'quorum') return;
  if (blkverify && (children.length !== 2 || voteThreshold !== 2)) refuse('blkverify=on can only be set if there are exactly two files and vote-threshold is 2');
  if (blkverify && rewriteCorrupted) refuse('rewrite-corrupted=on cannot be used with blkverify=on');
}
