/** An NBD server of ours over a disk that the test holds in its hands. */
import { afterEach } from '@jest/globals';
import { BlockError } from '../../src/base/errors.js';
import { BlockBackend } from '../../src/block/backend.js';
import type { BlockDriver, BlockStatus } from '../../src/block/driver.js';
import { BlockNode } from '../../src/block/node.js';
import type { BlockRequest } from '../../src/block/request.js';
import type { NbdExport } from '../../src/nbd/export.js';
import { NbdServer, type NbdServerOptions } from '../../src/nbd/server.js';
import { MemoryDriver } from '../../src/protocol/memory.js';

/** Memory whose requests are counted, and can be held back or made to fail. */
export class HeldDriver implements BlockDriver {
  readonly kind = 'protocol';
  readonly formatName = 'memory';
  readonly growable = false;
  readonly #memory: MemoryDriver;
  #held: (() => void)[] | null = null;
  /** Requests that wait in `hold`. */
  waiting = 0;
  log: string[] = [];
  /** Questions for block status. */
  asked = 0;
  /** Thrown for these operations. */
  failure: { readonly op: BlockRequest['op'] | 'status'; readonly error: BlockError } | null = null;

  constructor(bytes: number, limits: Partial<BlockDriver['limits']> = {}) {
    this.#memory = new MemoryDriver({ bytes, growable: false, limits });
  }

  get limits(): BlockDriver['limits'] { return this.#memory.limits; }
  length(): number { return this.#memory.length(); }

  hold(): void { this.#held ??= []; }

  letGo(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const go of held) go();
  }

  async submit(request: BlockRequest): Promise<void> {
    this.log.push(`${request.op} ${request.offset} ${request.bytes} ${request.flags}`);
    if (this.#held !== null) {
      this.waiting++;
      await new Promise<void>((go) => this.#held!.push(go));
      this.waiting--;
    }
    if (this.failure?.op === request.op) throw this.failure.error;
    await this.#memory.submit(request);
  }

  async blockStatus(offset: number, bytes: number): Promise<BlockStatus> {
    this.asked++;
    if (this.failure?.op === 'status') throw this.failure.error;
    return this.#memory.blockStatus(offset, bytes);
  }

  async close(): Promise<void> {}
}

export function ioError(errno: string): BlockError {
  return new BlockError('IO', `the disk failed with ${errno}`, { errno });
}

export interface Served {
  readonly server: NbdServer;
  readonly disk: HeldDriver;
  readonly problems: string[];
}

export function exportOf(driver: BlockDriver, options: Partial<NbdExport> = {}): NbdExport {
  const node = new BlockNode({ name: 'disk', driver, readOnly: options.readOnly ?? false });
  return {
    name: '', description: null, backend: new BlockBackend('export', node), readOnly: false, multiConn: true, bitmaps: [], allocationDepth: false, ...options,
  };
}

/** Starts a server with one export at a unix socket; all that were started are closed after the test. */
export function useServed(): (path: string, options?: NbdServerOptions, bytes?: number, exported?: Partial<NbdExport>) => Promise<Served> {
  const started: Served[] = [];
  afterEach(async () => {
    for (const { server, disk } of started.splice(0)) {
      disk.letGo();
      await server.close();
    }
  });
  return async (path, options = {}, bytes = 1024 * 1024, exported = {}) => {
    const disk = new HeldDriver(bytes);
    const problems: string[] = [];
    const server = new NbdServer({ closeTimeoutMs: 200, onProblem: (why) => problems.push(why), ...options });
    server.addExport(exportOf(disk, exported));
    await server.listen({ unix: path });
    const served = { server, disk, problems };
    started.push(served);
    return served;
  };
}

/** Waits until something is so; the test's timeout is the limit. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** Lets all that is under way on sockets and in promises happen. */
export async function settled(ms = 50): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

/** A clock whose sleepers wake when the test says so. */
export class ManualClock {
  #now = 0;
  #sleepers: { readonly at: number; readonly wake: () => void }[] = [];

  wallMs(): number { return this.#now; }
  monotonicMs(): number { return this.#now; }
  get sleepers(): number { return this.#sleepers.length; }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted === true) return resolve();
      const sleeper = { at: this.#now + ms, wake: resolve };
      this.#sleepers.push(sleeper);
      signal?.addEventListener('abort', () => {
        this.#sleepers = this.#sleepers.filter((one) => one !== sleeper);
        resolve();
      });
    });
  }

  advance(ms: number): void {
    this.#now += ms;
    const due = this.#sleepers.filter(({ at }) => at <= this.#now);
    this.#sleepers = this.#sleepers.filter(({ at }) => at > this.#now);
    for (const { wake } of due) wake();
  }
}
