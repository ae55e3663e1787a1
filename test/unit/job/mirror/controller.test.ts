import { describe, expect, test } from '@jest/globals';
import { Random } from '../../../../src/base/clock.js';
import { ConvergenceController, TICK_MS, type ControllerOptions, type Decision } from '../../../../src/job/mirror/controller.js';

const MB = 1e6;
const STEP_MS = 20;

interface World {
  readonly bytes: number;
  /** What the target takes, in bytes per second, at a time. */
  rate(ms: number): number;
  /** What the guest would write, in bytes per second, at a time. */
  demand(ms: number): number;
  /** Bytes that become dirty with each byte written: small writes make whole granules dirty. */
  readonly amplification: number;
  /** The part of the disk that the guest writes to. */
  readonly spread: number;
  readonly options?: ControllerOptions;
}

interface Outcome {
  readonly readyMs: number | null;
  readonly phases: string[];
  /** Of what the guest wanted to write until then. */
  readonly admitted: number;
  readonly decisions: readonly Decision[];
}

/** A mirror of a guest that never pauses, in steps of 20 ms, until it is ready or `limitMs` is over. */
function simulate(world: World, limitMs: number): Outcome {
  const controller = new ConvergenceController(world.options ?? {}, 0);
  let dirty = world.bytes;
  let written = 0;
  let dirtied = 0;
  let wanted = 0;
  let served = 0;
  let silent = 0;
  let latency = 0;
  const decisions: Decision[] = [];
  const phases: string[] = [];
  let decision: Decision | null = null;
  for (let now = 0; now <= limitMs; now += STEP_MS) {
    if (now % TICK_MS === 0) {
      decision = controller.tick({ nowMs: now, dirty, written, dirtied, guestLatencyMs: latency, targetSilentMs: silent });
      decisions.push(decision);
      if (phases.at(-1) !== decision.phase) phases.push(decision.phase);
      if (decision.phase === 'ready') return { readyMs: now, phases, admitted: wanted === 0 ? 1 : served / wanted, decisions };
    }
    const { copyMode, guestRate, operations } = decision!;
    const capacity = world.rate(now) * STEP_MS / 1000;
    silent = capacity === 0 ? silent + STEP_MS : 0;
    const demand = world.demand(now) * STEP_MS / 1000;
    wanted += demand;
    const limit = guestRate === null ? Infinity : guestRate * STEP_MS / 1000;
    if (copyMode === 'write-blocking') {
      // 32 guest writes at a time share the target with the background copies
      const share = capacity * 32 / (32 + operations);
      const through = Math.min(demand, limit, dirty === 0 ? capacity : share);
      latency = through < Math.min(demand, limit) ? 32 * 4096 * 1000 / Math.max(1, share * 1000 / STEP_MS) : 1;
      written += through;
      dirtied += through;
      served += through;
      const copied = Math.min(dirty, capacity - through);
      dirty -= copied;
      written += copied;
    } else {
      const copied = Math.min(dirty, capacity);
      const before = dirty;
      dirty -= copied;
      written += copied;
      const clean = 1 - Math.min(1, before / world.bytes);
      // what the guest writes again while it is dirty costs nothing
      const fresh = Math.min(demand * world.amplification * Math.max(0.02, clean) , limit, world.bytes * world.spread);
      dirty = Math.min(world.bytes, dirty + fresh);
      dirtied += fresh;
      served += demand === 0 ? 0 : demand * Math.min(1, limit / Math.max(1, demand * world.amplification * Math.max(0.02, clean)));
    }
  }
  return { readyMs: null, phases, admitted: served / Math.max(1, wanted), decisions };
}

const bound = (world: World): number => 2 * world.bytes / world.rate(0) * 1000 + 15_000;
const constant = (value: number) => (): number => value;

describe('ready within twice the time of a copy and 15 s', () => {
  const world = (over: Partial<World>): World => ({ bytes: 1000 * MB, rate: constant(50 * MB), demand: constant(0), amplification: 16, spread: 1, ...over });

  test.each<[string, Partial<World>]>([
    ['an idle guest', {}],
    ['a guest at a tenth of the target', { demand: constant(0.3 * MB) }],
    ['a guest at the speed of the target', { demand: constant(50 * MB), amplification: 1 }],
    ['a guest far beyond it', { demand: constant(1000 * MB) }],
    ['the loop of small writes', { bytes: 200 * MB, rate: constant(5 * MB), demand: constant(2 * MB), amplification: 64 }],
    ['a small disk', { bytes: MB, demand: constant(100 * MB) }],
    ['a guest that wakes late', { demand: (ms) => (ms < 18_000 ? 0 : 500 * MB) }],
    ['a guest in bursts', { demand: (ms) => (ms % 4000 < 2000 ? 300 * MB : 0) }],
  ])('%s', (_, over) => {
    const it = world(over);
    const { readyMs } = simulate(it, bound(it) * 3);
    expect(readyMs).not.toBeNull();
    expect(readyMs!).toBeLessThanOrEqual(bound(it));
  });

  test('whatever the guest does', () => {
    for (let seed = 1; seed <= 150; seed++) {
      const random = new Random(seed);
      const rate = 10 ** (6 + random.below(3000) / 1000);
      const demands = Array.from({ length: 8 }, () => (random.chance(0.3) ? 0 : rate * 10 ** (random.below(3000) / 1000 - 2)));
      const period = 500 + random.below(10_000);
      const it: World = {
        bytes: Math.floor(rate * (0.1 + random.below(60_000) / 1000)), rate: constant(rate),
        demand: (ms) => demands[Math.floor(ms / period) % demands.length]!, amplification: 1 + random.below(128), spread: 1,
      };
      const { readyMs } = simulate(it, bound(it) * 2);
      expect({ seed, ready: readyMs !== null && readyMs <= bound(it) }).toEqual({ seed, ready: true });
    }
  });
});

describe('no more than is needed', () => {
  const base: World = { bytes: 1000 * MB, rate: constant(50 * MB), demand: constant(0), amplification: 1, spread: 1 };

  test('a calm guest is never slowed down before the last step', () => {
    const { phases, decisions } = simulate({ ...base, demand: constant(2 * MB) }, 60_000);
    expect(phases[0]).toBe('bulk');
    const slowed = decisions.filter(({ guestRate }) => guestRate !== null && guestRate < 2 * MB);
    expect(slowed).toEqual([]);
  });

  test('a guest of half the speed of the target gets nearly all it wants', () => {
    expect(simulate({ ...base, demand: constant(20 * MB) }, 60_000).admitted).toBeGreaterThan(0.9);
  });

  test('the guest keeps its least rate, and the forecast says so', () => {
    const { decisions } = simulate({ ...base, demand: constant(500 * MB), options: { minGuestRate: 20 * MB } }, 60_000);
    for (const { guestRate } of decisions) expect(guestRate ?? Infinity).toBeGreaterThanOrEqual(20 * MB);
  });

  test('far from the deadline, a guest is slowed down only where so little is left that it may be', () => {
    const world: World = { ...base, demand: constant(40 * MB), options: { deadlineMs: 600_000 } };
    expect(simulate({ ...world, options: { ...world.options, throttleBelow: 1 } }, 60_000).phases).not.toContain('converge');
    expect(simulate({ ...world, options: { ...world.options, throttleBelow: 1000 * MB } }, 60_000).phases).toContain('converge');
  });

  test('it goes back when the guest calms down', () => {
    const { phases } = simulate({ ...base, bytes: 3000 * MB, demand: (ms) => (ms < 8000 ? 500 * MB : 0) }, 200_000);
    expect(phases.slice(0, 3)).toEqual(['bulk', 'converge', 'bulk']);
  });
});

describe('a dead target', () => {
  test('is not waited for: guest writes are only tracked until it lives again', () => {
    const world: World = {
      bytes: 100 * MB, rate: (ms) => (ms > 2000 && ms < 12_000 ? 0 : 20 * MB), demand: constant(100 * MB), amplification: 1, spread: 1,
      options: { deadlineMs: 3000 },
    };
    const { decisions, readyMs } = simulate(world, 60_000);
    const dead = decisions.slice(35, 115);
    expect(dead.every(({ copyMode, guestRate }) => copyMode === 'background' && guestRate === null)).toBe(true);
    expect(readyMs).not.toBeNull();
  });
});

test('a target that died when all was equal is trusted again when all is equal again, however little that was', () => {
  const controller = new ConvergenceController({}, 0);
  const tick = (nowMs: number, dirty: number, written: number, targetSilentMs = 0): Decision =>
    controller.tick({ nowMs, dirty, written, dirtied: 0, guestLatencyMs: 0, targetSilentMs });
  for (let now = 0; now <= 2000; now += 100) tick(now, 20 * MB - now * MB / 100, now * MB / 100);
  expect(tick(2100, 0, 20 * MB)).toMatchObject({ phase: 'ready', copyMode: 'write-blocking' });
  expect(tick(2900, 4096, 20 * MB, 700)).toMatchObject({ phase: 'ready', copyMode: 'background', dead: true });
  expect(tick(3000, 8192, 20 * MB)).toMatchObject({ phase: 'bulk', copyMode: 'background' });
  expect(tick(3100, 0, 20 * MB + 8192)).toMatchObject({ phase: 'ready', copyMode: 'write-blocking', dead: false });
});

test('a deadline that the user gave stops nobody before it is known how fast the target is', () => {
  const controller = new ConvergenceController({ deadlineMs: 60_000 }, 0);
  for (const nowMs of [0, 100, 200, 300]) {
    expect(controller.tick({ nowMs, dirty: 100 * MB, written: 0, dirtied: 0, guestLatencyMs: 0, targetSilentMs: 0 })).toMatchObject({ phase: 'bulk', guestRate: null });
  }
  expect(controller.tick({ nowMs: 400, dirty: 90 * MB, written: 10 * MB, dirtied: 0, guestLatencyMs: 0, targetSilentMs: 0 }).guestRate).toBeGreaterThan(10 * MB);
});

test('nothing is known before the first second, then a deadline and an estimate', () => {
  const controller = new ConvergenceController({}, 1000);
  const sample = (nowMs: number, dirty: number, written: number) => ({ nowMs, dirty, written, dirtied: 0, guestLatencyMs: 0, targetSilentMs: 0 });
  expect(controller.tick(sample(1000, 100 * MB, 0))).toMatchObject({ etaMs: null, deadlineMs: null, phase: 'bulk' });
  for (let tick = 1; tick <= 10; tick++) controller.tick(sample(1000 + tick * 100, (100 - tick) * MB, tick * MB));
  const decision = controller.tick(sample(2100, 89 * MB, 11 * MB));
  expect(decision.copyRate).toBeCloseTo(10 * MB, -5);
  expect(decision.etaMs! / 1000).toBeCloseTo(8.9, 1);
  expect(decision.deadlineMs).toBe(2000 + 18_000 + 10_000);
});
