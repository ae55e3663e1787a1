/** Disks in memory whose requests take effect late, in any order, and can be held, failed and watched: where races of jobs and guests are tried. */
import { type BlockBackend, BlockGraph, BlockNode, makeRequest, MemoryDriver, Permission, Random, RequestFlag, type BlockRequest } from '../../src/index.js';
import type { Clock } from '../../src/base/clock.js';
import type { BlockDriver, BlockLimits, BlockStatus } from '../../src/block/driver.js';
import { BlockJobs } from '../../src/job/block-job.js';
import type { JobStatus } from '../../src/job/job-states.js';
import { JobTable } from '../../src/job/job-table.js';

export interface LabDiskOptions {
  readonly bytes: number;
  /** Turns of the event loop that a request takes at most; 0 = it ends at once. Default 3. */
  readonly turns?: number;
  readonly seed?: number;
  /** Writes past the end extend it, as where an image format lies on it. Default false. */
  readonly growable?: boolean;
}

export class LabDisk implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName = 'memory';
  readonly growable: boolean;
  readonly limits: BlockLimits = { requestAlignment: 1, memoryAlignment: 1, maxTransfer: Infinity };
  readonly memory: MemoryDriver;
  /** What it was asked, in order. */
  readonly log: BlockRequest[] = [];
  /** Throws what the request is to fail with. */
  fault: ((request: BlockRequest) => void) | null = null;
  /** Runs before the request takes effect, and may take its time. */
  before: ((request: BlockRequest) => Promise<void> | void) | null = null;
  inFlight = 0;
  /** Of memory that is lent to it. */
  bytesInFlight = 0;
  mostBytesInFlight = 0;
  mostInFlight = 0;
  readonly #random: Random;
  readonly #turns: number;

  constructor({ bytes, turns = 3, seed = 1, growable = false }: LabDiskOptions) {
    this.growable = growable;
    this.memory = new MemoryDriver({ bytes, growable });
    this.#turns = turns;
    this.#random = new Random(seed);
  }

  length(): number { return this.memory.length(); }

  async submit(request: BlockRequest): Promise<void> {
    this.log.push(request);
    this.inFlight++;
    this.bytesInFlight += request.buffer?.byteLength ?? 0;
    this.mostInFlight = Math.max(this.mostInFlight, this.inFlight);
    this.mostBytesInFlight = Math.max(this.mostBytesInFlight, this.bytesInFlight);
    try {
      await this.before?.(request);
      await this.#wait();
      this.fault?.(request);
      await this.memory.submit(request);
      await this.#wait();
    } finally {
      this.inFlight--;
      this.bytesInFlight -= request.buffer?.byteLength ?? 0;
    }
  }

  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    await this.#wait();
    const status = await this.memory.blockStatus(offset, bytes);
    await this.#wait();
    return status;
  }

  resize = (bytes: number): Promise<void> => this.memory.resize(bytes);

  async close(): Promise<void> {}

  async #wait(): Promise<void> {
    if (this.#turns === 0) return;
    for (let left = this.#random.below(this.#turns + 1); left > 0; left--) await turn();
  }

  /** What it holds in this moment. */
  content(): Buffer {
    const all = Buffer.alloc(this.length());
    if (all.byteLength > 0) void this.memory.submit(makeRequest('read', 0, all.byteLength, all)); // fills it before it returns
    return all;
  }
}

export function turn(): Promise<void> {
  return new Promise((resolve) => { setImmediate(resolve); });
}

export class JobLab {
  readonly graph = new BlockGraph({ randomBelow: () => 0 });
  /** Statuses and events, as they came. */
  readonly seen: string[] = [];
  readonly jobs: BlockJobs;
  /** Hears of each status in the moment in which a job takes it. */
  onStatus: ((id: string, status: JobStatus) => void) | null = null;

  constructor(clock?: Clock) {
    const table = new JobTable(({ id, status }) => {
      this.seen.push(`${id} ${status}`);
      this.onStatus?.(id, status);
    });
    this.jobs = new BlockJobs(table, { emit: (event, data) => this.seen.push(`${event} ${JSON.stringify(data)}`) }, clock);
  }

  /** A node that stays until it is removed. */
  add(nodeName: string, driver: BlockDriver, options: { readonly discard?: 'ignore' | 'unmap' } = {}): BlockNode {
    const name = this.graph.takeName(nodeName);
    const node = new BlockNode({ name, nodeName: name, driver, pinned: true, discard: options.discard ?? 'unmap' });
    this.graph.add(node);
    return node;
  }

  /** A guest's door, as an export has it. */
  guest(node: BlockNode): Promise<BlockBackend> {
    return this.graph.attach(node, { used: Permission.CONSISTENT_READ | Permission.WRITE, shared: Permission.ALL & ~Permission.RESIZE });
  }

  count(event: string): number {
    return this.seen.filter((line) => line === event || line.startsWith(`${event} `)).length;
  }
}

/** Writes, zeroes, discards and reads at random, several at once, until it is stopped. */
export class RandomGuest {
  readonly #door: BlockBackend;
  readonly #random: Random;
  readonly #running: Promise<void>[] = [];
  #stopped = false;
  operations = 0;
  errors = 0;

  constructor(door: BlockBackend, seed: number, { requests = 4, unaligned = true, maxBytes = 128 * 1024, pauseTurns = 2 } = {}) {
    this.#door = door;
    this.#random = new Random(seed);
    for (let index = 0; index < requests; index++) this.#running.push(this.#run(unaligned, maxBytes, pauseTurns));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
  }

  async #run(unaligned: boolean, maxBytes: number, pauseTurns: number): Promise<void> {
    while (!this.#stopped) {
      await this.#one(unaligned, maxBytes).catch(() => { this.errors++; });
      this.operations++;
      for (let left = this.#random.below(pauseTurns + 1); left >= 0; left--) await turn();
    }
  }

  async #one(unaligned: boolean, maxBytes: number): Promise<void> {
    const random = this.#random;
    const unit = unaligned && random.chance(0.5) ? 1 : 4096;
    const length = this.#door.node.length();
    const bytes = Math.max(unit, Math.floor(random.below(Math.min(maxBytes, length)) / unit) * unit);
    const offset = Math.floor(random.below(length - bytes + 1) / unit) * unit;
    const kind = random.below(10);
    if (kind < 6) {
      const data = Buffer.alloc(bytes, random.below(255) + 1);
      await this.#door.submit(makeRequest('write', offset, bytes, data));
      data.fill(0xee); // it is ours again
      return;
    }
    if (kind < 8) return this.#door.submit(makeRequest('write-zeroes', offset, bytes, null, random.chance(0.5) ? RequestFlag.MAY_UNMAP : 0));
    if (kind === 8) return this.#door.submit(makeRequest('discard', offset, bytes, null));
    return this.#door.submit(makeRequest('read', offset, bytes, Buffer.alloc(bytes)));
  }
}
