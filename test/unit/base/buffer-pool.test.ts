import { describe, expect, test } from '@jest/globals';
import { BufferPool, isAlignedBuffer, PAGE, type Lease } from '../../../src/base/buffer-pool.js';
import { Random } from '../../../src/base/clock.js';

const KiB64 = 65536;

async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe('BufferPool', () => {
  test('leases page-aligned buffers of exactly the asked length, at once while there is room', () => {
    const pool = new BufferPool(KiB64);
    for (const bytes of [1, 512, 4096, 5000]) {
      const lease = pool.lease(bytes) as Lease;
      expect(lease).not.toBeInstanceOf(Promise);
      expect(lease.buffer.byteLength).toBe(bytes);
      expect(lease.buffer.byteOffset % PAGE).toBe(0);
      lease.release();
    }
    expect(pool.bytesFree).toBe(KiB64);
  });

  test('a second release gives nothing back twice', () => {
    const pool = new BufferPool(KiB64);
    const first = pool.lease(PAGE) as Lease;
    first.release();
    const second = pool.lease(PAGE) as Lease;
    first.release();
    expect(pool.bytesFree).toBe(KiB64 - PAGE);
    second.release();
  });

  test('an empty pool means waiting, first come first served: a small request does not overtake a large one', async () => {
    const pool = new BufferPool(KiB64);
    const [a, b] = [pool.lease(KiB64 / 2) as Lease, pool.lease(KiB64 / 2) as Lease];
    const order: string[] = [];
    const large = Promise.resolve(pool.lease(KiB64)).then((lease) => { order.push('large'); return lease; });
    const small = Promise.resolve(pool.lease(PAGE)).then((lease) => { order.push('small'); return lease; });
    a.release();
    await settled();
    expect(order).toEqual([]);
    b.release();
    (await large).release();
    (await small).release();
    expect(order).toEqual(['large', 'small']);
    expect(pool.bytesFree).toBe(KiB64);
  });

  test('refuses what can never fit instead of waiting for ever', () => {
    expect(() => new BufferPool(KiB64).lease(KiB64 + 1)).toThrow('does not fit');
  });

  test.each([1, 2, 3])('random leases never overlap, and freed neighbours join again (seed %i)', (seed) => {
    const random = new Random(seed);
    const pool = new BufferPool(16 * KiB64);
    const held: Lease[] = [];
    for (let step = 0; step < 500; step++) {
      const bytes = 1 + random.below(3 * KiB64);
      if (held.length > 4 || random.chance(0.4)) held.splice(random.below(Math.max(held.length, 1)), 1)[0]?.release();
      else if (held.length < 5) held.push(pool.lease(bytes) as Lease);
      const spans = held.map(({ buffer }) => [buffer.byteOffset, buffer.byteOffset + buffer.byteLength] as const).toSorted((x, y) => x[0] - y[0]);
      for (let i = 1; i < spans.length; i++) expect(spans[i]![0]).toBeGreaterThanOrEqual(spans[i - 1]![1]);
    }
    for (const lease of held) lease.release();
    expect(pool.bytesFree).toBe(16 * KiB64);
    const whole = pool.lease(16 * KiB64) as Lease;
    expect(whole.buffer.byteLength).toBe(16 * KiB64);
  });
});

test('only arena memory counts as aligned, and only where address and length fit', () => {
  const { buffer } = new BufferPool(KiB64).lease(8192) as Lease;
  expect(isAlignedBuffer(buffer, 4096)).toBe(true);
  expect(isAlignedBuffer(buffer.subarray(512, 1024), 512)).toBe(true);
  expect(isAlignedBuffer(buffer.subarray(512, 1024), 4096)).toBe(false);
  expect(isAlignedBuffer(buffer.subarray(0, 100), 512)).toBe(false);
  expect(isAlignedBuffer(new Uint8Array(4096), 4096)).toBe(false);
  expect(isAlignedBuffer(new Uint8Array(3), 1)).toBe(true);
});
