/** What goes through a pipe from one socket to another, and what ends up in memory instead. */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { Random } from '../../../src/base/clock.js';
import { PipeBuffer } from '../../../src/base/pipe-buffer.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;
let server: Server;
let pipe: PipeBuffer;
const sockets: Socket[] = [];

beforeEach(async () => {
  server = createServer({ pauseOnConnect: true });
  server.listen(tmp('socket'));
  await once(server, 'listening');
  pipe = PipeBuffer.open()!;
});

afterEach(() => {
  pipe.close();
  for (const socket of sockets.splice(0)) socket.destroy();
  server.close();
});

/** What is written to the first can be taken out of the second. */
async function pair(): Promise<[Socket, Socket]> {
  const near = connect(tmp('socket'));
  const [far] = await once(server, 'connection') as [Socket];
  sockets.push(near, far);
  return [near, far];
}

function descriptor(socket: Socket): number {
  return (socket as unknown as { _handle: { fd: number } })._handle.fd;
}

function written(socket: Socket, data: Uint8Array): Promise<void> {
  return new Promise((resolve) => { socket.write(data, () => resolve()); });
}

/** Data in every byte. */
function data(bytes: number, seed = 1): Buffer {
  const made = Buffer.alloc(bytes);
  new Random(seed).fill(made);
  return made.map((byte) => byte === 0 ? 1 : byte) as Buffer;
}

/** Sends in pieces that fit, and takes all of them. */
async function through(content: Buffer, piece: number, herald = 0): Promise<void> {
  const [near, far] = await pair();
  for (let at = 0; at < content.byteLength; at += piece) {
    await written(near, content.subarray(at + Math.min(herald, content.byteLength - at), at + piece));
    if (herald > 0) pipe.append(content.subarray(at, Math.min(at + herald, content.byteLength)));
    if (pipe.inKernel) pipe.pull(descriptor(far), content.byteLength - pipe.filled);
    if (!pipe.inKernel) return;
  }
}

async function received(): Promise<Buffer> {
  const [near, far] = await pair();
  const pieces: Buffer[] = [];
  far.on('data', (piece: Buffer) => pieces.push(piece)).resume();
  while (pipe.left > 0) {
    if (!pipe.push(descriptor(near))) await written(near, pipe.take());
  }
  near.end();
  await once(far, 'end');
  return Buffer.concat(pieces);
}

test('data stays in the kernel, whole and in order, with parts that came through memory', async () => {
  const content = data(300 * KiB + 77);
  for (const herald of [0, 13, 64]) {
    pipe.begin(new Uint8Array(content.byteLength), 64 * KiB);
    await through(content, 50_000, herald);
    expect([pipe.inKernel, pipe.filled, pipe.left]).toEqual([true, content.byteLength, content.byteLength]);
    expect(Buffer.compare(await received(), content)).toBe(0);
  }
});

test('what does not fit in the reader\'s socket goes on as the reader reads', async () => {
  const content = data(900 * KiB);
  pipe.begin(new Uint8Array(content.byteLength), 0);
  await through(content, 90 * KiB);
  expect(pipe.left).toBe(content.byteLength);
  expect(Buffer.compare(await received(), content)).toBe(0);
});

test('a unit that may be zeros brings all that has come into memory', async () => {
  const content = data(256 * KiB);
  content.fill(0, 128 * KiB, 192 * KiB);
  for (const herald of [0, 100]) {
    const memory = new Uint8Array(content.byteLength);
    pipe.begin(memory, 64 * KiB);
    await through(content, 30_000, herald);
    expect(pipe.inKernel).toBe(false);
    expect(pipe.filled).toBeGreaterThanOrEqual(128 * KiB);
    expect(Buffer.compare(memory.subarray(0, pipe.filled), content.subarray(0, pipe.filled))).toBe(0);
    pipe.append(content.subarray(pipe.filled));
    expect(Buffer.compare(memory, content)).toBe(0);
  }
});

test('a unit of which only memory saw a part, all zeros, is not taken for data', async () => {
  const content = Buffer.concat([data(1000), Buffer.alloc(1000)]);
  const memory = new Uint8Array(2000);
  pipe.begin(memory, 1000);
  pipe.append(content.subarray(0, 700));
  pipe.append(content.subarray(700, 1500));
  expect(pipe.inKernel).toBe(true);
  pipe.append(content.subarray(1500));
  expect([pipe.inKernel, pipe.filled]).toEqual([false, 2000]);
  expect(Buffer.compare(memory, content)).toBe(0);
});

test('a pipe without room spills: many small pieces take a place each', async () => {
  const content = data(600 * KiB);
  const memory = new Uint8Array(content.byteLength);
  pipe.begin(memory, 0);
  const [near, far] = await pair();
  for (let at = 0; pipe.inKernel; at += 600) {
    await written(near, content.subarray(at, at + 600));
    pipe.pull(descriptor(far), 600);
    if (at > 500_000) break;
  }
  expect(pipe.inKernel).toBe(false);
  expect(Buffer.compare(memory.subarray(0, pipe.filled), content.subarray(0, pipe.filled))).toBe(0);
});

test('begun or restarted, it knows nothing of what was in it', async () => {
  pipe.begin(new Uint8Array(8 * KiB), 0);
  await through(data(4 * KiB, 1), 4 * KiB);
  pipe.restart();
  expect([pipe.filled, pipe.left]).toEqual([0, 0]);
  await through(data(8 * KiB, 2), 8 * KiB);
  expect(Buffer.compare(await received(), data(8 * KiB, 2))).toBe(0);
  pipe.begin(new Uint8Array(2048 * KiB + 1), 0);
  expect(pipe.inKernel).toBe(false);
});

test('a closed or empty socket brings nothing', async () => {
  const [near, far] = await pair();
  pipe.begin(new Uint8Array(100), 0);
  expect(pipe.pull(descriptor(far), 100)).toBe(0);
  near.destroy();
  await once(near, 'close');
  expect([pipe.pull(descriptor(far), 100), pipe.pull(-1, 100), pipe.inKernel]).toEqual([0, 0, true]);
  pipe.append(new Uint8Array([1]));
  expect([pipe.push(descriptor(far)), pipe.push(-1), pipe.left]).toEqual([false, false, 1]);
});
