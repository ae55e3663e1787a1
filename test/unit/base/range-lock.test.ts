import { expect, test } from '@jest/globals';
import { Random } from '../../../src/base/clock.js';
import { RangeLock, type RangeHold } from '../../../src/base/range-lock.js';

async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

test('overlapping exclusive ranges exclude each other, touching ones do not', () => {
  const lock = new RangeLock();
  const hold = lock.tryAcquire(10, 20)!;
  expect(lock.tryAcquire(19, 21)).toBeNull();
  expect(lock.tryAcquire(0, 11)).toBeNull();
  expect(lock.tryAcquire(12, 13)).toBeNull();
  expect(lock.tryAcquire(20, 30)).not.toBeNull();
  expect(lock.tryAcquire(0, 10)).not.toBeNull();
  lock.release(hold);
  expect(lock.tryAcquire(12, 13)).not.toBeNull();
  expect(lock.heldCount).toBe(3);
});

test('shared ranges overlap each other and keep exclusive ones out', async () => {
  const lock = new RangeLock();
  const shared = [lock.tryAcquire(0, 10, false)!, lock.tryAcquire(5, 15, false)!];
  let granted = false;
  const exclusive = lock.acquire(9, 10).then((hold) => { granted = true; return hold; });
  lock.release(shared[0]!);
  await settled();
  expect(granted).toBe(false);
  lock.release(shared[1]!);
  lock.release(await exclusive);
  expect(lock.heldCount).toBe(0);
});

test('a newcomer waits behind an earlier waiter it conflicts with, so no one starves', async () => {
  const lock = new RangeLock();
  const reader = lock.tryAcquire(0, 10, false)!;
  const order: string[] = [];
  const writer = lock.acquire(0, 10).then((hold) => { order.push('writer'); return hold; });
  expect(lock.tryAcquire(0, 10, false)).toBeNull();
  const late = lock.acquire(0, 10, false).then((hold) => { order.push('late reader'); return hold; });
  const beside = lock.tryAcquire(10, 20);
  expect(beside).not.toBeNull();
  lock.release(reader);
  lock.release(await writer);
  await late;
  expect(order).toEqual(['writer', 'late reader']);
});

test.each([1, 2, 3])('random holders never conflict, and everyone is served (seed %i)', async (seed) => {
  const random = new Random(seed);
  const lock = new RangeLock();
  const held = new Set<RangeHold>();
  let served = 0;
  const worker = async (): Promise<void> => {
    for (let round = 0; round < 40; round++) {
      const start = random.below(100);
      const exclusive = random.chance(0.5);
      const hold = await lock.acquire(start, start + 1 + random.below(30), exclusive);
      for (const other of held) {
        expect((hold.exclusive || other.exclusive) && hold.start < other.end && other.start < hold.end).toBe(false);
      }
      held.add(hold);
      for (let turns = random.below(3); turns > 0; turns--) await settled();
      held.delete(hold);
      lock.release(hold);
      served++;
    }
  };
  await Promise.all(Array.from({ length: 12 }, worker));
  expect(served).toBe(12 * 40);
  expect(lock.heldCount).toBe(0);
});
