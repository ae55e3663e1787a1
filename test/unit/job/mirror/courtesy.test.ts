/** Background copies of a write-blocking mirror give way to guests who wait for the same target, in virtual time; and the target has work all the same. */
import { describe, expect, test } from '@jest/globals';
import { makeRequest, type BlockRequest } from '../../../../src/index.js';
import { Random } from '../../../../src/base/clock.js';
import { KiB, MirrorLab } from '../../../support/mirror-lab.js';
import { VirtualClock } from '../../../support/virtual-clock.js';

const BYTES = 32 * 1024 * KiB;
const RATE = 5e6;
const GUEST_MS = 1;

type Target = (request: BlockRequest, clock: VirtualClock) => Promise<void>;

/** One request after the other. */
function queue(msOf: (bytes: number) => number): Target {
  let freeAt = 0;
  return async ({ bytes }, clock) => {
    freeAt = Math.max(freeAt, clock.monotonicMs()) + msOf(bytes);
    await clock.sleep(freeAt - clock.monotonicMs());
  };
}

interface Seen {
  /** Milliseconds until it was ready. */
  readonly readyMs: number;
  /** Of a guest that writes one KiB after the other, until then. */
  readonly writes: number;
  readonly slowestMs: number;
  /** In flight once the target was known. */
  readonly mostBytes: number;
}

async function mirrorTo(target: Target, copyMode: 'background' | 'write-blocking', { guest = true, limitMs = 60_000 } = {}): Promise<Seen> {
  const clock = new VirtualClock();
  const lab = await MirrorLab.create({ bytes: BYTES, turns: 0, discard: 'ignore', clock });
  lab.disks.source.before = ({ op }) => (op === 'write' ? clock.sleep(GUEST_MS) : Promise.resolve());
  lab.disks.target.before = (request) => target(request, clock);
  await lab.start({ copyMode });
  const random = new Random(3);
  let [writes, slowestMs, stopped] = [0, 0, !guest];
  const loop = (async () => {
    while (!stopped) {
      const began = clock.monotonicMs();
      await lab.door.submit(makeRequest('write', random.below(BYTES / KiB) * KiB, KiB, Buffer.alloc(KiB, 1)));
      slowestMs = Math.max(slowestMs, clock.monotonicMs() - began);
      if (!stopped) writes++;
    }
  })();
  while (!lab.job.isReady && clock.monotonicMs() < limitMs) {
    if (clock.monotonicMs() > 1000 && clock.monotonicMs() < 1050) lab.disks.target.mostBytesInFlight = 0;
    await clock.advance(20);
  }
  const readyMs = clock.monotonicMs();
  stopped = true;
  let ended = false;
  void loop.then(() => { ended = true; });
  while (!ended) await clock.advance(20);
  lab.job.complete();
  while (lab.job.status !== 'null') await clock.advance(20);
  expect(lab.equal).toBe(true);
  return { readyMs, writes, slowestMs, mostBytes: lab.disks.target.mostBytesInFlight };
}

test('a guest is let through all the time by a target of 5 MB/s, which is ready hardly later for it', async () => {
  const { readyMs, writes, slowestMs, mostBytes } = await mirrorTo(queue((bytes) => bytes / RATE * 1000), 'write-blocking');
  // with 16 MiB in flight before each of them it would be two or three, of 3.3 s
  expect(writes).toBeGreaterThan(15);
  expect(slowestMs).toBeLessThan(1000);
  expect(mostBytes).toBeLessThan(2 * 1024 * KiB);
  expect(readyMs).toBeLessThan(BYTES / RATE * 1000 * 1.1);
}, 30_000);

const TARGETS: readonly [string, () => Target][] = [
  ['is slow', () => queue((bytes) => bytes / RATE * 1000)],
  ['counts operations', () => queue(() => 40)],
  ['is far away', () => async (_, clock) => clock.sleep(200)],
  ['is fast', () => queue((bytes) => bytes / 500e6 * 1000)],
  ['stands still for a while', () => {
    const slow = queue((bytes) => bytes / 50e6 * 1000);
    return async (request, clock) => {
      if (clock.monotonicMs() > 200) await clock.sleep(Math.max(0, 3000 - clock.monotonicMs()));
      await slow(request, clock);
    };
  }],
];

describe.each(TARGETS)('where the target %s', (_, target) => {
  test('it is ready hardly later than in the background', async () => {
    const background = await mirrorTo(target(), 'background', { guest: false });
    const alone = await mirrorTo(target(), 'write-blocking', { guest: false });
    const used = await mirrorTo(target(), 'write-blocking');
    expect(alone.readyMs).toBeLessThan(background.readyMs * 1.1 + 1000);
    expect(used.readyMs).toBeLessThan(background.readyMs * 1.3 + 2000);
  }, 30_000);
});
