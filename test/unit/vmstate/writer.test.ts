import { describe, expect, test } from '@jest/globals';
import { KiB, MiB } from '../../../src/base/bytes.js';
import { Random } from '../../../src/base/clock.js';
import { BlockError } from '../../../src/base/errors.js';
import { VmStateWriter } from '../../../src/vmstate/writer.js';
import { randomBytes } from '../../support/random-bytes.js';
import { FakeArea, Gate, settle } from '../../support/vmstate-fakes.js';

/** Random delays, so that writes end in another order than they began. */
function shuffledLatency(area: FakeArea, seed: number): void {
  const random = new Random(seed);
  area.onSave = () => new Promise((resolve) => setTimeout(resolve, random.below(4)));
}

function sameBytes(actual: Uint8Array, expected: Uint8Array): boolean {
  return Buffer.compare(actual, expected) === 0;
}

describe('VmStateWriter', () => {
  test('pieces of any size come out as aligned chunks, 8 at a time', async () => {
    const area = new FakeArea();
    shuffledLatency(area, 7);
    const data = randomBytes(12 * MiB + 4321);
    const writer = new VmStateWriter(area);
    const random = new Random(3);
    for (let at = 0; at < data.byteLength;) {
      const piece = data.subarray(at, at + 1 + random.below(random.chance(0.1) ? 3 * MiB : 40 * KiB));
      await writer.write(piece);
      at += piece.byteLength;
    }
    expect(await writer.finish()).toBe(data.byteLength);
    expect(sameBytes(area.memory.subarray(0, data.byteLength), data)).toBe(true);
    expect(area.maxInFlight).toBe(8);
    expect(area.saves.every(({ position, bytes }) => position % MiB === 0 && bytes % area.clusterSize === 0)).toBe(true);
    expect(area.saves.length).toBe(13);
    expect(writer.bytesHeld).toBe(0);
  });

  test('space and advance fill the chunk itself', async () => {
    const area = new FakeArea();
    const data = randomBytes(3 * MiB + 77);
    const writer = new VmStateWriter(area);
    for (let at = 0; at < data.byteLength;) {
      const room = await writer.space();
      const part = data.subarray(at, at + Math.min(room.byteLength, 100_000));
      room.set(part);
      writer.advance(part.byteLength);
      at += part.byteLength;
    }
    await writer.space();
    expect(await writer.finish()).toBe(data.byteLength);
    expect(sameBytes(area.memory.subarray(0, data.byteLength), data)).toBe(true);
  });

  test('a chunk is a cluster where clusters are larger, and always whole clusters', () => {
    expect(new VmStateWriter(new FakeArea(2 * MiB)).chunkSize).toBe(2 * MiB);
    expect(new VmStateWriter(new FakeArea(64 * KiB), { chunkSize: 100_000 }).chunkSize).toBe(128 * KiB);
    expect(() => new VmStateWriter(new FakeArea(), { depth: 0 })).toThrow('depth must be from 1 to 64');
    expect(() => new VmStateWriter(new FakeArea(), { depth: 64, chunkSize: 64 * MiB })).toThrow('more than 512 MiB');
  });

  test('an empty state has no chunk', async () => {
    const area = new FakeArea();
    expect(await new VmStateWriter(area).finish()).toBe(0);
    expect(area.saves).toEqual([]);
  });

  test.each([0, 3, 8, 9])('V-1: an error of in-flight chunk %i fails finish with that error', async (failing) => {
    const area = new FakeArea();
    area.onSave = async (_, index) => {
      await settle();
      if (index === failing) throw new BlockError('IO', `chunk ${index} failed`);
    };
    const writer = new VmStateWriter(area, { chunkSize: 64 * KiB });
    let rejected: unknown = null;
    try {
      for (let n = 0; n < 10; n++) await writer.write(randomBytes(64 * KiB, n));
    } catch (error) {
      rejected = error;
    }
    await expect(writer.finish()).rejects.toThrow(`chunk ${failing} failed`);
    if (rejected !== null) expect((rejected as Error).message).toBe(`chunk ${failing} failed`);
    await expect(writer.write(new Uint8Array(1))).rejects.toThrow(`chunk ${failing} failed`);
    await expect(Promise.resolve(writer.space())).rejects.toThrow(`chunk ${failing} failed`);
    await expect(writer.writeAt(0, new Uint8Array(1))).rejects.toThrow(`chunk ${failing} failed`);
    expect(writer.bytesHeld).toBe(0);
  });

  test('V-1: finish does not resolve before the last write ended', async () => {
    const area = new FakeArea();
    const gate = new Gate();
    area.onSave = () => gate.opened;
    const writer = new VmStateWriter(area);
    await writer.write(new Uint8Array(10));
    let done = false;
    const finished = writer.finish().then(() => { done = true; });
    await settle();
    expect(done).toBe(false);
    gate.open();
    await finished;
    expect(done).toBe(true);
  });

  test('V-2: abort waits for writes in flight, frees all buffers, and a new writer on the area works', async () => {
    const area = new FakeArea();
    const gate = new Gate();
    area.onSave = () => gate.opened;
    const writer = new VmStateWriter(area, { chunkSize: 64 * KiB });
    for (let n = 0; n < 9; n++) await writer.write(new Uint8Array(64 * KiB).fill(n));
    expect(writer.bytesHeld).toBe(9 * 64 * KiB);
    const aborted = writer.abort();
    await settle();
    expect(writer.bytesHeld).toBe(9 * 64 * KiB);
    gate.open();
    await aborted;
    expect([writer.bytesHeld, area.inFlight]).toEqual([0, 0]);
    await expect(writer.write(new Uint8Array(1))).rejects.toMatchObject({ code: 'CLOSED' });
    await area.discard();
    const data = randomBytes(200_000);
    await using second = new VmStateWriter(area);
    await second.write(data);
    expect(await second.finish()).toBe(200_000);
    expect(sameBytes(area.memory.subarray(0, 200_000), data)).toBe(true);
  });

  test('V-2: after a failed save a new writer on the same area works', async () => {
    const area = new FakeArea();
    area.onSave = () => { throw new BlockError('NO_SPACE', 'full'); };
    const writer = new VmStateWriter(area);
    await writer.write(new Uint8Array(MiB));
    await expect(writer.finish()).rejects.toMatchObject({ code: 'NO_SPACE' });
    expect(writer.bytesHeld).toBe(0);
    area.onSave = () => undefined;
    const second = new VmStateWriter(area);
    await second.write(new Uint8Array([1, 2, 3]));
    expect(await second.finish()).toBe(3);
    expect([...area.memory.subarray(0, 3)]).toEqual([1, 2, 3]);
  });

  test('V-3: seek-back writes over stored, in-flight and buffered chunks: later data wins', async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const area = new FakeArea(4 * KiB);
      shuffledLatency(area, seed);
      const random = new Random(seed);
      const writer = new VmStateWriter(area, { chunkSize: 8 * KiB, depth: 3 });
      const model = new Uint8Array(200 * KiB);
      let end = 0;
      for (let step = 0; step < 40; step++) {
        const data = randomBytes(1 + random.below(20 * KiB), seed * 1000 + step);
        const position = random.chance(0.6) ? writer.position : random.below(100 * KiB);
        if (position + data.byteLength > model.byteLength) break;
        if (position === writer.position && random.chance(0.5)) await writer.write(data);
        else await writer.writeAt(position, data);
        model.set(data, position);
        end = Math.max(end, position + data.byteLength);
      }
      expect(await writer.finish()).toBe(end);
      const stored = new Uint8Array(end);
      await area.load(0, stored);
      expect({ seed, same: sameBytes(stored, model.subarray(0, end)) }).toEqual({ seed, same: true });
      expect(writer.bytesHeld).toBe(0);
    }
  });

  test('V-3: calls that are not awaited keep their order', async () => {
    const area = new FakeArea(4 * KiB);
    shuffledLatency(area, 5);
    const writer = new VmStateWriter(area, { chunkSize: 4 * KiB, depth: 2 });
    const pieces = Array.from({ length: 50 }, (_, n) => randomBytes(1 + (n * 977) % 9000, n + 1));
    await Promise.all(pieces.map((piece) => writer.write(piece)));
    const total = await writer.finish();
    expect(sameBytes(area.memory.subarray(0, total), Buffer.concat(pieces))).toBe(true);
  });

  test('V-4: the last chunk is padded with zeros to clusters, and the size is the bytes produced', async () => {
    const area = new FakeArea(64 * KiB);
    const writer = new VmStateWriter(area, { chunkSize: 128 * KiB });
    await writer.write(new Uint8Array(256 * KiB).fill(0xff));
    await writer.write(new Uint8Array(100).fill(0xee));
    expect(await writer.finish()).toBe(256 * KiB + 100);
    expect(area.saves.at(-1)).toEqual({ position: 256 * KiB, bytes: 64 * KiB });
    expect(area.memory.subarray(256 * KiB + 100).every((byte) => byte === 0)).toBe(true);
  });

  test('V-6: memory is depth + 1 chunks at most; the producer waits for a slot', async () => {
    const area = new FakeArea();
    const gate = new Gate();
    area.onSave = () => gate.opened;
    const writer = new VmStateWriter(area, { chunkSize: 64 * KiB, depth: 8 });
    let written = 0;
    const producer = (async () => {
      for (; written < 100; written++) await writer.write(new Uint8Array(64 * KiB).fill(written));
    })();
    await settle();
    expect([area.inFlight, written, writer.bytesHeld]).toEqual([8, 9, 9 * 64 * KiB]);
    gate.open();
    await producer;
    await writer.finish();
    expect(area.saves.length).toBe(100);
    expect(area.maxInFlight).toBe(8);
  });

  test('V-7: the producer may reuse its buffer after write', async () => {
    const area = new FakeArea();
    const gate = new Gate();
    area.onSave = () => gate.opened;
    const writer = new VmStateWriter(area, { chunkSize: 64 * KiB });
    const reused = new Uint8Array(48 * KiB);
    for (let n = 1; n <= 6; n++) await writer.write(reused.fill(n));
    reused.fill(0xff);
    gate.open();
    const total = await writer.finish();
    expect(total).toBe(288 * KiB);
    for (let n = 1; n <= 6; n++) expect(area.memory.subarray((n - 1) * 48 * KiB, n * 48 * KiB).every((byte) => byte === n)).toBe(true);
  });

  test('V-8: 8 parallel writers start in stream order, each chunk once', async () => {
    const area = new FakeArea();
    shuffledLatency(area, 11);
    const writer = new VmStateWriter(area, { chunkSize: 64 * KiB });
    for (let n = 0; n < 40; n++) await writer.write(new Uint8Array(64 * KiB));
    await writer.finish();
    expect(area.saves.map((save) => save.position)).toEqual(Array.from({ length: 40 }, (_, n) => n * 64 * KiB));
  });

  test('an abort signal ends the producer, and all memory comes back', async () => {
    const area = new FakeArea();
    const controller = new AbortController();
    const writer = new VmStateWriter(area, { chunkSize: 64 * KiB, signal: controller.signal });
    await writer.write(new Uint8Array(64 * KiB));
    controller.abort();
    await expect(writer.write(new Uint8Array(64 * KiB))).rejects.toMatchObject({ code: 'CANCELLED' });
    await expect(writer.finish()).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(writer.bytesHeld).toBe(0);
  });
});
