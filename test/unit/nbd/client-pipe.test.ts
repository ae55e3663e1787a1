/** Reads and writes whose data stays in the kernel, against servers that answer in every way they may, and in some they may not. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { PipeBuffer } from '../../../src/base/pipe-buffer.js';
import { NbdClient } from '../../../src/nbd/client.js';
import { chunkOf, dataAt, u16, u32, u64, useScriptedServer, type ScriptedPeer, type ScriptedRequest } from '../../support/nbd-script.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const listen = useScriptedServer();
const BYTES = 200_000;
const UNIT = 50_000;
const SIZE = 2 ** 30;
let pipe: PipeBuffer;
let memory: Uint8Array;

beforeEach(() => {
  pipe = PipeBuffer.open()!;
  memory = new Uint8Array(BYTES).fill(0xee);
  pipe.begin(memory, UNIT);
});
afterEach(() => pipe.close());

async function connect(script: (peer: ScriptedPeer) => Promise<void>, options: { readonly structured?: boolean; readonly reconnectDelayMs?: number } = {}): Promise<NbdClient> {
  const { structured, reconnectDelayMs } = options;
  await listen(tmp('socket'), async (peer) => {
    await peer.serve({ size: SIZE, ...(structured === undefined ? { contexts: { 'base:allocation': 5 } } : { structured }) });
    await script(peer);
  });
  return NbdClient.open({ address: { type: 'unix', path: tmp('socket') }, handshakeTimeoutMs: 2000, reconnectDelayMs });
}

function filled(bytes: number, value: number): Uint8Array {
  return new Uint8Array(bytes).fill(value);
}

function hole(request: ScriptedRequest, at: number, bytes: number, done: boolean): Buffer {
  return chunkOf(request, 2, Buffer.concat([u64(BigInt(request.offset + at)), u32(bytes)]), done);
}

function some(request: ScriptedRequest, at: number, data: Uint8Array, done: boolean): Buffer {
  return chunkOf(request, 1, dataAt(request.offset + at, data), done);
}

/** Back to the server, which answers with success: what it got. */
async function sentFrom(): Promise<Buffer> {
  let payload: Buffer | null = null;
  await listen(tmp('target'), async (peer) => {
    await peer.serve({ size: SIZE });
    const write = await peer.request();
    ({ payload } = write);
    peer.simple(write);
    await peer.request();
    peer.close();
  });
  const target = await NbdClient.open({ address: { type: 'unix', path: tmp('target') } });
  await target.write(4096, memory, { pipe });
  await target.close();
  return payload!;
}

const halves = Buffer.concat([filled(BYTES / 2, 1), filled(BYTES / 2, 2)]);

test.each<[string, boolean | undefined, (request: ScriptedRequest) => Buffer]>([
  ['one chunk', undefined, (request) => some(request, 0, halves, true)],
  ['two chunks in order', undefined, (request) => Buffer.concat([some(request, 0, filled(BYTES / 2, 1), false), some(request, BYTES / 2, filled(BYTES / 2, 2), true)])],
  ['a simple reply', false, (request) => Buffer.concat([u32(0x67446698), u32(0), request.cookie, halves])],
])('%s: from server to server, never in memory', async (_what, structured, answer) => {
  const client = await connect(async (peer) => {
    const request = await peer.request();
    peer.write(answer(request));
    await peer.request();
    peer.close();
  }, structured === undefined ? {} : { structured });
  await client.read(SIZE / 2, memory, pipe);
  expect([pipe.inKernel, memory.every((byte) => byte === 0xee)]).toEqual([true, true]);
  expect(Buffer.compare(await sentFrom(), halves)).toBe(0);
  await client.close();
});

test.each<[string, (request: ScriptedRequest) => Buffer[], number[]]>([
  ['out of order', (request) => [some(request, BYTES / 2, filled(BYTES / 2, 2), false), some(request, 0, filled(BYTES / 2, 1), true)], [1, 1, 2, 2]],
  ['a hole first', (request) => [hole(request, 0, BYTES / 2, false), some(request, BYTES / 2, filled(BYTES / 2, 2), true)], [0, 0, 2, 2]],
  ['a hole last', (request) => [some(request, 0, filled(BYTES / 2, 1), false), hole(request, BYTES / 2, BYTES / 2, true)], [1, 1, 0, 0]],
  ['zeros as data', (request) => [some(request, 0, filled(UNIT * 2, 1), false), some(request, UNIT * 2, filled(UNIT, 0), false), some(request, UNIT * 3, filled(UNIT, 3), true)], [1, 1, 0, 3]],
])('%s: it is in memory afterwards', async (_what, answer, units) => {
  const client = await connect(async (peer) => {
    const request = await peer.request();
    for (const chunk of answer(request)) {
      peer.write(chunk);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await peer.request();
    peer.close();
  });
  await client.read(0, memory, pipe);
  expect(pipe.inKernel).toBe(false);
  expect(Buffer.compare(memory, Buffer.concat(units.map((value) => filled(UNIT, value))))).toBe(0);
  expect(Buffer.compare(await sentFrom(), memory)).toBe(0);
  await client.close();
});

test('an error in the middle of the data ends the read only, and the pipe can be used again', async () => {
  const client = await connect(async (peer) => {
    const bad = await peer.request();
    peer.write(some(bad, 0, filled(BYTES / 2, 1), false), chunkOf(bad, 0x8001, Buffer.concat([u32(5), u16(0)]), true));
    const good = await peer.request();
    peer.write(some(good, 0, halves, true));
    await peer.request();
    peer.close();
  });
  await expect(client.read(0, memory, pipe)).rejects.toMatchObject({ code: 'IO', errno: 'EIO' });
  pipe.begin(memory, UNIT);
  await client.read(0, memory, pipe);
  expect(Buffer.compare(await sentFrom(), halves)).toBe(0);
  await client.close();
});

test.each([true, false])('less data than was asked for is a broken protocol, not a crash (pipe: %p)', async (piped) => {
  const client = await connect(async (peer) => {
    const request = await peer.request();
    const chunk = some(request, 0, filled(BYTES / 2, 1), true);
    for (let at = 0; at < chunk.byteLength; at += 10_000) {
      peer.write(chunk.subarray(at, at + 10_000));
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  });
  await expect(client.read(0, memory, piped ? pipe : undefined)).rejects.toMatchObject({ code: 'PROTOCOL' });
  await client.close();
});

test('a read that was lost half way begins anew over another connection; a write cannot, and fails', async () => {
  let turn = 0;
  const client = await connect(async (peer) => {
    const request = await peer.request();
    if (turn++ === 0) {
      peer.write(some(request, 0, halves, true).subarray(0, BYTES / 2));
      await new Promise((resolve) => setTimeout(resolve, 50));
      return peer.close();
    }
    if (turn === 2) peer.write(some(request, 0, halves, true));
    await peer.request();
    peer.close();
  }, { reconnectDelayMs: 5000 });
  expect(client.pipeBytes).toBe(0);
  await client.read(0, memory, pipe);
  expect(pipe.inKernel).toBe(true);
  await expect(client.write(0, memory, { pipe })).rejects.toMatchObject({ code: 'IO' });
  await client.close();
});
