/**
 * Drained sections under a mirror that many guests write through, in virtual time: they end when what was in flight has
 * ended, in every phase, whatever waits for its turn behind it; and all goes on afterwards.
 */
import { expect, test } from '@jest/globals';
import { makeRequest, type BlockNode, type Mirror } from '../../../../src/index.js';
import { Random } from '../../../../src/base/clock.js';
import { startMirror, type MirrorOptions } from '../../../../src/job/mirror/mirror.js';
import { JobLab, LabDisk } from '../../../support/job-lab.js';
import { VirtualClock } from '../../../support/virtual-clock.js';

const KiB = 1024;
const RATE = 5e6;
const BYTES = 4 * 1024 * KiB;
const WRITERS = 16;
/** What a write takes at the source. */
const GUEST_MS = 10;

/** 16 guests that write 1 KiB after the other, over a target of 5 MB/s. */
class Busy {
  readonly clock = new VirtualClock();
  readonly lab = new JobLab(this.clock);
  readonly disks = [1, 2].map((seed) => new LabDisk({ bytes: BYTES, turns: 0, seed })) as [LabDisk, LabDisk];
  readonly source = this.lab.add('source', this.disks[0]);
  readonly target = this.lab.add('target', this.disks[1], { discard: 'ignore' });
  readonly #random: Random;
  mirror!: Mirror;
  #writers: Promise<void>[] = [];
  #stopped = false;
  #freeAt = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  async start(options: Partial<MirrorOptions>): Promise<void> {
    const { clock, disks, lab, source, target } = this;
    await source.write(0, Buffer.alloc(BYTES, 0x55));
    disks[0].before = () => clock.sleep(GUEST_MS);
    disks[1].before = ({ bytes }) => {
      this.#freeAt = Math.max(this.#freeAt, clock.monotonicMs()) + bytes / RATE * 1000;
      return clock.sleep(this.#freeAt - clock.monotonicMs());
    };
    const door = await lab.guest(source);
    this.mirror = await startMirror(lab.graph, lab.jobs, { jobId: 'j', source, target, sync: 'full', ...options });
    const write = async (): Promise<void> => {
      while (!this.#stopped) await door.submit(makeRequest('write', this.#random.below(BYTES / KiB) * KiB, KiB, Buffer.alloc(KiB, 1 + this.#random.below(255))));
    };
    this.#writers = Array.from({ length: WRITERS }, write);
  }

  /** Milliseconds until it resolves; null where it takes longer than `limitMs`. */
  async took(work: Promise<unknown>, limitMs: number): Promise<number | null> {
    const began = this.clock.monotonicMs();
    let over = false;
    void work.then(() => { over = true; });
    while (!over) {
      if (this.clock.monotonicMs() - began > limitMs) return null;
      await this.clock.advance(10);
    }
    return this.clock.monotonicMs() - began;
  }

  async end(): Promise<void> {
    this.#stopped = true;
    expect(await this.took(Promise.all(this.#writers), 20_000)).not.toBeNull();
  }
}

const nothing = (): Promise<void> => Promise.resolve();
const inside = (outer: BlockNode, inner: BlockNode): Promise<void> => outer.drained(() => inner.drained(nothing));
const SECTIONS: readonly [string, (world: Busy) => Promise<void>][] = [
  ['the disk that guests see', ({ mirror }) => mirror.filter.drained(nothing)],
  ['the source', ({ source }) => source.drained(nothing)],
  ['the target', ({ target }) => target.drained(nothing)],
  ['the disk, then the source', ({ mirror, source }) => inside(mirror.filter, source)],
  ['the target, then the disk', ({ mirror, target }) => inside(target, mirror.filter)],
  ['the source, then the target', ({ source, target }) => inside(source, target)],
];

test.each(SECTIONS)('copy mode auto with 16 writers, drained at any time: %s', async (_, drain) => {
  const world = new Busy(5);
  const pause = new Random(3);
  await world.start({ copyMode: 'auto' });
  const phases = new Set<string | undefined>();
  for (let [round, after] = [0, 0]; after < 5; round++) {
    if (world.mirror.blockJob.job.isReady) after++;
    expect(round).toBeLessThan(150);
    await world.clock.advance(50 + pause.below(1500));
    phases.add(world.mirror.convergence?.phase);
    const inFlightMs = world.mirror.figures().inFlight / RATE * 1000;
    const took = await world.took(drain(world), 10_000);
    expect({ round, ended: took !== null }).toEqual({ round, ended: true });
    // a guest's write may wait for a copy, and then again behind what was begun meanwhile
    expect(took!).toBeLessThanOrEqual(3 * inFlightMs + WRITERS * GUEST_MS);
    expect(took!).toBeLessThan(1000);
  }
  expect([...phases]).toEqual(expect.arrayContaining(['bulk', 'ready']));
  let equal: boolean | null = null;
  world.lab.onStatus = (_id, status) => { if (status === 'waiting') equal = world.disks[0].content().equals(world.disks[1].content()); };
  const { job } = world.mirror.blockJob;
  job.complete();
  expect(await world.took(job.ended, 10_000)).not.toBeNull();
  await world.end();
  expect([job.error, equal]).toEqual([null, true]);
}, 30_000);

test('in the other modes it takes as long as the target needs for what is in flight', async () => {
  for (const copyMode of ['background', 'write-blocking'] as const) {
    const world = new Busy(6);
    await world.start({ copyMode });
    await world.clock.advance(300);
    const inFlightMs = world.mirror.figures().inFlight / RATE * 1000;
    expect(inFlightMs).toBeGreaterThan(copyMode === 'background' ? 500 : 50); // 4 MiB at 5 MB/s, and a quarter of a second's worth at most
    const took = await world.took(inside(world.target, world.mirror.filter), 10_000);
    expect(took).not.toBeNull();
    expect(took!).toBeLessThanOrEqual(inFlightMs + 5 * GUEST_MS);
    world.mirror.blockJob.job.cancel(true);
    await world.end();
  }
}, 30_000);
