import { describe, expect, test } from '@jest/globals';
import { MiB } from '../../../src/base/bytes.js';
import { BlockBackend } from '../../../src/block/backend.js';
import { BlockNode } from '../../../src/block/node.js';
import { makeRequest, type BlockOp } from '../../../src/block/request.js';
import { ThrottleGroup, type ThrottleMember } from '../../../src/block/throttle.js';
import { LIMIT_NAMES, type ThrottleLimits } from '../../../src/block/throttle-limits.js';
import { NullDriver } from '../../../src/protocol/null.js';
import { VirtualClock } from '../../support/virtual-clock.js';

/** Keeps `depth` requests of `bytes` waiting at a member; counts those that were let in. */
class Load {
  done = 0;
  readonly #member: ThrottleMember;

  constructor(member: ThrottleMember, op: BlockOp, bytes: number, depth = 4) {
    this.#member = member;
    for (let i = 0; i < depth; i++) void this.#run(op, bytes);
  }

  async #run(op: BlockOp, bytes: number): Promise<void> {
    for (;;) {
      await this.#member.admit(makeRequest(op, 0, bytes, null));
      this.done++;
      if (this.done % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

function group(limits: Partial<ThrottleLimits>): { clock: VirtualClock; throttle: ThrottleGroup } {
  const clock = new VirtualClock();
  return { clock, throttle: new ThrottleGroup('group', limits, clock) };
}

/** How many requests have been let in after each of `seconds`. */
async function after(limits: Partial<ThrottleLimits>, op: BlockOp, bytes: number, seconds: readonly number[]): Promise<number[]> {
  const { clock, throttle } = group(limits);
  const load = new Load(throttle.join(), op, bytes);
  const counts: number[] = [];
  let now = 0;
  for (const second of seconds) {
    await clock.advance((second - now) * 1000);
    now = second;
    counts.push(load.done);
  }
  return counts;
}

describe('rates', () => {
  // A bucket without a burst rate holds a tenth of a second; one request more is let in before it is over its size
  test.each([
    ['iops-total', { 'iops-total': 100 }, 'read', 4096, [11, 111, 1011]],
    ['iops-read holds up reads', { 'iops-read': 100 }, 'read', 4096, [11, 111, 1011]],
    ['iops-write holds up writes', { 'iops-write': 100 }, 'write', 4096, [11, 111, 1011]],
    ['iops-write holds up discards', { 'iops-write': 100 }, 'discard', 4096, [11, 111, 1011]],
    ['bps-total', { 'bps-total': MiB }, 'write', 65536, [2, 18, 162]],
    ['bps-read', { 'bps-read': MiB }, 'read', 65536, [2, 18, 162]],
    ['large requests count as several operations', { 'iops-total': 100, 'iops-size': 4096 }, 'read', 16384, [3, 28, 253]],
    ['small requests count as one', { 'iops-total': 100, 'iops-size': 65536 }, 'read', 4096, [11, 111, 1011]],
    ['the lowest limit rules', { 'iops-total': 100, 'bps-total': MiB }, 'write', 65536, [2, 18, 162]],
  ] as const)('%s', async (_title, limits, op, bytes, expected) => {
    expect(await after(limits, op, bytes, [0, 1, 10])).toEqual(expected);
  });

  test('a limit on reads lets writes through, and no limit lets everything through', async () => {
    const { throttle } = group({ 'bps-read': 1 });
    const member = throttle.join();
    for (let i = 0; i < 100; i++) expect(member.admit(makeRequest('write', 0, MiB, null))).toBeNull();
    expect(member.admit(makeRequest('read', 0, MiB, null))).toBeNull();
    expect(member.admit(makeRequest('read', 0, MiB, null))).not.toBeNull();
    expect(member.admit(makeRequest('flush', 0, 0, null))).toBeNull();
  });

  test('a wait of years is not cut short by what a timer can hold', async () => {
    const { clock, throttle } = group({ 'bps-write': 1 });
    const member = throttle.join();
    const year = 365 * 24 * 3600;
    expect(member.admit(makeRequest('write', 0, year, null))).toBeNull();
    let done = false;
    void member.admit(makeRequest('write', 0, 1, null))!.then(() => { done = true; });
    await clock.advance((year - 1) * 1000);
    expect(done).toBe(false);
    await clock.advance(1000);
    expect(done).toBe(true);
  });

  test('a burst rate lets a second of it in at once', async () => {
    expect(await after({ 'iops-total': 100, 'iops-total-max': 500 }, 'read', 4096, [0, 1, 10])).toEqual([501, 601, 1501]);
  });

  test('a burst of several seconds goes at the burst rate, then at the average', async () => {
    // 1000 a second fill the bucket of 3000, which leaks 100 a second meanwhile: it is full after 3.2 seconds
    const counts = await after({ 'iops-total': 100, 'iops-total-max': 1000, 'iops-total-max-length': 3 }, 'read', 4096, [0, 1, 3, 4, 13]);
    expect(counts[0]).toBe(101);
    expect(counts[1]).toBe(1101);
    expect(counts[2]).toBe(3101);
    expect(Math.abs(counts[3]! - 3401)).toBeLessThanOrEqual(2);
    expect(counts[4]! - counts[3]!).toBe(900);
  });

  test('an idle group gathers no more than its bucket', async () => {
    const { clock, throttle } = group({ 'iops-total': 100 });
    const member = throttle.join();
    await clock.advance(3600_000);
    let through = 0;
    while (member.admit(makeRequest('read', 0, 512, null)) === null) through++;
    expect(through).toBe(11);
  });
});

describe('groups', () => {
  test('I-10: members take turns, whatever their depth', async () => {
    const { clock, throttle } = group({ 'iops-total': 100 });
    const loads = [new Load(throttle.join(), 'read', 512, 1), new Load(throttle.join(), 'read', 512, 32), new Load(throttle.join(), 'read', 512, 4)];
    await clock.advance(30_000);
    const counts = loads.map(({ done }) => done);
    expect(counts.reduce((sum, count) => sum + count)).toBe(3011);
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(20);
  });

  test('what one member uses is not there for the other, in both directions', async () => {
    const { clock, throttle } = group({ 'bps-total': MiB });
    const reads = new Load(throttle.join(), 'read', 65536);
    const writes = new Load(throttle.join(), 'write', 65536);
    await clock.advance(10_000);
    expect(Math.abs(reads.done + writes.done - 162)).toBeLessThanOrEqual(2);
    expect(reads.done).toBeGreaterThan(60);
    expect(writes.done).toBeGreaterThan(60);
  });

  test('I-12: new limits hold for requests that wait already', async () => {
    const { clock, throttle } = group({ 'iops-total': 1 });
    const load = new Load(throttle.join(), 'read', 512, 8);
    await clock.advance(2_500);
    expect(load.done).toBe(3);
    throttle.setLimits({ 'iops-total': 100 });
    await clock.advance(1_000);
    expect(load.done).toBe(3 + 111);
    throttle.setLimits({ 'iops-total': 1, 'iops-total-max': 0 });
    await clock.advance(10_000);
    expect(Math.abs(load.done - 114 - 11)).toBeLessThanOrEqual(1);
  });

  test('I-14: what waits leaves in the order in which it came, whatever the limits become meanwhile', async () => {
    const { clock, throttle } = group({ 'iops-total': 10 });
    const member = throttle.join();
    const left: number[] = [];
    const submit = async (index: number): Promise<void> => {
      await member.admit(makeRequest('write', 0, 512 * (1 + index % 9), null));
      left.push(index);
    };
    for (let index = 0; index < 120; index++) {
      void submit(index);
      if (index % 10 === 0) throttle.setLimits({ 'iops-total': 10 + index });
      if (index % 7 === 0) await clock.advance(50);
    }
    await clock.advance(60_000);
    expect(left).toEqual(Array.from({ length: 120 }, (_, index) => index));
  });

  test('I-13: a member that passes waits for nobody, and is counted', async () => {
    const { clock, throttle } = group({ 'iops-total': 10 });
    const [held, passing] = [throttle.join(), throttle.join()];
    const load = new Load(held, 'read', 512, 1);
    await clock.advance(0);
    passing.pass();
    for (let i = 0; i < 50; i++) expect(passing.admit(makeRequest('read', 0, 512, null))).toBeNull();
    passing.unpass();
    const before = load.done;
    await clock.advance(4_000);
    expect(load.done - before).toBeLessThan(5); // the 50 are paid for
    expect(passing.admit(makeRequest('read', 0, 512, null))).not.toBeNull();
  });

  test('I-7: a member that leaves lets its requests go and takes no place any more', async () => {
    const { clock, throttle } = group({ 'iops-total': 10 });
    const [leaving, staying] = [throttle.join(), throttle.join()];
    while (leaving.admit(makeRequest('read', 0, 512, null)) === null);
    const waiting = [leaving.admit(makeRequest('read', 0, 512, null)), staying.admit(makeRequest('read', 0, 512, null))];
    leaving.leave();
    await waiting[0];
    expect(throttle.memberCount).toBe(1);
    await clock.advance(2_000);
    await waiting[1];
    staying.leave();
    expect(clock.sleeping).toBe(0); // a timer left behind would keep the process
  });

  test('I-8: a request that is given up waits no longer, and is not counted', async () => {
    const { clock, throttle } = group({ 'iops-total': 10 });
    const member = throttle.join();
    while (member.admit(makeRequest('read', 0, 512, null)) === null);
    const giveUp = new AbortController();
    const lost = member.admit({ ...makeRequest('read', 0, 512, null), signal: giveUp.signal });
    const last = member.admit(makeRequest('read', 0, 512, null));
    giveUp.abort(new Error('given up'));
    await expect(lost).rejects.toThrow('given up');
    await clock.advance(200);
    await last;
    expect(clock.sleeping).toBe(0);
  });

  test('a backend admits by a group', async () => {
    const { clock, throttle } = group({ 'iops-total': 10 });
    await using node = new BlockNode({ name: 'null', driver: new NullDriver() });
    const backend = new BlockBackend('backend', node);
    backend.admission = throttle.join().admission;
    let done = 0;
    for (let i = 0; i < 10; i++) void backend.submit(makeRequest('read', 0, 512, new Uint8Array(512))).then(() => done++);
    await clock.advance(0);
    expect(done).toBe(2);
    await clock.advance(300);
    expect(done).toBe(5);
    await clock.advance(1_000);
    expect(done).toBe(10);
  });
});

describe('limits', () => {
  test.each([
    [{ 'bps-total': 1, 'bps-read': 1 }, 'bps/iops/max total values and read/write values cannot be used at the same time'],
    [{ 'iops-total': 5, 'iops-read': 5, 'iops-total-max': 5, 'iops-write-max': 5 }, 'bps/iops/max total values and read/write values cannot be used at the same time'],
    [{ 'iops-size': 1 }, 'iops size requires an iops value to be set'],
    [{ 'bps-total': 1e15 + 1 }, 'bps/iops/max values must be within [0, 1000000000000000]'],
    [{ 'bps-total': 1, 'bps-total-max-length': 0 }, 'the burst length cannot be 0'],
    [{ 'bps-total': 1, 'bps-total-max-length': 2 }, 'burst length set without burst rate'],
    [{ 'bps-total': 1, 'bps-total-max': 1e15, 'bps-total-max-length': 2 }, 'burst length too high for this burst rate'],
    [{ 'iops-read-max': 1 }, 'bps_max/iops_max require corresponding bps/iops values'],
    [{ 'iops-read': 2, 'iops-read-max': 1 }, 'bps_max/iops_max cannot be lower than bps/iops'],
    [{ 'bps-write-max-length': 2 ** 32 }, 'bps-write-max-length value must be in the range [0, 4294967295]'],
  ] as const)('%j is refused and changes nothing', (change, text) => {
    const { throttle } = group({});
    const before = throttle.limits;
    expect(() => throttle.setLimits(change)).toThrow(text);
    expect(throttle.limits).toEqual(before);
  });

  test('properties: x- forms while it is made, `limits` at any time', () => {
    const made = ThrottleGroup.fromProperties('group', { 'x-iops-total': 100, 'x-iops-total-max': 200, limits: { 'bps-read': 5 } }, new VirtualClock());
    expect(made.limits).toMatchObject({ 'iops-total': 100, 'iops-total-max': 200, 'iops-total-max-length': 1, 'bps-read': 5 });
    expect(Object.keys(made.getProperty('limits') as object)).toEqual(LIMIT_NAMES);
    expect(made.getProperty('x-iops-total')).toBe(100);
    expect(made.getProperty('x-iops')).toBeUndefined();
    made.setProperty('limits', { 'iops-total': 50 });
    expect(made.getProperty('x-iops-total')).toBe(50);
    expect(() => made.setProperty('x-iops-total', 1)).toThrow('Property cannot be set after initialization');
    expect(() => ThrottleGroup.fromProperties('group', { 'x-iops-total': -1 })).toThrow('Property values cannot be negative');
    expect(() => ThrottleGroup.fromProperties('group', { 'x-iops-total-max': 1 })).toThrow('require corresponding');
  });
});
