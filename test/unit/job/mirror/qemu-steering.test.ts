/** A mirror of QEMU's, steered from outside, against a model of it: what QMP would tell goes in, limits and changes come out. */
import { expect, test } from '@jest/globals';
import type { Clock, Convergence, QmpClient } from '../../../../src/index.js';
import { QemuSteering, type QemuWay } from '../../../../src/job/mirror/qemu-steering.js';
import type { QemuThrottle } from '../../../../src/job/mirror/qemu-throttle.js';

const MiB = 1024 * 1024;
const TICK_S = 0.1;
const DISK = 64 * MiB;

interface Model {
  /** Bytes per second that the target takes, and that the guest would write. */
  readonly target: number;
  readonly guest: number;
  /** Bytes that become dirty for each byte written. */
  readonly amplification: number;
  readonly way: QemuWay;
  readonly throttled?: boolean;
  readonly minGuestRate?: number;
}

interface Outcome {
  /** Null: not within two minutes. */
  readonly readySeconds: number | null;
  /** Seconds that the machine stands still. */
  readonly stoppedFor: number;
  readonly commands: readonly string[];
  readonly phases: readonly string[];
  readonly limits: readonly (number | null)[];
  readonly last: Convergence;
}

async function run({ target, guest, amplification, way, throttled = true, minGuestRate }: Model): Promise<Outcome> {
  let nowMs = 0;
  const clock: Clock = { monotonicMs: () => nowMs, wallMs: () => 0, sleep: () => Promise.resolve() };
  const [commands, phases, limits]: [string[], string[], (number | null)[]] = [[], [], []];
  let through = way === 'through';
  const qmp = { execute: (command: string) => {
    commands.push(command);
    through ||= command === 'block-job-change';
    return Promise.resolve({});
  } } as unknown as QmpClient;
  const throttle = { set: (rate: number | null) => {
    limits.push(rate);
    return Promise.resolve();
  } } as unknown as QemuThrottle;
  const steering = new QemuSteering({ qmp, jobId: 'j', throttle: throttled ? throttle : null, way, clock, onPhase: ({ phase }) => phases.push(phase) }, { deadlineMs: 30_000, minGuestRate });
  let [done, dirty, written] = [0, 20 * MiB, 0];
  for (; nowMs < 120_000; nowMs += TICK_S * 1000) {
    await steering.look({ offset: done, len: done + dirty }, written);
    // what is written through shares the target with the copies
    const bytes = Math.min(guest, limits.at(-1) ?? Infinity, through ? target / 2 : Infinity) * TICK_S;
    const copied = Math.min(dirty, Math.max(0, target * TICK_S - (through ? bytes : 0)));
    const added = through ? 0 : bytes * amplification;
    if (copied === dirty && added === 0) break;
    if (steering.shouldStop()) return { readySeconds: nowMs / 1000, stoppedFor: dirty / target, commands, phases, limits, last: steering.convergence! };
    written += bytes;
    done += copied;
    dirty = Math.min(DISK, dirty + added - copied);
  }
  return { readySeconds: nowMs < 120_000 ? nowMs / 1000 : null, stoppedFor: 0, commands, phases, limits, last: steering.convergence! };
}

test('a calm guest is never slowed down', async () => {
  const { readySeconds, limits, commands } = await run({ target: 5 * MiB, guest: MiB / 100, amplification: 4, way: 'stop' });
  expect(readySeconds).toBeLessThan(10);
  expect(limits.filter((rate) => rate !== null && rate < MiB / 100)).toEqual([]);
  expect(commands).toEqual([]);
});

test.each([1, 16, 64])('QEMU 7.2: a busy guest is slowed down until so little is left that it may be stopped for it, also where each byte dirties %d', async (amplification) => {
  const { readySeconds, stoppedFor, phases, commands } = await run({ target: 5 * MiB, guest: 20 * MiB, amplification, way: 'stop' });
  expect(readySeconds).toBeLessThan(45); // what a write makes dirty has to be found out first
  expect(stoppedFor).toBeLessThan(1);
  expect(phases).toContain('sync');
  expect(commands).toEqual([]);
});

test('QEMU 8.2: it is told once to write through, and guests get their part of the target', async () => {
  const { readySeconds, commands, limits } = await run({ target: 5 * MiB, guest: 20 * MiB, amplification: 16, way: 'change' });
  expect(readySeconds).toBeLessThan(35);
  expect(commands).toEqual(['block-job-change']);
  expect(limits.at(-1)).toBeGreaterThan(100_000);
});

test('without a machine all is written through from the beginning', async () => {
  const { readySeconds, commands, last } = await run({ target: 5 * MiB, guest: 20 * MiB, amplification: 1, way: 'through' });
  expect(readySeconds).toBeLessThan(31);
  expect([commands, last.copyMode]).toEqual([[], 'write-blocking']);
});

test('where nobody can be slowed down it says that it does not converge', async () => {
  const { readySeconds, last } = await run({ target: 5 * MiB, guest: 20 * MiB, amplification: 1, way: 'stop', throttled: false });
  expect(readySeconds).toBeNull();
  expect(last).toMatchObject({ converges: false, guestRate: null });
});

test('guests keep their least rate, whatever the deadline', async () => {
  const { limits } = await run({ target: 5 * MiB, guest: 20 * MiB, amplification: 1, way: 'stop', minGuestRate: 2 * MiB });
  expect(Math.min(...limits.filter((rate) => rate !== null))).toBe(2 * MiB);
});
