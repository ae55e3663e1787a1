/** What every protocol driver must do, seen through a BlockNode and compared with a flat array. */
import { describe, expect, test } from '@jest/globals';
import { alignDown, alignUp, TiB } from '../../src/base/bytes.js';
import { BufferPool } from '../../src/base/buffer-pool.js';
import { Random } from '../../src/base/clock.js';
import type { BlockDriver } from '../../src/block/driver.js';
import { BlockNode } from '../../src/block/node.js';
import { RequestFlag } from '../../src/block/request.js';

export interface DriverUnderTest {
  /** A fresh empty driver of `bytes` bytes. */
  readonly make: (bytes: number) => Promise<BlockDriver>;
  /** False for a driver that forgets what is written (null). */
  readonly stores: boolean;
}

const IMAGE = 96 * 1024;

export function driverSuite(title: string, subject: DriverUnderTest): void {
  describe(title, () => {
    const open = async (bytes: number): Promise<BlockNode> => new BlockNode({ name: 'subject', driver: await subject.make(bytes) });
    boundsSuite(open);
    lifeSuite(open);
    if (subject.stores) {
      contentSuite(open);
      concurrencySuite(subject);
      growthSuite(open);
    } else {
      test('reads zeros, whatever was written', async () => {
        await using node = await open(IMAGE);
        await node.write(100, filled(5000, 0xaa));
        expect(await bytesAt(node, 0, IMAGE)).toEqual(new Uint8Array(IMAGE));
      });
    }
  });
}

type Open = (bytes: number) => Promise<BlockNode>;

function filled(bytes: number, value: number): Uint8Array {
  return new Uint8Array(bytes).fill(value);
}

async function bytesAt(node: BlockNode, offset: number, bytes: number): Promise<Uint8Array> {
  const buffer = filled(bytes, 0xee); // so that what the driver leaves untouched is seen
  await node.read(offset, buffer);
  return buffer;
}

/** toEqual on large arrays takes seconds to tell a difference; this names the first one. */
function expectSame(found: Uint8Array, expected: Uint8Array, what: string): void {
  const same = Buffer.compare(found, expected) === 0;
  const at = same ? -1 : found.findIndex((byte, index) => byte !== expected[index]);
  expect({ what, firstDifference: at }).toEqual({ what, firstDifference: -1 });
}

function boundsSuite(open: Open): void {
  describe('bounds', () => {
    test('refuses negative, fractional and immense ranges', async () => {
      await using node = await open(IMAGE);
      for (const [offset, bytes] of [[-1, 1], [0.5, 1], [Number.MAX_SAFE_INTEGER, 1], [0, Number.MAX_SAFE_INTEGER + 1]] as const) {
        await expect(node.discard(offset, bytes)).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
        await expect(node.writeZeroes(offset, bytes)).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
        if (bytes === 1) await expect(node.read(offset, new Uint8Array(bytes))).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
      }
      await expect(node.blockStatus(IMAGE, 1)).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
      expect(node.inFlight).toBe(0);
    });

    test('past the end a growable driver reads zeros and discards nothing; another one refuses', async () => {
      await using node = await open(IMAGE);
      await node.write(IMAGE - 10, filled(10, 1));
      for (const offset of [IMAGE - 10, IMAGE, IMAGE + 100_000]) {
        const request = bytesAt(node, offset, 5000);
        if (node.driver.growable) expectSame((await request).subarray(offset < IMAGE ? 10 : 0), new Uint8Array(offset < IMAGE ? 4990 : 5000), `at ${offset}`);
        else await expect(request).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
        if (node.driver.growable) await node.discard(offset, 5000);
        else await expect(node.discard(offset, 5000)).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
      }
      expect(node.length()).toBe(IMAGE);
    });

    test('takes empty requests, at the end too', async () => {
      await using node = await open(IMAGE);
      await node.read(node.length(), new Uint8Array(0));
      await node.write(node.length(), new Uint8Array(0));
      await node.writeZeroes(0, 0);
      await node.discard(0, 0);
      expect(node.length()).toBe(IMAGE);
    });

    test('writes past the end extend growable drivers only', async () => {
      await using node = await open(IMAGE);
      const write = node.write(IMAGE, filled(4096, 1));
      if (node.driver.growable) {
        await write;
        expect(node.length()).toBe(IMAGE + 4096);
      } else {
        await expect(write).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
        expect(node.length()).toBe(IMAGE);
      }
    });
  });
}

function lifeSuite(open: Open): void {
  describe('closing and draining', () => {
    test('close is idempotent, waits for requests in flight, and refuses later ones', async () => {
      const node = await open(IMAGE);
      const writes = Array.from({ length: 8 }, (_, index) => node.write(index * 4096, filled(4096, index)));
      const closed = node.close();
      await expect(node.write(0, filled(1, 1))).rejects.toMatchObject({ code: 'CLOSED' });
      await Promise.all(writes);
      await closed;
      await node.close();
      await node.driver.close();
      await expect(node.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'CLOSED' });
      await expect(node.flush()).rejects.toMatchObject({ code: 'CLOSED' });
    });

    test('a drained section sees no request in flight, and those that come meanwhile run afterwards', async () => {
      await using node = await open(IMAGE);
      const before = [node.write(0, filled(4096, 1)), node.write(8192, filled(4096, 2))];
      const order: string[] = [];
      const later: Promise<void>[] = [];
      await node.drained(async () => {
        expect(node.inFlight).toBe(0);
        later.push(node.write(0, filled(4096, 3)).finally(() => { order.push('later write'); }));
        await node.drained(async () => { await new Promise((resolve) => setTimeout(resolve, 5)); });
        expect(node.inFlight).toBe(0);
        order.push('section');
      });
      await Promise.all([...before, ...later]);
      expect(order).toEqual(['section', 'later write']);
    });

    test('block status covers the whole range in steps that move on', async () => {
      await using node = await open(IMAGE);
      for (let offset = 0; offset < IMAGE;) {
        const status = await node.blockStatus(offset, IMAGE - offset);
        expect(status.bytes).toBeGreaterThan(0);
        expect(status.bytes).toBeLessThanOrEqual(IMAGE - offset);
        offset += status.bytes;
      }
    });
  });
}

function contentSuite(open: Open): void {
  describe('content', () => {
    test.each([1, 2, 3, 4])('random requests match a flat array (seed %i)', async (seed) => {
      const random = new Random(seed);
      await using node = await open(IMAGE);
      const model = new Model(node.driver.growable ? IMAGE * 2 : IMAGE, IMAGE, node.limits.requestAlignment);
      const pool = new BufferPool(256 * 1024);
      for (let step = 0; step < 250; step++) await randomStep(node, model, random, pool);
      expect(node.length()).toBe(model.length);
      expectSame(await bytesAt(node, 0, model.length), model.bytes.subarray(0, model.length), `seed ${seed}`);
      await statusMatchesContent(node);
    });

    test('what discard and write-zeroes leave reads as zeros, and their neighbours keep their bytes', async () => {
      for (const flags of [0, RequestFlag.MAY_UNMAP]) {
        await using node = await open(IMAGE);
        await node.write(0, filled(IMAGE, 7));
        await node.writeZeroes(4097, 20_001, flags);
        await node.discard(50_001, 9_999);
        const [start, end] = discarded(node, 50_001, 9_999);
        const expected = filled(IMAGE, 7).fill(0, 4097, 4097 + 20_001).fill(0, start, end);
        expectSame(await bytesAt(node, 0, IMAGE), expected, `flags ${flags}`);
      }
    });
  });
}

/** The flat array; its length grows as the driver's does: to whole alignment units. */
class Model {
  readonly bytes: Uint8Array;
  readonly alignment: number;
  length: number;

  constructor(capacity: number, length: number, alignment: number) {
    this.bytes = new Uint8Array(capacity);
    this.length = length;
    this.alignment = alignment;
  }

  write(offset: number, data: Uint8Array): void {
    this.bytes.set(data, offset);
    const end = offset + data.byteLength;
    if (end > this.length) this.length = alignUp(end, this.alignment);
  }

  zero(offset: number, bytes: number): void {
    this.bytes.fill(0, offset, offset + bytes);
    this.length = Math.max(this.length, offset + bytes);
  }
}

async function randomStep(node: BlockNode, model: Model, random: Random, pool: BufferPool): Promise<void> {
  const inside = (limit: number): [number, number] => {
    if (limit === 0) return [0, 0];
    const offset = random.chance(0.5) ? random.below(limit) : Math.floor(random.below(limit) / 4096) * 4096;
    const most = Math.min(limit - offset, random.chance(0.3) ? limit : 9000);
    return [offset, random.below(most + 1)];
  };
  const kind = random.below(12);
  const writable = node.driver.growable ? model.bytes.byteLength : model.length;
  const [offset, bytes] = inside(kind < 4 || kind === 6 || kind === 7 ? writable : model.length);
  if (kind < 4) return writeStep(node, model, random, pool, offset, bytes);
  if (kind < 6) return expectSame(await bytesAt(node, offset, bytes), model.bytes.subarray(offset, offset + bytes), `read ${offset}+${bytes}`);
  // zeroes end on a whole unit where they grow the node: whether they go down as they are or as writes is the driver's affair
  const whole = offset + bytes > model.length ? Math.min(alignUp(offset + bytes, model.alignment), writable) - offset : bytes;
  if (kind < 8) {
    await node.writeZeroes(offset, whole, random.chance(0.5) ? RequestFlag.MAY_UNMAP : 0);
    if (whole > 0) model.zero(offset, whole);
  } else if (kind === 8) {
    await node.discard(offset, bytes);
    const [start, end] = discarded(node, offset, bytes);
    if (end > start) model.zero(start, end - start);
  } else if (kind === 9) {
    await node.flush();
  } else if (kind === 10 && node.driver.resize !== undefined) {
    const length = Math.floor(random.below(model.bytes.byteLength) / model.alignment) * model.alignment;
    await node.drained(() => node.driver.resize!(length));
    model.bytes.fill(0, length);
    model.length = length;
  }
  expect(node.length()).toBe(model.length);
}

/** What a discard zeroes, start and end: the whole units of what the driver can discard; an empty range where there is none. */
function discarded(node: BlockNode, offset: number, bytes: number): [number, number] {
  const unit = node.limits.discardAlignment ?? 1;
  const start = alignUp(offset, unit);
  return [start, Math.max(start, alignDown(offset + bytes, unit))];
}

/** Half of the writes come from page-aligned memory, so that both the bounced and the direct path are used. */
async function writeStep(
  node: BlockNode, model: Model, random: Random, pool: BufferPool, offset: number, bytes: number,
): Promise<void> {
  const lease = bytes > 0 && random.chance(0.5) ? await pool.lease(bytes) : null;
  const data = lease?.buffer ?? new Uint8Array(bytes);
  random.fill(data);
  const copy = data.slice();
  await node.write(offset, data, random.chance(0.1) ? RequestFlag.FUA : 0);
  expectSame(data, copy, 'the caller’s buffer after a write');
  if (bytes > 0) model.write(offset, data);
  lease?.release();
}

/** A range called zero must read as zeros. */
async function statusMatchesContent(node: BlockNode): Promise<void> {
  for (let offset = 0; offset < node.length();) {
    const status = await node.blockStatus(offset, node.length() - offset);
    if (status.kind === 'zero') expectSame(await bytesAt(node, offset, status.bytes), new Uint8Array(status.bytes), `zeros at ${offset}`);
    offset += status.bytes;
  }
}

/** Makes every request take a random number of turns of the event loop, so that races show on drivers that never wait. */
class Dawdling implements BlockDriver {
  readonly kind = 'filter';
  readonly formatName = 'dawdling';
  readonly #child: BlockDriver;
  readonly #random: Random;

  constructor(child: BlockDriver, random: Random) {
    this.#child = child;
    this.#random = random;
  }

  get limits(): BlockDriver['limits'] { return this.#child.limits; }
  get growable(): boolean { return this.#child.growable; }
  length(): number { return this.#child.length(); }
  blockStatus(offset: number, bytes: number): ReturnType<BlockDriver['blockStatus']> { return this.#child.blockStatus(offset, bytes); }
  close(): Promise<void> { return this.#child.close(); }

  async submit(request: Parameters<BlockDriver['submit']>[0]): Promise<void> {
    await this.#dawdle();
    await this.#child.submit(request);
    await this.#dawdle();
  }

  async #dawdle(): Promise<void> {
    for (let turns = this.#random.below(4); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
  }
}

function concurrencySuite(subject: DriverUnderTest): void {
  describe('concurrent neighbours', () => {
    test.each([11, 12, 13])('no write, zero or discard of its own bytes is lost to another’s padding (seed %i)', async (seed) => {
      const random = new Random(seed);
      await using node = new BlockNode({ name: 'subject', driver: new Dawdling(await subject.make(IMAGE), random) });
      const model = filled(IMAGE, 0x55);
      await node.write(0, model);
      for (let round = 0; round < 30; round++) {
        await Promise.all(disjointRequests(node, model, random));
        expectSame(await bytesAt(node, 0, IMAGE), model, `seed ${seed} round ${round}`);
      }
    });

    test('appends of odd sizes, all in flight at once, end up side by side', async () => {
      await using node = new BlockNode({ name: 'subject', driver: new Dawdling(await subject.make(0), new Random(5)) });
      if (!node.driver.growable) return;
      const parts = Array.from({ length: 40 }, (_, index) => filled(100 + index * 37, index + 1));
      let end = 0;
      await Promise.all(parts.map((part) => {
        const write = node.write(end, part);
        end += part.byteLength;
        return write;
      }));
      expect(node.length()).toBe(alignUp(end, node.limits.requestAlignment));
      expectSame(await bytesAt(node, 0, end), Buffer.concat(parts), 'appended parts');
    });
  });
}

/** Cuts a stretch of the image at odd places and sends one request to each piece, without waiting in between. */
function disjointRequests(node: BlockNode, model: Uint8Array, random: Random): Promise<void>[] {
  const requests: Promise<void>[] = [];
  let offset = random.below(IMAGE / 2);
  for (let count = 0; count < 12; count++) {
    const bytes = 1 + random.below(1500);
    const kind = random.below(6);
    if (kind === 0) requests.push(node.writeZeroes(offset, bytes, random.chance(0.5) ? RequestFlag.MAY_UNMAP : 0));
    else if (kind === 1) requests.push(node.discard(offset, bytes));
    const value = kind <= 1 ? 0 : 1 + random.below(255);
    if (kind > 1) requests.push(node.write(offset, filled(bytes, value)));
    const [start, end] = kind === 1 ? discarded(node, offset, bytes) : [offset, offset + bytes];
    model.fill(value, start, end);
    offset += bytes;
  }
  return requests;
}

function growthSuite(open: Open): void {
  describe('far offsets', () => {
    test.each([['4 GiB', 2 ** 32], ['8 TiB', 8 * TiB]])('data around %s comes back, and its surroundings are zeros', async (_name, far) => {
      await using node = await open(0);
      if (!node.driver.growable) return;
      const data = filled(10_000, 0x3c);
      await node.write(far - 5_000, data);
      expect(node.length()).toBe(alignUp(far + 5_000, node.limits.requestAlignment));
      expectSame(await bytesAt(node, far - 9_000, 14_000), Buffer.concat([filled(4_000, 0), data]), 'around the boundary');
      expectSame(await bytesAt(node, far - 2 ** 32, 4_096), new Uint8Array(4096), 'the offset modulo 2^32');
      const status = await node.blockStatus(0, node.length());
      expect(status.bytes).toBeLessThanOrEqual(far - 5_000);
      expect(status.kind).toBe('zero');
      expect(await node.driver.allocatedBytes?.() ?? 0).toBeLessThan(1024 * 1024);
    });

    test('zeroes past the end extend the node', async () => {
      await using node = await open(0);
      if (!node.driver.growable) return;
      await node.write(0, filled(4096, 9));
      await node.writeZeroes(8192, 4096, RequestFlag.MAY_UNMAP);
      await node.writeZeroes(12288, 4096);
      expect(node.length()).toBe(16384);
      expectSame(await bytesAt(node, 0, 16384), Buffer.concat([filled(4096, 9), new Uint8Array(12288)]), 'extended');
    });

    test('a shrunk and regrown node has zeros where it was cut', async () => {
      await using node = await open(IMAGE);
      if (node.driver.resize === undefined) return;
      await node.write(0, filled(IMAGE, 4));
      await node.drained(() => node.driver.resize!(10_240));
      expect(node.length()).toBe(10_240);
      await node.drained(() => node.driver.resize!(IMAGE));
      expectSame(await bytesAt(node, 0, IMAGE), Buffer.concat([filled(10_240, 4), new Uint8Array(IMAGE - 10_240)]), 'regrown');
    });
  });
}
