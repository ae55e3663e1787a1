/** A daemon that serves a disk to a client that writes 1 KiB after the other for ever, while the disk is mirrored to a server that limits, or stops answering. */
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { afterEach, expect } from '@jest/globals';
import { NbdClient, QmpClient, Random } from '../../src/index.js';
import { sleep, waitFor } from './cli.js';
import { kill, start, storageDaemonLauncher } from './run.js';

export const TARGET_RATE = 5e6;
const BLOCK = 1024;
const FILL = 0x55;

/** What a mirror in copy mode auto tells of itself, as QMP has it. */
export interface Told {
  readonly phase: string;
  readonly 'copy-mode': string;
  readonly dirty: number;
  readonly 'copy-rate': number;
  readonly 'dirty-rate': number;
  readonly 'guest-rate'?: number;
  readonly eta?: number;
  readonly deadline?: number;
  readonly converges?: boolean;
}

export interface JobTold {
  readonly device: string;
  readonly ready: boolean;
  readonly offset: number;
  readonly len: number;
  readonly status: string;
  readonly 'x-quiesce-convergence'?: Told;
}

/** The loop of the founding mail, in several guests: small writes, one after the other, each at another place. It knows what the disk holds. */
export class FoundingLoop {
  readonly #client: NbdClient;
  readonly #random = new Random(11);
  readonly #model: Buffer;
  readonly #running: Promise<unknown>;
  #stopped = false;
  writes = 0;
  /** Milliseconds that the slowest write took since this was set to 0. */
  slowestMs = 0;
  /** When each guest's last write began. */
  readonly #beganMs: number[];

  private constructor(client: NbdClient, guests: number) {
    this.#client = client;
    this.#model = Buffer.alloc(client.size, FILL);
    this.#beganMs = new Array<number>(guests).fill(performance.now());
    this.#running = Promise.all(this.#beganMs.map((_, guest) => this.#run(guest)));
    this.#running.catch(() => undefined); // told by `stop`
  }

  static async start(socket: string, guests = 4): Promise<FoundingLoop> {
    return new FoundingLoop(await NbdClient.open({ address: { type: 'unix', path: socket }, exportName: 'disk' }), guests);
  }

  /** For how long the oldest write under way has been. */
  get waitingMs(): number { return performance.now() - Math.min(...this.#beganMs); }

  /** Each guest has blocks of its own. */
  async #run(guest: number): Promise<void> {
    const guests = this.#beganMs.length;
    while (!this.#stopped) {
      const at = (this.#random.below(this.#client.size / BLOCK / guests) * guests + guest) * BLOCK;
      const data = Buffer.alloc(BLOCK, 1 + this.#random.below(255));
      const beganMs = this.#beganMs[guest] = performance.now();
      await this.#client.write(at, data);
      this.slowestMs = Math.max(this.slowestMs, performance.now() - beganMs);
      data.copy(this.#model, at);
      this.writes++;
    }
  }

  /** Ends after the write under way, and flushes; the disk is then what it was told to be. */
  async stop(): Promise<Buffer> {
    this.#stopped = true;
    await this.#running;
    const content = Buffer.alloc(this.#client.size);
    await this.#client.flush();
    for (let at = 0; at < content.byteLength; at += 1 << 20) await this.#client.read(at, content.subarray(at, Math.min(at + (1 << 20), content.byteLength)));
    await this.#client.close();
    expect(content.equals(this.#model)).toBe(true);
    return this.#model;
  }
}

/** What one small write makes dirty. */
const GRANULE = 64 * 1024;
/** Of the granules that the mirror copies, so many does the guest make dirty again: more than half, less than all. */
const FOLLOWED = 0.75;
/** Granules that it makes up for at most, after it did not get to run. */
const MOST_BEHIND = 16;

/** A guest that goes behind a mirror's copying and makes dirty again what was copied, at a part of its speed, whatever that is: so its rate in the mirror's eyes does not hang on the machine's. */
export class FollowingGuest {
  readonly #client: NbdClient;
  readonly #lab: ConvergeLab;
  readonly #running: Promise<void>;
  #stopped = false;

  private constructor(lab: ConvergeLab, client: NbdClient) {
    this.#lab = lab;
    this.#client = client;
    this.#running = this.#run();
    this.#running.catch(() => undefined); // told by `stop`
  }

  /** Follows the next job of the lab's daemon. */
  static async start(lab: ConvergeLab): Promise<FollowingGuest> {
    return new FollowingGuest(lab, await NbdClient.open({ address: { type: 'unix', path: lab.nbd }, exportName: 'disk' }));
  }

  async #run(): Promise<void> {
    const granules = this.#client.size / GRANULE;
    let next = 0;
    while (!this.#stopped) {
      const [job] = await this.#lab.qmp.execute('query-block-jobs') as JobTold[];
      const due = Math.floor((job?.offset ?? 0) / GRANULE * FOLLOWED);
      next = Math.max(next, due - MOST_BEHIND);
      const writes: Promise<void>[] = [];
      for (; next < due; next++) writes.push(this.#client.write(next % granules * GRANULE, Buffer.alloc(BLOCK, next % 255)));
      await Promise.all(writes);
      await sleep(10);
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
    await this.#client.close();
  }
}

export class ConvergeLab {
  readonly qmp: QmpClient;
  /** Two monitors for commands, each for one at a time; `qmp` is the test's own. */
  readonly monitor: string;
  readonly otherMonitor: string;
  readonly nbd: string;
  readonly events: { readonly name: string; readonly data: Readonly<Record<string, unknown>> }[] = [];
  private constructor(tmp: (name: string) => string, qmp: QmpClient) {
    this.qmp = qmp;
    this.monitor = tmp('monitor');
    this.otherMonitor = tmp('other');
    this.nbd = tmp('nbd');
    qmp.subscribe((event) => this.events.push(event));
  }

  /** `target`: definitions of nodes, the last of which is called `target`. Objects come first. */
  static async start(tmp: (name: string) => string, bytes: number, target: readonly Readonly<Record<string, unknown>>[], objects: readonly string[] = []): Promise<ConvergeLab> {
    writeFileSync(tmp('source'), Buffer.alloc(bytes, FILL));
    const source = { driver: 'raw', 'node-name': 'source', file: { driver: 'file', filename: tmp('source') } };
    const child = start(storageDaemonLauncher, [
      ...['own', 'monitor', 'other'].flatMap((name) => ['--chardev', `socket,id=${name},path=${tmp(name)},server=on,wait=off`, '--monitor', `chardev=${name}`]),
      ...objects.flatMap((object) => ['--object', object]), ...[source, ...target].flatMap((node) => ['--blockdev', JSON.stringify(node)]),
      '--nbd-server', `addr.type=unix,addr.path=${tmp('nbd')}`, '--export', 'nbd,id=e,node-name=source,name=disk,writable=on',
    ], { stdio: ['ignore', 'ignore', 'inherit'] });
    daemons.add(child);
    let qmp: QmpClient | null = null;
    await waitFor('the daemon listens', async () => {
      if (child.exitCode !== null) throw new Error('the daemon did not start');
      if (statSync(tmp('nbd'), { throwIfNoEntry: false }) !== undefined) qmp = await QmpClient.connect(tmp('own')).catch(() => null);
      return qmp !== null;
    });
    return new ConvergeLab(tmp, qmp!);
  }

  /** Resolves with the time at which it began. */
  async mirror(more: Readonly<Record<string, unknown>>): Promise<number> {
    const began = performance.now();
    await this.qmp.execute('blockdev-mirror', { 'job-id': 'j', device: 'source', target: 'target', sync: 'full', ...more });
    return began;
  }

  async job(): Promise<JobTold> {
    const jobs = await this.qmp.execute('query-block-jobs') as JobTold[];
    if (jobs[0] === undefined) throw new Error(`the job is gone: ${JSON.stringify(this.events.slice(-3))}`);
    return jobs[0];
  }

  async change(copyMode: string): Promise<void> {
    await this.qmp.execute('block-job-change', { id: 'j', type: 'mirror', 'copy-mode': copyMode });
  }

  /** Milliseconds from `began` until the job is ready; null where it is not within `limitMs`. `look` sees each answer. */
  async ready(began: number, limitMs: number, look: (job: JobTold) => void = () => undefined): Promise<number | null> {
    for (;;) {
      const job = await this.job();
      look(job);
      const took = performance.now() - began;
      if (job.ready) return took;
      if (took > limitMs) return null;
      await sleep(50);
    }
  }

  phases(): string[] {
    return this.events.filter(({ name }) => name === 'BLOCK_JOB_PHASE').map(({ data }) => String(data['phase']));
  }

  /** The target takes the place of the disk, the loop goes on for a moment; then the file at `path`, which the target is, holds what was written. */
  async pivot(loop: FoundingLoop, path: string): Promise<void> {
    const completed = this.qmp.waitEvent('BLOCK_JOB_COMPLETED', undefined, { timeoutMs: 60_000 });
    await this.qmp.execute('block-job-complete', { device: 'j' });
    expect((await completed).data).not.toHaveProperty('error');
    const { writes } = loop;
    await waitFor('the loop goes on', () => loop.writes > writes + 5, 60_000);
    const model = await loop.stop();
    expect(readFileSync(path).equals(model)).toBe(true);
  }

  /** An empty file for a server to serve. */
  static emptyFile(path: string, bytes: number): string {
    writeFileSync(path, '');
    truncateSync(path, bytes);
    return path;
  }
}

const daemons = new Set<ChildProcess>();
afterEach(async () => {
  for (const child of daemons) await kill(child);
  daemons.clear();
});
