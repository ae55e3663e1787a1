import { describe, expect, test } from '@jest/globals';
import { MiB } from '../../../src/base/bytes.js';
import { checkStreamEnd } from '../../../src/vmstate/qemu-stream.js';
import { FakeSource } from '../../support/vmstate-fakes.js';

const HEAD = Buffer.from('QEVM\0\0\0\x03');

function record(json: string): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(Buffer.byteLength(json));
  return Buffer.concat([Buffer.from([0, 6]), length, Buffer.from(json)]);
}

function check(stream: Uint8Array): Promise<string> {
  return checkStreamEnd(new FakeSource(stream), stream.byteLength);
}

const JSON_SIZES = [2, 255, 256, 65_535, 65_536, 65_792, 300_000, 5 * MiB];

describe('checkStreamEnd', () => {
  test.each(JSON_SIZES)('a stream whose description has %i bytes is whole', async (size) => {
    const json = size === 2 ? '{}' : `{"a":"${'x'.repeat(size - 8)}"}`;
    expect(json.length).toBe(size);
    expect(await check(Buffer.concat([HEAD, Buffer.alloc(100, 7), record(json)]))).toBe('qemu');
    expect(await check(Buffer.concat([HEAD, record(json)]))).toBe('qemu');
  });

  test('every truncation of a stream is refused, and any byte after its end', async () => {
    const whole = Buffer.concat([HEAD, Buffer.alloc(50), record('{"page_size": 4096, "devices": []}')]);
    for (let bytes = 4; bytes < whole.byteLength; bytes++) {
      await expect(check(whole.subarray(0, bytes))).rejects.toMatchObject({ code: 'PROTOCOL' });
    }
    await expect(check(Buffer.concat([whole, Buffer.from([0])]))).rejects.toThrow('without its end mark');
  });

  test('a description inside the RAM of a cut stream does not count', async () => {
    const inner = record('{"a":1}');
    await expect(check(Buffer.concat([HEAD, inner, Buffer.alloc(3 * MiB, 6)]))).rejects.toMatchObject({ code: 'PROTOCOL' });
  });

  test('the bytes must be JSON', async () => {
    await expect(check(Buffer.concat([HEAD, record('{"a":')]))).rejects.toMatchObject({ code: 'PROTOCOL' });
    await expect(check(Buffer.concat([HEAD, record('[1, 2]')]))).rejects.toMatchObject({ code: 'PROTOCOL' });
  });

  test('a stream without the magic is opaque, one without a byte is empty', async () => {
    expect(await check(Buffer.from('anything'))).toBe('opaque');
    for (const bytes of [1, 2, 3]) expect(await check(HEAD.subarray(0, bytes))).toBe('opaque');
    expect(await check(Buffer.alloc(0))).toBe('empty');
  });

  test('no more than 16 MiB are looked at', async () => {
    const stream = Buffer.concat([HEAD, Buffer.alloc(40 * MiB, 0x20)]);
    const source = new FakeSource(stream);
    await expect(checkStreamEnd(source, stream.byteLength)).rejects.toThrow('without its end mark');
    expect(Math.max(...source.loads.map((load) => load.bytes))).toBeLessThan(17 * MiB);
  });
});
