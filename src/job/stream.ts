/**
 * block-stream: an image takes over what the images below it have, by reading it through a copy-on-read filter; then it
 * lies on the base, or on nothing. What was taken over stays valid however the job ends.
 */
import { BlockError } from '../base/errors.js';
import type { BlockBackend } from '../block/backend.js';
import type { BlockGraph } from '../block/graph.js';
import { BlockNode } from '../block/node.js';
import { NO_USE, Permission } from '../block/permissions.js';
import { makeRequest, RequestFlag } from '../block/request.js';
import { chainStatus } from '../block/status.js';
import { writeOutEarly } from '../block/write-out.js';
import { CopyOnReadFilter } from '../filter/copy-on-read.js';
import { filteredNode, findOverlay, freezeChain, nextImage, nodeBelow, skipFilters } from '../image/chain.js';
import { backingRecord, replaceBacking } from '../image/chain-edit.js';
import { insertFilter, removeFilter } from '../image/graph-edit.js';
import { setReadOnly } from '../image/read-only.js';
import type { BlockJob, BlockJobs, OnError } from './block-job.js';
import { jobFailure } from './failure.js';
import type { JobContext, JobWork } from './job.js';
import { PieceRun, type Piece } from './pieces.js';

export interface StreamOptions {
  readonly jobId: string;
  /** Takes over what lies below it. */
  readonly node: BlockNode;
  /** Stays below it. Default: nothing does. */
  readonly base?: BlockNode | null | undefined;
  /** Instead of `base`: the last image that is taken over, no filter. */
  readonly bottom?: BlockNode | undefined;
  /** What the image is to call its backing file. Default: as the base is called. */
  readonly backingFile?: string | undefined;
  /** Bytes per second; 0 = no limit. */
  readonly speed?: number | undefined;
  /** `ignore` goes on, fails at the end, and keeps the backing file. */
  readonly onError?: OnError | undefined;
  readonly filterNodeName?: string | undefined;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
}

/** Begins the job; refused as QEMU refuses it. */
export async function startStream(graph: BlockGraph, jobs: BlockJobs, options: StreamOptions): Promise<BlockJob> {
  const { jobId, speed, autoFinalize, autoDismiss } = options;
  const work = new Stream(graph, options);
  try {
    await work.insertFilter();
    const blockJob = jobs.create({ id: jobId, type: 'stream', speed, autoFinalize, autoDismiss }, (self) => work.of(self));
    try {
      await work.holdNodes();
    } catch (error) {
      blockJob.job.failEarly();
      throw error;
    }
    blockJob.job.start();
    return blockJob;
  } catch (error) {
    await work.giveUp();
    throw error;
  }
}

class Stream implements JobWork {
  readonly completable = false;
  readonly #graph: BlockGraph;
  readonly #options: StreamOptions;
  readonly #wasReadOnly: boolean;
  /** The image itself, below filters on it. */
  readonly #image: BlockNode;
  /** The last image that is taken over, and the last node above the base: that image, or a filter of the base. */
  readonly #last: BlockNode;
  readonly #aboveBase: BlockNode;
  #self: BlockJob | null = null;
  #filter: BlockNode | null = null;
  #door: BlockBackend | null = null;
  #thaw: () => void = () => undefined;
  #run: PieceRun<Piece> | null = null;
  #firstError: BlockError | null = null;

  constructor(graph: BlockGraph, options: StreamOptions) {
    const { node, base = null, bottom } = options;
    this.#graph = graph;
    this.#options = options;
    this.#wasReadOnly = node.readOnly;
    this.#image = skipFilters(node);
    const last = bottom ?? findOverlay(node, base);
    if (last === null) throw new BlockError('INVALID_ARGUMENT', `'${base?.nodeName ?? ''}' is not in the backing chain of '${node.nodeName}'`);
    this.#last = last;
    this.#aboveBase = bottom ?? lastAbove(last, base);
  }

  of(self: BlockJob): this {
    this.#self = self;
    return this;
  }

  /** The base as it is now: others may have put something over it. */
  get #base(): BlockNode | null { return nodeBelow(this.#aboveBase); }

  async insertFilter(): Promise<void> {
    const { node, filterNodeName } = this.#options;
    const graph = this.#graph;
    if (this.#wasReadOnly) await setReadOnly(graph, node, false);
    const nodeName = takeName(graph, filterNodeName);
    const filter = new BlockNode({
      name: node.name, nodeName, implicit: filterNodeName === undefined, driver: new CopyOnReadFilter({ child: node, bottom: this.#last === this.#image ? null : this.#last }),
    });
    graph.add(filter);
    try {
      await graph.refresh([filter]);
      await insertFilter(graph, node, filter);
    } catch (error) {
      await filter.close();
      throw error;
    }
    this.#filter = filter;
  }

  async holdNodes(): Promise<void> {
    const graph = this.#graph;
    const self = this.#self!;
    const { CONSISTENT_READ, WRITE_UNCHANGED, WRITE } = Permission;
    const shared = CONSISTENT_READ | WRITE_UNCHANGED;
    await self.addNode(graph, 'main node', this.#filter!, NO_USE);
    this.#door = await graph.attach(this.#filter!, { used: CONSISTENT_READ, shared: shared | WRITE });
    this.#door.task = self.task;
    await self.addNode(graph, 'active node', this.#options.node, { used: 0, shared: shared | WRITE });
    const base = this.#base;
    this.#thaw = freezeChain(this.#options.node, this.#aboveBase);
    for (let node = nodeBelow(this.#options.node); node !== null && node !== base; node = nodeBelow(node)) {
      await self.addNode(graph, 'intermediate node', node, { used: 0, shared });
    }
  }

  async run(context: JobContext): Promise<void> {
    if (this.#image === this.#last) return; // nothing lies between it and the base
    const length = this.#options.node.length();
    const writtenOut = writeOutEarly(this.#image);
    try {
      this.#run = new PieceRun(this.#self!, context, length, {
        look: (offset, bytes) => this.#look(offset, bytes, length),
        copy: ({ offset, bytes }) => this.#door!.submit(makeRequest('read', offset, bytes, null, RequestFlag.PREFETCH, 'background')),
        failed: (error) => this.#failed(error),
      });
      await this.#run.run();
      if (this.#firstError !== null) throw this.#firstError;
    } catch (error) {
      throw error instanceof BlockError && error.code === 'CANCELLED' ? error : jobFailure(error);
    } finally {
      writtenOut();
    }
  }

  beforePause(): Promise<void> {
    return this.#run?.settled() ?? Promise.resolve();
  }

  async #look(offset: number, bytes: number, length: number): Promise<Piece> {
    const own = await this.#filter!.children[0]!.blockStatus(offset, bytes);
    if (own.kind !== 'unallocated') return { offset, bytes: own.bytes, copy: false };
    const first = nextImage(this.#image)!;
    while (first.draining) await first.resumed();
    const status = await chainStatus(first, offset, own.bytes, this.#last);
    if (status.pastEnd !== true) return { offset, bytes: status.bytes, copy: status.kind !== 'unallocated' };
    // Zeros, by the end of a layer. Below the base's end they must be in the image, for the base has something else there
    const hidden = Math.max(0, (this.#base?.length() ?? 0) - offset);
    if (status.depth > 0) return { offset, bytes: status.bytes, copy: true };
    return hidden > 0 ? { offset, bytes: Math.min(status.bytes, hidden), copy: true } : { offset, bytes: length - offset, copy: false };
  }

  #failed(error: unknown): 'again' | 'skip' {
    const action = this.#self!.onError(this.#options.onError ?? 'report', 'read', error);
    if (action === 'stop') return 'again';
    this.#firstError ??= jobFailure(error);
    if (action === 'report') throw error;
    return 'skip';
  }

  /** All is in the image: it lies on the base from now on. */
  async prepare(): Promise<void> {
    const { backingFile } = this.#options;
    try {
      await this.#removeFilter();
      const base = this.#base;
      await replaceBacking(this.#graph, this.#image, base, base === null ? null : backingRecord(this.#image, base, backingFile));
    } catch (error) {
      throw jobFailure(error);
    }
  }

  async clean(): Promise<void> {
    await this.#removeFilter();
    if (this.#self?.job.autoDismiss === true) await this.#self.releaseNodes(this.#graph);
    if (this.#wasReadOnly) await setReadOnly(this.#graph, this.#options.node, true);
  }

  async dismissed(): Promise<void> {
    await this.#self?.releaseNodes(this.#graph);
  }

  /** After a failed start. */
  async giveUp(): Promise<void> {
    await this.dismissed();
    await this.clean();
  }

  async #removeFilter(): Promise<void> {
    this.#thaw();
    const door = this.#door;
    const filter = this.#filter;
    this.#door = null;
    this.#filter = null;
    if (door !== null) await this.#graph.detach(door);
    if (filter !== null) await removeFilter(this.#graph, filter);
  }
}

function lastAbove(last: BlockNode, base: BlockNode | null): BlockNode {
  let above = last;
  if (above.backing !== base) {
    above = above.backing!;
    while (filteredNode(above) !== base) above = filteredNode(above)!;
  }
  return above;
}

function takeName(graph: BlockGraph, wanted: string | undefined): string {
  try {
    return graph.takeName(wanted);
  } catch (error) {
    throw error instanceof BlockError ? new BlockError(error.code, `Could not create node: ${error.message}`) : error;
  }
}
