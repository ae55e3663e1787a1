/**
 * A node of the block graph: the one checked door over a driver. Bounds, permission, alignment (padding with
 * read-modify-write), overlap of unaligned writes, in-flight counting, drain and tracing happen here and nowhere else.
 */
import { assert } from '../base/assert.js';
import { formatRange, isZero } from '../base/bytes.js';
import { DONE, rejected } from '../base/done.js';
import { BlockError } from '../base/errors.js';
import type { TraceSink } from '../trace/sink.js';
import { AlignedIo, needsPadding } from './aligned-io.js';
import { beginGuarded, endGuarded, type ChangeGuard } from './change-guard.js';
import type { BlockChild } from './child.js';
import { deallocationParts } from './deallocation.js';
import type { BlockDriver, BlockLimits, BlockStatus } from './driver.js';
import { DirtyBitmaps, type WriteObserver } from './dirty-bitmaps.js';
import { IoVerbs } from './io-verbs.js';
import { logRequest, NodeTrace, sinkOfNewNodes } from './node-trace.js';
import type { NodeUser } from './permissions.js';
import { makePart, makeRequest, remakeRequest, RequestFlag, type BlockRequest } from './request.js';
import { events } from '../trace/events.js';

interface BlockNodeOptions {
  readonly name: string;
  readonly driver: BlockDriver;
  readonly readOnly?: boolean;
  /** Every write is on stable storage before it completes (cache modes writethrough and directsync). */
  readonly writethrough?: boolean;
  /** Drop flushes (cache mode unsafe). */
  readonly noFlush?: boolean;
  /** By default what `traceNewNodes` says. */
  readonly trace?: TraceSink | null | undefined;
  /** See BlockNode.pinned. */
  readonly pinned?: boolean;
  /** A filter that nobody asked for by name (QEMU's implicit nodes): it goes by the name of what it filters. */
  readonly implicit?: boolean;
  /** QEMU's node-name; the graph gives one to each of its nodes. */
  readonly nodeName?: string;
  /** Others may do anything to the node below meanwhile (QEMU's force-share). */
  readonly forceShare?: boolean;
  readonly origin?: NodeOrigin;
  readonly direct?: boolean;
  readonly detectZeroes?: DetectZeroes;
  /** `ignore`: discards end here, and zeroes stay allocated. Default `unmap`. */
  readonly discard?: 'ignore' | 'unmap';
}

/** What leads to a node again: its plain name, or the options that make a difference. */
export interface NodeOrigin {
  /** As they were given, without `driver` and children. */
  strong: Readonly<Record<string, unknown>>;
  /** What the driver itself is called (a file's name); null where only options lead to it, undefined where the child's name does. */
  readonly plainName?: string | null | undefined;
  /** Which backing file opens unasked: its full name. */
  autoBacking?: string | null | undefined;
  /** Holds the name of the file, in the options too. */
  readonly filename?: string | undefined;
  /** All options of the node itself, flat, as they were given: what a reopen compares with. */
  options?: ReadonlyMap<string, string | number | bigint | boolean | null> | undefined;
  /** The node that defined this one in place, and hands options down to it. */
  inheritsFrom?: BlockNode | undefined;
}

/** `reason`: what is said after "Node '…' is busy: ". */
export interface OperationBlocker {
  readonly reason: string;
}

/** Whether a write of zeros becomes write-zeroes, and may deallocate. */
export type DetectZeroes = 'off' | 'on' | 'unmap';

const UNGUARDED: readonly ChangeGuard[] = [];

export class BlockNode extends IoVerbs {
  /** How errors and traces call it: the file's name, mostly. */
  readonly name: string;
  readonly driver: BlockDriver;
  /** Changed by the graph only (reopen). */
  readOnly: boolean;
  readonly nodeName: string;
  readonly forceShare: boolean;
  readonly implicit: boolean;
  readonly origin: NodeOrigin | null;
  /** Past the host's page cache (O_DIRECT). */
  direct: boolean;
  detectZeroes: DetectZeroes;
  discardMode: 'ignore' | 'unmap';
  /** Who holds this node: edges of nodes above, and users' doors. Oldest first. */
  readonly parents = new Set<NodeUser>();
  /** Dirty bitmaps, and whoever else must know. */
  readonly writeObservers = new Set<WriteObserver>();
  /** Changed while the node is drained. */
  readonly changeGuards = new Set<ChangeGuard>();
  /** By name; those that the image keeps are among them. */
  readonly bitmaps: DirtyBitmaps;
  /** Why no command may change the node now, oldest first. */
  readonly blockers = new Set<OperationBlocker>();
  /** Held by its name in the graph, or by whoever made it: it stays open when the last parent lets go. */
  pinned: boolean;
  /** Who hears of every request; see `traceTo`. */
  trace: NodeTrace | null = null;
  /** Drop flushes. */
  noFlush: boolean;
  /** End of the farthest write so far. */
  writeHighestOffset = 0;
  /** Called once, when the node has closed. */
  onClosed: (() => void) | null = null;
  readonly #writethrough: boolean;
  #aligned!: AlignedIo | null;
  #inFlight = 0;
  /** Requests that have changed something, those of them that failed, and how things stood when the last flush that succeeded began. */
  #changes = 0;
  #failures = 0;
  #durable: { readonly changes: number; readonly failures: number; readonly length: number };
  #drainDepth = 0;
  #idleWaiters: (() => void)[] = [];
  #resumeWaiters: (() => void)[] = [];
  #closing: Promise<void> | null = null;

  constructor(options: BlockNodeOptions) {
    super();
    this.name = options.name;
    this.driver = options.driver;
    this.readOnly = options.readOnly ?? false;
    this.pinned = options.pinned ?? false;
    this.#writethrough = options.writethrough ?? false;
    this.noFlush = options.noFlush ?? false;
    this.nodeName = options.nodeName ?? '';
    this.forceShare = options.forceShare ?? false;
    this.implicit = options.implicit ?? false;
    this.origin = options.origin ?? null;
    this.direct = options.direct ?? false;
    this.detectZeroes = options.detectZeroes ?? 'off';
    this.discardMode = options.discard ?? 'unmap';
    this.#durable = { changes: 0, failures: 0, length: this.driver.length() };
    this.refreshLimits();
    this.traceTo(options.trace === undefined ? sinkOfNewNodes() : options.trace);
    for (const child of this.children) child.parent = this;
    this.bitmaps = this.driver.bitmapStore?.bitmaps ?? new DirtyBitmaps();
    for (const bitmap of this.driver.shownBitmaps ?? []) this.bitmaps.anonymous.add(bitmap);
    this.bitmaps.listenTo(this.writeObservers);
    if (options.trace !== null) events.log?.emit('bdrv_open_common', this, this.name, Number(!this.readOnly) * 2, this.driver.formatName);
  }

  /** After the driver's limits may have changed. On a drained node. */
  refreshLimits(): void {
    this.#aligned = needsPadding(this.driver.limits)
      ? new AlignedIo(this.driver, (request) => this.#issue(request), (request) => this.trace?.waits(request), (request, at) => this.trace?.splits(request, at))
      : null;
  }

  /** Tells another sink from now on, or none. */
  traceTo(sink: TraceSink | null): void {
    this.trace = sink === null ? null : new NodeTrace(sink, this, (request) => this.#aligned?.passes(request) ?? true);
  }

  /** The edges below, in order (file, backing). */
  get children(): readonly BlockChild[] { return this.driver.children ?? []; }
  get limits(): BlockLimits { return this.driver.limits; }
  get backing(): BlockNode | null { return this.driver.backing?.node ?? null; }
  /** As BlockDriver's: 0 where this node looks at data itself. */
  get pipeBytes(): number { return this.#aligned === null && this.detectZeroes === 'off' ? this.driver.pipeBytes ?? 0 : 0; }
  /** As BlockDriver's: 0 where a write may become something else here. */
  get fuaBytes(): number { return this.detectZeroes === 'off' ? this.driver.fuaBytes ?? 0 : 0; }
  get inFlight(): number { return this.#inFlight; }
  /** A drained section runs or is about to: requests wait. */
  get draining(): boolean { return this.#drainDepth > 0; }
  get closing(): boolean { return this.#closing !== null; }
  length(): number { return this.driver.length(); }

  /** Never throws: all errors are rejections. Returns DONE where the request ended at once. */
  override submit(request: BlockRequest): Promise<void> {
    if (this.trace !== null) this.trace.arrive(request);
    if (this.#drainDepth > 0) return this.#submitLater(request);
    try {
      this.#validate(request);
    } catch (error) {
      this.trace?.complete(request, error);
      return rejected(error);
    }
    if (request.pipe !== undefined && this.pipeBytes < request.bytes) request.pipe.spill();
    this.#inFlight++;
    if (events.log !== null) logRequest(events.log, this, request);
    const guards = this.changeGuards.size > 0 && request.op !== 'read' ? [...this.changeGuards] : UNGUARDED;
    const running = guards.length > 0 ? this.#beginGuarded(guards, request) : this.#begin(request);
    if (running !== DONE) return this.#finish(running, request, guards);
    if (this.trace !== null) this.trace.complete(request, null, true);
    this.#ended(request, UNGUARDED);
    return DONE;
  }

  #begin(request: BlockRequest): Promise<void> {
    if (this.writeObservers.size > 0 && isWrite(request)) for (const observer of this.writeObservers) observer.writes?.(request.offset, request.bytes);
    return this.#dispatch(request);
  }

  async #beginGuarded(guards: readonly ChangeGuard[], request: BlockRequest): Promise<void> {
    const ready = beginGuarded(guards, request);
    if (ready !== null) {
      this.trace?.waits(request);
      await ready;
    }
    await this.#begin(request);
  }

  async #submitLater(request: BlockRequest): Promise<void> {
    this.trace?.waits(request);
    while (this.#drainDepth > 0) await this.resumed();
    return this.submit(request);
  }

  async #finish(running: Promise<void>, request: BlockRequest, guards: readonly ChangeGuard[]): Promise<void> {
    try {
      await running;
    } catch (error) {
      if (isWrite(request)) this.#failures++;
      this.trace?.complete(request, error);
      throw error;
    } finally {
      this.trace?.complete(request, null);
      this.#ended(request, guards);
    }
  }

  #ended(request: BlockRequest, guards: readonly ChangeGuard[]): void {
    if (isWrite(request)) this.#tellWritten(request);
    endGuarded(guards, request);
    this.#leave();
  }

  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    this.#validateRange(offset, bytes, this.length());
    assert(bytes > 0, 'block status of no bytes');
    this.#inFlight++;
    try {
      return await this.driver.blockStatus(offset, bytes);
    } finally {
      this.#leave();
    }
  }

  /** Runs `section` while no request is in flight; new requests wait until it ends. Sections nest. */
  async drained<T>(section: () => Promise<T>): Promise<T> {
    this.#drainDepth++;
    // What waits on policy here or below would hold the section up
    const passing = [...driversUnder(this)].filter((driver) => driver.drainBegin !== undefined);
    for (const driver of passing) driver.drainBegin!();
    try {
      while (this.#inFlight > 0) await new Promise<void>((idle) => this.#idleWaiters.push(idle));
      return await section();
    } finally {
      this.#drainDepth--;
      for (const driver of passing) driver.drainEnd?.();
      if (this.#drainDepth === 0) for (const resume of this.#resumeWaiters.splice(0)) resume();
    }
  }

  /** Resolves when the drained section at hand ends; another may have begun by then. */
  resumed(): Promise<void> {
    return new Promise<void>((resume) => this.#resumeWaiters.push(resume));
  }

  /** Waits for requests in flight, closes the driver, then the children that nobody else holds; collects all errors, throws the first. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const errors: unknown[] = [];
    const { children } = this;
    await this.drained(async () => {
      await this.#flushLast().catch((error: unknown) => errors.push(error));
      await this.driver.close().catch((error: unknown) => errors.push(error));
    });
    for (const child of children) await child.detach().catch((error: unknown) => errors.push(error));
    this.onClosed?.();
    if (errors.length > 0) throw errors[0];
  }

  /**
   * Users who never asked for a flush hear at the end at the latest that their writes were lost. Amid a change of the graph
   * it would wait for what waits for the close: what lies below flushes when it closes itself. That an image is corrupt was
   * told to everybody already.
   */
  async #flushLast(): Promise<void> {
    const confirmed = this.#changes - this.#failures - (this.#durable.changes - this.#durable.failures);
    if (this.readOnly || this.noFlush || confirmed === 0 || isDrainingBelow(this)) return;
    await this.#flush(makeRequest('flush', 0, 0, null)).catch((error: unknown) => {
      if (!(error instanceof BlockError) || error.code !== 'CORRUPT') throw error;
    });
  }

  #validate(request: BlockRequest): void {
    if (this.#closing !== null) throw new BlockError('CLOSED', `'${this.name}' is closed`, { node: this.name });
    const { op } = request;
    if (op === 'flush') return;
    const writes = op !== 'read';
    if (writes && this.readOnly) {
      throw new BlockError('READ_ONLY', `'${this.name}' is read-only`, { node: this.name, offset: request.offset, bytes: request.bytes });
    }
    // A growable node has no end: a write extends it, a read finds zeros there
    this.#validateRange(request.offset, request.bytes, this.driver.growable ? Number.MAX_SAFE_INTEGER : this.length());
    assert(request.buffer === null || request.buffer.byteLength === request.bytes, `buffer length of ${op}`);
  }

  #validateRange(offset: number, bytes: number, limit: number): void {
    const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(bytes) && offset >= 0 && bytes >= 0 && bytes <= limit - offset;
    if (valid) return;
    throw new BlockError('OUT_OF_RANGE', `${formatRange(offset, bytes)} is outside '${this.name}', which has ${limit} bytes`,
      { node: this.name, offset, bytes, errno: 'EINVAL' });
  }

  #dispatch(request: BlockRequest): Promise<void> {
    if (request.bytes === 0 && request.op === 'read') return DONE;
    switch (request.op) {
      case 'read': return this.#aligned === null ? this.#issue(request) : this.#aligned.read(request);
      case 'write': return this.#writePersisting(request);
      case 'write-zeroes': {
        const writing = request.bytes === 0 ? DONE : this.#writeZeroes(request);
        return this.#mustPersist(request) ? this.#persist(writing, request) : writing;
      }
      case 'discard': return request.bytes === 0 || this.discardMode === 'ignore' ? DONE : this.#discard(request);
      case 'flush':
        this.#primary()?.debugEvent('flush_to_os');
        return this.noFlush || this.#isClean() ? DONE : this.#flush(request);
    }
  }

  /** Where data leaves the graph: nothing has changed since the last flush. Above, metadata may still have to go down. */
  #isClean(): boolean {
    return this.driver.kind === 'protocol' && this.#changes === this.#durable.changes && this.driver.length() === this.#durable.length;
  }

  async #flush(request: BlockRequest): Promise<void> {
    const covered = { changes: this.#changes, failures: this.#failures, length: this.driver.length() };
    await this.#issue(request);
    this.#durable = covered;
  }

  #writePersisting(request: BlockRequest): Promise<void> {
    const persist = this.#mustPersist(request);
    if (request.bytes > 0 && request.bytes <= this.fuaBytes) return this.#write(withFua(request, persist));
    const writing = request.bytes === 0 ? DONE : this.#write(request);
    return persist && !this.#lastsBelow(request) ? this.#persist(writing, request) : writing;
  }

  #write(request: BlockRequest): Promise<void> {
    const end = request.offset + request.bytes;
    if (end > this.writeHighestOffset) this.writeHighestOffset = end;
    if (this.detectZeroes !== 'off' && isZero(request.buffer!)) {
      const flags = request.flags | (this.detectZeroes === 'unmap' ? RequestFlag.MAY_UNMAP : 0);
      return this.#writeZeroes(remakeRequest(request, flags, 'write-zeroes', null));
    }
    if (this.#aligned === null) this.driver.debugEvent?.('pwritev');
    const writing = this.#aligned === null ? this.#issue(request) : this.#aligned.write(request);
    if (this.driver.debugEvent === undefined) return writing;
    if (writing !== DONE) return this.#announceEnd(writing);
    this.driver.debugEvent('pwritev_done');
    return DONE;
  }

  async #announceEnd(writing: Promise<void>): Promise<void> {
    try {
      await writing;
    } finally {
      this.driver.debugEvent?.('pwritev_done');
    }
  }

  /** FUA and writethrough. */
  #mustPersist(request: BlockRequest): boolean {
    return (this.#writethrough || (request.flags & RequestFlag.FUA) !== 0) && !this.noFlush;
  }

  /** The node below got the flag with all of the write, and persists it: one flush is enough. */
  #lastsBelow({ flags, bytes }: BlockRequest): boolean {
    return bytes > 0 && (flags & RequestFlag.FUA) !== 0 && this.driver.passesWrites === true && this.#aligned === null && this.detectZeroes === 'off';
  }

  /** Where the driver has no better way. */
  async #persist(writing: Promise<void>, request: BlockRequest): Promise<void> {
    await writing;
    await this.#issue(makePart(request, 'flush', 0, 0, null, 0, request.ioClass));
  }

  /** Where the driver's own data lies, as far as it lies in one node below. */
  #primary(): BlockChild | undefined {
    return this.driver.children?.find(({ role }) => role === 'file' || role === 'filtered');
  }

  async #writeZeroes(request: BlockRequest): Promise<void> {
    const end = request.offset + request.bytes;
    if (end > this.writeHighestOffset) this.writeHighestOffset = end;
    this.driver.debugEvent?.('pwritev_zero');
    try {
      const atDoor = (request.flags & RequestFlag.UNMAP_AT_DOOR) !== 0;
      if (atDoor) await this.#zeroParts(remakeRequest(request, request.flags - RequestFlag.UNMAP_AT_DOOR));
      else await this.#zeroParts(this.discardMode === 'unmap' ? request : withoutUnmap(request));
    } finally {
      this.driver.debugEvent?.('pwritev_done');
    }
  }

  async #zeroParts(request: BlockRequest): Promise<void> {
    const { maxZeroes = Infinity, zeroAlignment = 1 } = this.driver.limits;
    if (request.bytes <= maxZeroes && zeroAlignment === 1) return this.#zeroPart(request);
    for (const { part, whole } of deallocationParts(request, zeroAlignment, maxZeroes)) {
      if (whole) {
        await this.#zeroPart(part);
        continue;
      }
      if ((part.flags & RequestFlag.NO_FALLBACK) !== 0) {
        throw new BlockError('NOT_SUPPORTED', `'${this.name}' cannot zero ${formatRange(part.offset, part.bytes)} without writing the zeros`,
          { node: this.name, offset: part.offset, bytes: part.bytes, errno: 'ENOTSUP' });
      }
      await this.#writeExplicitZeroes(part);
    }
  }

  /** What is smaller than the driver's unit stays as it is: a discard is advice. */
  async #discard(request: BlockRequest): Promise<void> {
    const { maxDiscard = Infinity, discardAlignment = 1 } = this.driver.limits;
    if (request.bytes <= maxDiscard && discardAlignment === 1) return this.#deallocate(request);
    for (const { part, whole } of deallocationParts(request, discardAlignment, maxDiscard)) {
      if (whole) await this.#deallocate(part);
    }
  }

  async #zeroPart(request: BlockRequest): Promise<void> {
    try {
      await this.#deallocate(request);
    } catch (error) {
      if (!(error instanceof BlockError) || error.code !== 'NOT_SUPPORTED' || (request.flags & RequestFlag.NO_FALLBACK) !== 0) throw error;
      await this.#writeExplicitZeroes(request);
    }
  }

  async #writeExplicitZeroes(request: BlockRequest): Promise<void> {
    const zeros = new Uint8Array(Math.min(request.bytes, 1024 * 1024));
    for (let done = 0; done < request.bytes; done += zeros.byteLength) {
      const part = zeros.subarray(0, Math.min(zeros.byteLength, request.bytes - done));
      const write = makePart(request, 'write', request.offset + done, part.byteLength, part, 0, request.ioClass);
      await (this.#aligned === null ? this.#issue(write) : this.#aligned.write(write));
    }
  }

  #deallocate(request: BlockRequest): Promise<void> {
    return this.#aligned === null ? this.#issue(request) : this.#aligned.deallocate(request);
  }

  #issue(request: BlockRequest): Promise<void> {
    if (this.trace !== null) return this.trace.issue(this.driver, request);
    try {
      return this.driver.submit(request);
    } catch (error) {
      return rejected(error);
    }
  }

  #tellWritten(request: BlockRequest): void {
    this.#changes++;
    for (const observer of this.writeObservers) observer.wrote?.(request.offset, request.bytes, request);
  }

  #leave(): void {
    this.#inFlight--;
    if (this.#inFlight === 0 && this.#idleWaiters.length > 0) for (const idle of this.#idleWaiters.splice(0)) idle();
  }
}

/** Of the node and all below it. */
function driversUnder(node: BlockNode, seen = new Set<BlockDriver>()): ReadonlySet<BlockDriver> {
  if (seen.has(node.driver)) return seen;
  seen.add(node.driver);
  for (const child of node.children) driversUnder(child.node, seen);
  return seen;
}

function withFua(request: BlockRequest, fua: boolean): BlockRequest {
  const { FUA } = RequestFlag;
  const { flags } = request;
  return ((flags & FUA) !== 0) === fua ? request : remakeRequest(request, fua ? flags + FUA : flags - FUA);
}

function withoutUnmap(request: BlockRequest): BlockRequest {
  const { MAY_UNMAP } = RequestFlag;
  return (request.flags & MAY_UNMAP) === 0 ? request : remakeRequest(request, request.flags - MAY_UNMAP);
}

function isWrite({ op }: BlockRequest): boolean {
  return op !== 'read' && op !== 'flush';
}

function isDrainingBelow(node: BlockNode): boolean {
  return node.children.some(({ node: below }) => below.draining || isDrainingBelow(below));
}
