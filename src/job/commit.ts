/**
 * block-commit of images that nobody writes to: what lies above the base is copied into it, then the chain goes without
 * the images between. The guest reads and writes meanwhile, above.
 */
import { BlockError } from '../base/errors.js';
import type { BlockBackend } from '../block/backend.js';
import { BlockChild } from '../block/child.js';
import type { BlockGraph } from '../block/graph.js';
import { BlockNode } from '../block/node.js';
import { NO_USE, Permission } from '../block/permissions.js';
import { makeRequest, RequestFlag } from '../block/request.js';
import { chainStatus } from '../block/status.js';
import { writeOutEarly } from '../block/write-out.js';
import { InterceptFilter } from '../filter/intercept.js';
import { findOverlay, freezeChain, nodeBelow, skipFilters } from '../image/chain.js';
import { dropIntermediate } from '../image/chain-edit.js';
import { insertFilter, removeFilter } from '../image/graph-edit.js';
import { setReadOnly } from '../image/read-only.js';
import type { BlockJob, BlockJobs, OnError } from './block-job.js';
import { jobFailure } from './failure.js';
import type { JobContext, JobWork } from './job.js';
import { PieceRun, type Piece } from './pieces.js';

export interface CommitOptions {
  readonly jobId: string;
  /** The node that users hold, above `top`. */
  readonly active: BlockNode;
  /** The uppermost image that goes; nobody writes to it. */
  readonly top: BlockNode;
  /** Below `top`: what all goes into. It grows where it is smaller. */
  readonly base: BlockNode;
  /** What the image above `top` is to call its backing file. Default: as `base` is called. */
  readonly backingFile?: string | undefined;
  /** Bytes per second; 0 = no limit. */
  readonly speed?: number | undefined;
  readonly onError?: OnError | undefined;
  readonly filterNodeName?: string | undefined;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
}

/** Begins the job; refused as QEMU refuses it. */
export async function startCommit(graph: BlockGraph, jobs: BlockJobs, options: CommitOptions): Promise<BlockJob> {
  const { jobId, top, base, speed, autoFinalize, autoDismiss } = options;
  if (skipFilters(top) === skipFilters(base)) throw new BlockError('INVALID_ARGUMENT', 'Invalid files for merge: top and base are the same');
  const made = { work: null as Commit | null };
  const blockJob = jobs.create({ id: jobId, type: 'commit', speed, autoFinalize, autoDismiss }, (self) => (made.work = new Commit(self, graph, options)));
  const work = made.work!;
  try {
    await work.setUp();
  } catch (error) {
    blockJob.job.failEarly();
    await work.giveUp();
    throw error;
  }
  blockJob.job.start();
  return blockJob;
}

interface CommitPiece extends Piece {
  readonly zero: boolean;
}

class Commit implements JobWork {
  readonly completable = false;
  readonly #self: BlockJob;
  readonly #graph: BlockGraph;
  readonly #options: CommitOptions;
  readonly #onError: OnError;
  readonly #baseWasReadOnly: boolean;
  /** The lowest image that goes. */
  readonly #baseOverlay: BlockNode;
  #filter: BlockNode | null = null;
  #baseDoor: BlockBackend | null = null;
  #topDoor: BlockBackend | null = null;
  #thaw: () => void = () => undefined;
  #run: PieceRun<CommitPiece> | null = null;
  /** Resolves when the write of the latest piece has begun. */
  #lastWrite: Promise<void> = Promise.resolve();

  constructor(self: BlockJob, graph: BlockGraph, options: CommitOptions) {
    this.#self = self;
    this.#graph = graph;
    this.#options = options;
    this.#onError = options.onError ?? 'report';
    this.#baseWasReadOnly = options.base.readOnly;
    this.#baseOverlay = findOverlay(options.top, options.base)!;
  }

  async setUp(): Promise<void> {
    const { active, top, base, filterNodeName } = this.#options;
    const graph = this.#graph;
    await this.#self.addNode(graph, 'main node', active, NO_USE);
    if (this.#baseWasReadOnly) await setReadOnly(graph, base, false);
    this.#filter = await this.#insertFilter(top, filterNodeName);
    const filteredBase = this.#baseOverlay.backing;
    let shared: number = Permission.WRITE_UNCHANGED | Permission.WRITE;
    for (let node: BlockNode | null = top; node !== null && node !== base; node = nodeBelow(node)) {
      // from here on there are only filters of the base, which is whole at any time
      if (node === filteredBase) shared |= Permission.CONSISTENT_READ;
      await this.#self.addNode(graph, 'intermediate node', node, { used: 0, shared });
    }
    this.#thaw = freezeChain(this.#filter, base);
    await this.#self.addNode(graph, 'base', base, NO_USE);
    const { CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE } = Permission;
    this.#baseDoor = await graph.attach(base, {
      used: CONSISTENT_READ | WRITE | (base.length() < top.length() ? RESIZE : 0), shared: CONSISTENT_READ | WRITE_UNCHANGED,
    });
    this.#topDoor = await graph.attach(top, NO_USE);
    this.#baseDoor.task = this.#topDoor.task = this.#self.task;
  }

  /** Over the top, so that nobody needs what lies between it and the base to be whole. */
  async #insertFilter(top: BlockNode, wanted: string | undefined): Promise<BlockNode> {
    const graph = this.#graph;
    const nodeName = graph.takeName(wanted);
    const filter = new BlockNode({
      name: top.name, nodeName, readOnly: true, implicit: wanted === undefined,
      driver: new InterceptFilter({ child: top, formatName: 'commit_top', childUse: () => NO_USE }),
    });
    graph.add(filter);
    try {
      await insertFilter(graph, top, filter);
    } catch (error) {
      await filter.close();
      throw error;
    }
    return filter;
  }

  async run(context: JobContext): Promise<void> {
    const { top, base } = this.#options;
    const length = top.length();
    const writtenOut = writeOutEarly(base);
    try {
      if (base.length() < length) await this.#growBase(length);
      this.#run = new PieceRun(this.#self, context, length, {
        look: (offset, bytes) => this.#look(offset, bytes),
        copy: (piece, buffer) => this.#copy(piece, buffer),
        failed: (error) => this.#failed(error),
      });
      await this.#run.run();
      await this.#hideTail(length);
    } catch (error) {
      throw error instanceof BlockError && error.code === 'CANCELLED' ? error : jobFailure(error);
    } finally {
      writtenOut();
    }
  }

  beforePause(): Promise<void> {
    return this.#run?.settled() ?? Promise.resolve();
  }

  async #growBase(length: number): Promise<void> {
    const { base } = this.#options;
    const resize = base.driver.resize;
    if (resize === undefined) throw new BlockError('NOT_SUPPORTED', `'${base.name}' cannot grow`, { node: base.name, errno: 'ENOTSUP' });
    await base.drained(() => resize(length));
    base.bitmaps.resize(base.length());
  }

  /**
   * An image above the top that is longer than it has zeros beyond the top's end, and would have the base's data there
   * once it lies on a longer base.
   */
  async #hideTail(length: number): Promise<void> {
    const { base } = this.#options;
    const lengths = [...this.#filter!.parents].map((user) => (user instanceof BlockChild ? user.parent?.length() ?? 0 : 0));
    const end = Math.min(base.length(), Math.max(0, ...lengths));
    if (end > length) await this.#baseDoor!.submit(makeRequest('write-zeroes', length, end - length, null, RequestFlag.OWN_ZEROES, 'background'));
  }

  async #look(offset: number, bytes: number): Promise<CommitPiece> {
    const status = await chainStatus(this.#topDoor!.node, offset, bytes, this.#baseOverlay);
    // the end of a layer hides what is below it
    const short = status.pastEnd === true && status.depth > 0;
    return { offset, bytes: status.bytes, copy: short || status.kind !== 'unallocated', zero: short || status.kind === 'zero' };
  }

  /** Pieces are read side by side, and their writes begin in their order. */
  async #copy({ offset, bytes, zero }: CommitPiece, buffer: Uint8Array): Promise<void> {
    const before = this.#lastWrite;
    let begun = (): void => undefined;
    this.#lastWrite = new Promise((resolve) => { begun = resolve; });
    try {
      if (!zero) await this.#topDoor!.submit(makeRequest('read', offset, bytes, buffer, 0, 'background'));
      await before;
      const write = zero ? makeRequest('write-zeroes', offset, bytes, null, RequestFlag.OWN_ZEROES, 'background') : makeRequest('write', offset, bytes, buffer, 0, 'background');
      const writing = this.#baseDoor!.submit(write);
      begun();
      await writing.catch((error: unknown) => { throw new WriteFailed(error); });
    } finally {
      begun();
    }
  }

  #failed(error: unknown): 'again' {
    const write = error instanceof WriteFailed;
    const cause = write ? error.cause : error;
    if (this.#self.onError(this.#onError, write ? 'write' : 'read', cause) === 'report') throw cause;
    return 'again';
  }

  /** All is in the base: the chain goes without what lies above it. */
  async prepare(): Promise<void> {
    const { base, backingFile } = this.#options;
    this.#thaw();
    try {
      await base.flush();
      await this.#closeDoor('base');
      await dropIntermediate(this.#graph, this.#filter!, base, backingFile);
    } catch (error) {
      throw jobFailure(error);
    }
    // nobody holds the filter any more
    const filter = this.#filter!;
    this.#filter = null;
    await filter.close();
    await this.#graph.refresh([this.#options.top]);
  }

  async abort(): Promise<void> {
    this.#thaw();
    await this.#closeDoor('base');
    await this.#self.releaseNodes(this.#graph);
    const filter = this.#filter;
    this.#filter = null;
    if (filter !== null) await removeFilter(this.#graph, filter);
  }

  async clean(): Promise<void> {
    await this.#closeDoor('base');
    await this.#closeDoor('top');
    // a client that can ask for the job finds its nodes in use
    if (this.#self.job.autoDismiss) await this.#self.releaseNodes(this.#graph);
    if (this.#baseWasReadOnly && !this.#options.base.closing) await setReadOnly(this.#graph, this.#options.base, true);
  }

  dismissed(): Promise<void> {
    return this.#self.releaseNodes(this.#graph);
  }

  /** After a failed `setUp`. */
  async giveUp(): Promise<void> {
    await this.abort();
    await this.clean();
    await this.dismissed();
  }

  async #closeDoor(which: 'base' | 'top'): Promise<void> {
    const door = which === 'base' ? this.#baseDoor : this.#topDoor;
    if (which === 'base') this.#baseDoor = null;
    else this.#topDoor = null;
    if (door !== null) await this.#graph.detach(door);
  }
}

class WriteFailed extends Error {
  constructor(cause: unknown) { super('write', { cause }); }
}
