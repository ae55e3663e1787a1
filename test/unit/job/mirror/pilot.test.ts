/** Copy mode `auto` over a slow, a silent and a dying target, in virtual time: it becomes ready, and no guest hangs. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { makeRequest, type BlockBackend } from '../../../../src/index.js';
import { Random } from '../../../../src/base/clock.js';
import { startMirror, type Mirror, type MirrorOptions } from '../../../../src/job/mirror/mirror.js';
import { JobLab, LabDisk } from '../../../support/job-lab.js';
import { VirtualClock } from '../../../support/virtual-clock.js';

const KiB = 1024;
const MiB = 1024 * KiB;
const RATE = 5e6;
const BYTES = 16 * MiB;
/** What a write takes at the source. */
const GUEST_MS = 10;

/** The founding loop: 1 KiB writes for ever, several at once. */
class Loop {
  slowestMs = 0;
  writes = 0;
  stopped = false;
  readonly #ended: Promise<void>[] = [];

  constructor(door: BlockBackend, clock: VirtualClock, depth = 4) {
    const random = new Random(7);
    const one = async (): Promise<void> => {
      while (!this.stopped) {
        const began = clock.monotonicMs();
        await door.submit(makeRequest('write', random.below(BYTES / KiB) * KiB, KiB, Buffer.alloc(KiB, 1 + random.below(255))));
        this.slowestMs = Math.max(this.slowestMs, clock.monotonicMs() - began);
        this.writes++;
      }
    };
    for (let index = 0; index < depth; index++) this.#ended.push(one());
  }

  async end(clock: VirtualClock): Promise<void> {
    this.stopped = true;
    let ended = false;
    void Promise.all(this.#ended).then(() => { ended = true; });
    for (let left = 200; !ended && left > 0; left--) await clock.advance(100);
    expect(ended).toBe(true);
  }
}

class World {
  readonly clock = new VirtualClock();
  readonly lab = new JobLab(this.clock);
  readonly source = new LabDisk({ bytes: BYTES, turns: 0 });
  readonly target = new LabDisk({ bytes: BYTES, turns: 0 });
  mirror!: Mirror;
  loop!: Loop;
  /** The target ends nothing before it is set back to null. */
  stall: Promise<void> | null = null;
  #freeAt = 0;

  async start(options: Partial<MirrorOptions>, depth?: number): Promise<void> {
    const { clock } = this;
    const source = this.lab.add('source', this.source);
    const target = this.lab.add('target', this.target, { discard: 'ignore' });
    await source.write(0, Buffer.alloc(BYTES, 0x55));
    this.source.before = () => clock.sleep(GUEST_MS);
    this.target.before = async ({ bytes }) => {
      await this.stall;
      this.#freeAt = Math.max(this.#freeAt, clock.monotonicMs()) + bytes / RATE * 1000;
      await clock.sleep(this.#freeAt - clock.monotonicMs());
      await this.stall;
    };
    const door = await this.lab.guest(source);
    this.mirror = await startMirror(this.lab.graph, this.lab.jobs, { jobId: 'j', source, target, sync: 'full', ...options });
    this.loop = new Loop(door, clock, depth);
  }

  /** Milliseconds until then; null where that takes longer than `limitMs`. */
  async until(what: () => boolean, limitMs: number): Promise<number | null> {
    const began = this.clock.monotonicMs();
    while (!what()) {
      if (this.clock.monotonicMs() - began > limitMs) return null;
      await this.clock.advance(20);
    }
    return this.clock.monotonicMs() - began;
  }

  untilReady(limitMs: number): Promise<number | null> { return this.until(() => this.mirror.blockJob.job.isReady, limitMs); }

  /** Completes, and finds both disks equal. */
  async complete(): Promise<void> {
    let equal: boolean | null = null;
    this.lab.onStatus = (_, status) => { if (status === 'waiting') equal = this.source.content().equals(this.target.content()); };
    this.mirror.blockJob.job.complete();
    expect(await this.until(() => this.mirror.blockJob.job.status === 'null', 10_000)).not.toBeNull();
    expect([this.mirror.blockJob.job.error, equal]).toEqual([null, true]);
  }

  phases(): string[] {
    return this.lab.seen.filter((line) => line.startsWith('BLOCK_JOB_PHASE')).map((line) => (JSON.parse(line.slice('BLOCK_JOB_PHASE '.length)) as { phase: string }).phase);
  }
}

let world: World;
afterEach(() => { world.loop.stopped = true; });

const BOUND_MS = 2 * BYTES / RATE * 1000 + 15_000;

describe('a loop of small writes over a target of 5 MB/s', () => {
  test('in the background it never becomes ready', async () => {
    world = new World();
    await world.start({ copyMode: 'background' });
    expect(await world.untilReady(BOUND_MS)).toBeNull();
    expect(world.mirror.convergence).toBeNull();
    world.mirror.blockJob.job.cancel();
    await world.loop.end(world.clock);
  }, 30_000);

  test.each(['write-blocking', 'auto'] as const)('%s becomes ready in time, and the copy is whole', async (copyMode) => {
    world = new World();
    await world.start({ copyMode });
    expect(await world.untilReady(BOUND_MS)).not.toBeNull();
    await world.complete();
    await world.loop.end(world.clock);
    if (copyMode === 'auto') expect(world.phases()[0]).toBe('bulk');
    // each change is told once
    expect(world.phases().filter((phase, index, all) => phase === all[index - 1])).toEqual([]);
    if (copyMode === 'write-blocking') expect(world.phases()).toEqual([]);
  }, 30_000);

  test('auto keeps to its deadline, and tells how it gets on', async () => {
    world = new World();
    await world.start({ copyMode: 'auto', convergence: { deadlineMs: 6000 } });
    await world.until(() => false, 2000);
    expect(world.mirror.convergence).toMatchObject({ phase: expect.any(String), converges: true });
    const { copyRate, dirty, deadlineMs } = world.mirror.convergence!;
    expect(copyRate).toBeGreaterThan(RATE * 0.7);
    expect(copyRate).toBeLessThan(RATE * 1.3);
    expect(dirty).toBeGreaterThan(0);
    expect(deadlineMs! / 1000).toBeCloseTo(4, 0);
    expect(await world.untilReady(5000)).not.toBeNull();
    await world.complete();
    await world.loop.end(world.clock);
  }, 30_000);
});

test('a target that dies when all is equal: the change of the copy mode is told, both ways', async () => {
  world = new World();
  await world.start({ copyMode: 'auto', onTargetError: 'ignore', convergence: { deadlineMs: 4000 } });
  expect(await world.untilReady(BOUND_MS)).not.toBeNull();
  await world.until(() => world.phases().at(-1) === 'ready', 1000);
  const modes = (): string[] => world.lab.seen.filter((line) => line.startsWith('BLOCK_JOB_PHASE')).map((line) => /"phase":"(\w+)","copy-mode":"([\w-]+)"/.exec(line)!.slice(1).join(' '));
  const before = modes().length;
  let revive = (): void => undefined;
  world.stall = new Promise((resolve) => { revive = resolve; });
  await world.until(() => false, 3000);
  expect(modes().slice(before)).toEqual(['ready background']);
  world.stall = null;
  revive();
  expect(await world.until(() => modes().at(-1) === 'ready write-blocking', BOUND_MS)).not.toBeNull();
  await world.complete();
  await world.loop.end(world.clock);
}, 30_000);

describe('guests go on', () => {
  test.each([300, 1000])('when the target dies while they wait for it: for %d ms at most; and the job, when it lives again', async (maxGuestLatencyMs) => {
    world = new World();
    await world.start({ copyMode: 'auto', onTargetError: 'ignore', convergence: { deadlineMs: 4000, maxGuestLatencyMs } });
    expect(await world.until(() => world.mirror.copyMode === 'write-blocking', BOUND_MS)).not.toBeNull();
    let revive = (): void => undefined;
    world.stall = new Promise((resolve) => { revive = resolve; });
    world.loop.slowestMs = 0;
    const { writes } = world.loop;
    await world.until(() => false, 5000);
    expect(world.loop.slowestMs).toBeLessThanOrEqual(maxGuestLatencyMs);
    expect(world.loop.writes - writes).toBeGreaterThan(4 * 100);
    expect(world.mirror.copyMode).toBe('background');
    expect(world.mirror.convergence!.converges).toBe(false);
    world.stall = null;
    revive();
    expect(await world.untilReady(BOUND_MS)).not.toBeNull();
    await world.complete();
    await world.loop.end(world.clock);
  }, 30_000);

  test.each<[string, (mirror: Mirror) => void]>([
    ['the job is paused', ({ blockJob }) => blockJob.job.pause()],
    ['it is cancelled', ({ blockJob }) => blockJob.job.cancel(true)],
    ['somebody switches to the background', (mirror) => mirror.setCopyMode('background')],
  ])('when %s', async (_, act) => {
    world = new World();
    await world.start({ copyMode: 'auto', convergence: { deadlineMs: 5000 } });
    expect(await world.until(() => ['converge', 'sync'].includes(world.mirror.convergence?.phase ?? ''), BOUND_MS)).not.toBeNull();
    act(world.mirror);
    await world.until(() => false, 500);
    const { writes } = world.loop;
    await world.until(() => false, 1000);
    expect(world.loop.writes - writes).toBeGreaterThan(world.mirror.copyMode === 'background' ? 4 * 70 : 5);
    if (world.mirror.blockJob.job.status !== 'null') world.mirror.blockJob.job.cancel(true);
    await world.loop.end(world.clock);
  }, 30_000);
});

test('switched by hand, and back to auto', async () => {
  world = new World();
  await world.start({ copyMode: 'background' });
  await world.until(() => false, 500);
  world.mirror.setCopyMode('write-blocking');
  expect(world.mirror.copyMode).toBe('write-blocking');
  world.mirror.setCopyMode('background');
  expect([world.mirror.copyMode, world.mirror.convergence]).toEqual(['background', null]);
  world.mirror.setCopyMode('auto');
  expect(await world.untilReady(BOUND_MS)).not.toBeNull();
  await world.until(() => false, 300);
  expect(world.phases().at(-1)).toBe('ready');
  await world.complete();
  await world.loop.end(world.clock);
}, 30_000);
