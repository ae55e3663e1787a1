import { describe, expect, test } from '@jest/globals';
import { KiB, MiB } from '../../../src/base/bytes.js';
import { isAlignedBuffer } from '../../../src/base/buffer-pool.js';
import { BlockError } from '../../../src/base/errors.js';
import { VmStateReader } from '../../../src/vmstate/reader.js';
import { randomBytes } from '../../support/random-bytes.js';
import { FakeSource, Gate, settle } from '../../support/vmstate-fakes.js';

async function readAll(reader: VmStateReader): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const chunk of reader) parts.push(chunk.slice());
  return Buffer.concat(parts);
}

describe('VmStateReader', () => {
  test.each([1, 4095, 64 * KiB, 3 * MiB, 12 * MiB + 5])('%i bytes come out in order', async (bytes) => {
    const data = randomBytes(bytes);
    const reader = new VmStateReader(new FakeSource(data));
    expect(Buffer.compare(await readAll(reader), data)).toBe(0);
    expect([reader.position, reader.bytesHeld]).toEqual([bytes, 0]);
  });

  test('short reads of the source are put together', async () => {
    const data = randomBytes(300 * KiB);
    const source = new FakeSource(data);
    const load = source.load.bind(source);
    source.load = (position, into) => load(position, into.subarray(0, 7777));
    expect(Buffer.compare(await readAll(new VmStateReader(source, { chunkSize: 64 * KiB })), data)).toBe(0);
  });

  test('V-5: a zero-length state reads nothing', async () => {
    const source = new FakeSource(new Uint8Array(0));
    const reader = new VmStateReader(source);
    expect(await reader.next()).toBeNull();
    await reader.close();
    expect(source.loads).toEqual([]);
  });

  test('V-5: read-ahead ends at the recorded size', async () => {
    const source = new FakeSource(randomBytes(5 * MiB), 2 * MiB + 100);
    const data = await readAll(new VmStateReader(source));
    expect(data.byteLength).toBe(2 * MiB + 100);
    expect(source.loads.every((load) => load.position + load.bytes <= 2 * MiB + 100)).toBe(true);
  });

  test('V-5: an error beyond what the consumer takes does not fail it', async () => {
    const source = new FakeSource(randomBytes(4 * MiB));
    source.onLoad = ({ position }) => {
      if (position >= 2 * MiB) throw new BlockError('IO', 'bad sector');
    };
    const reader = new VmStateReader(source, { chunkSize: MiB });
    expect((await reader.next())!.byteLength).toBe(MiB);
    await settle();
    expect((await reader.next())!.byteLength).toBe(MiB);
    await reader.close();
    expect(reader.bytesHeld).toBe(0);
  });

  test('V-5: the error is thrown at its place', async () => {
    const source = new FakeSource(randomBytes(4 * MiB));
    source.onLoad = ({ position }) => {
      if (position >= 2 * MiB) throw new BlockError('IO', 'bad sector');
    };
    const reader = new VmStateReader(source, { chunkSize: MiB });
    await reader.next();
    await reader.next();
    await expect(reader.next()).rejects.toThrow('bad sector');
    await expect(reader.next()).rejects.toThrow('bad sector');
    await reader.close();
    expect(reader.bytesHeld).toBe(0);
  });

  test('V-5: a state shorter than recorded is an error, not an end', async () => {
    const reader = new VmStateReader(new FakeSource(randomBytes(MiB), 2 * MiB), { chunkSize: MiB });
    await reader.next();
    await expect(reader.next()).rejects.toMatchObject({ code: 'CORRUPT' });
    await reader.close();
  });

  test('V-5: a state over 4 GiB keeps its positions', async () => {
    const size = 5 * 1024 * MiB + 3;
    const loads: number[] = [];
    const reader = new VmStateReader({
      size,
      load: (position, into) => {
        loads.push(position);
        return Promise.resolve(into.byteLength);
      },
    }, { chunkSize: 32 * MiB, readAhead: 64 * MiB });
    let bytes = 0;
    for await (const chunk of reader) bytes += chunk.byteLength;
    expect(bytes).toBe(size);
    expect(loads.at(-1)).toBe(160 * 32 * MiB);
  });

  test('V-6: at most 10 MiB and one chunk are held', async () => {
    const source = new FakeSource(randomBytes(30 * MiB));
    const reader = new VmStateReader(source);
    await reader.next();
    await settle();
    expect(source.loads.length).toBe(6);
    expect(reader.bytesHeld).toBe(12 * MiB);
    await reader.next();
    await settle();
    expect(source.loads.length).toBe(7);
    await reader.close();
    expect(reader.bytesHeld).toBe(0);
  });

  test('V-13: one request in flight, the next issued when the former ends, without the consumer asking', async () => {
    const source = new FakeSource(randomBytes(20 * MiB));
    const gates = Array.from({ length: 20 }, () => new Gate());
    source.onLoad = (_, index) => gates[index]!.opened;
    const reader = new VmStateReader(source, { chunkSize: MiB });
    const first = reader.next();
    for (let n = 0; n < 10; n++) {
      await settle();
      expect(source.loads.length).toBe(n + 1);
      gates[n]!.open();
    }
    await first;
    for (const gate of gates) gate.open();
    while (await reader.next() !== null) await settle();
    expect(source.maxInFlight).toBe(1);
    await reader.close();
  });

  test('with a depth of 4 requests overlap, and chunks still come out in order, whichever ends first', async () => {
    const data = randomBytes(16 * MiB + 3);
    const source = new FakeSource(data);
    source.onLoad = async (_, index) => { await new Promise((resolve) => setTimeout(resolve, (index * 7) % 5)); };
    const reader = new VmStateReader(source, { chunkSize: MiB, depth: 4 });
    expect(Buffer.compare(await readAll(reader), data)).toBe(0);
    expect([source.maxInFlight, reader.bytesHeld]).toEqual([4, 0]);
  });

  test('with a depth of 4 an error comes after all that lies before it', async () => {
    const source = new FakeSource(randomBytes(8 * MiB));
    source.onLoad = ({ position }) => {
      if (position === 2 * MiB) throw new BlockError('IO', 'bad sector');
      return settle();
    };
    const reader = new VmStateReader(source, { chunkSize: MiB, depth: 4 });
    expect((await reader.next())!.byteLength).toBe(MiB);
    expect((await reader.next())!.byteLength).toBe(MiB);
    await expect(reader.next()).rejects.toThrow('bad sector');
    await reader.close();
    expect(reader.bytesHeld).toBe(0);
  });

  test('V-14: buffers are page-aligned', async () => {
    const reader = new VmStateReader(new FakeSource(randomBytes(3 * MiB)));
    for await (const chunk of reader) expect(isAlignedBuffer(chunk, 4096)).toBe(true);
  });

  test('close waits for the read in flight; leaving a loop closes', async () => {
    const source = new FakeSource(randomBytes(5 * MiB));
    const gate = new Gate();
    source.onLoad = (_, index) => index === 1 ? gate.opened : undefined;
    const reader = new VmStateReader(source, { chunkSize: MiB });
    const left = (async () => {
      for await (const chunk of reader) {
        expect(chunk.byteLength).toBe(MiB);
        break;
      }
    })();
    await settle();
    expect(source.inFlight).toBe(1);
    gate.open();
    await left;
    expect([source.inFlight, source.loads.length, reader.bytesHeld]).toEqual([0, 2, 0]);
    await expect(reader.next()).rejects.toMatchObject({ code: 'CLOSED' });
  });

  test('an abort signal wakes a waiting consumer at once', async () => {
    const source = new FakeSource(randomBytes(5 * MiB));
    const gate = new Gate();
    source.onLoad = () => gate.opened;
    const controller = new AbortController();
    const reader = new VmStateReader(source, { signal: controller.signal });
    const waiting = reader.next();
    await settle();
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ code: 'CANCELLED' });
    gate.open();
    await reader.close();
    expect(reader.bytesHeld).toBe(0);
  });
});
