/** A server that talks garbage, or sense that was damaged on its way: every call ends, with a BlockError or well, in bounded memory. */
import { createServer, type Socket } from 'node:net';
import { afterAll, expect, test } from '@jest/globals';
import { Random } from '../../src/base/clock.js';
import { BlockError } from '../../src/base/errors.js';
import { NbdClient } from '../../src/nbd/client.js';
import { nbdServerFacts } from '../../src/nbd/server-facts.js';
import { chunkOf, dataAt, ScriptedPeer, u16, u32, type ScriptedRequest } from '../support/nbd-script.js';
import { useTmp } from '../support/tmp.js';

const SEEDS = 150;
const BYTES_LIMIT = 96 * 1024 * 1024;
const sockets = new Set<Socket>();
const tmp = useTmp();
afterAll(() => { for (const socket of sockets) socket.destroy(); });

type Damage = (data: Buffer) => Buffer;

/** Damages what is written, from a random byte of the stream on, with one of several hands. */
function damageOf(random: Random): Damage {
  let at = random.below(random.pick([30, 200, 2000]));
  const hand = random.below(6);
  return (data) => {
    if (at >= data.byteLength) {
      at -= data.byteLength;
      return data;
    }
    const start = Math.max(at, 0);
    at = hand < 3 ? random.below(400) : -1;
    switch (hand) {
      case 0: {
        data[start] = random.next32();
        return data;
      }
      case 1: {
        data[start] = data[start]! ^ (1 << random.below(8));
        return data;
      }
      case 2: {
        const extra = Buffer.alloc(random.below(40));
        random.fill(extra);
        return Buffer.concat([data.subarray(0, start), extra, data.subarray(start)]);
      }
      case 3:
        return Buffer.concat([data.subarray(0, start), data.subarray(start + random.below(9))]);
      case 4: {
        random.fill(data.subarray(start));
        return data;
      }
      default:
        return Buffer.concat([data.subarray(0, start), Buffer.alloc(Math.min(16, data.byteLength - start), 0xff), data.subarray(start + 16)]);
    }
  };
}

async function converse(peer: ScriptedPeer, random: Random): Promise<void> {
  await peer.serve({ structured: random.chance(0.8), contexts: { 'base:allocation': 1 }, ...(random.chance(0.5) ? { blocks: [1, 4096, 65_536] as const } : {}) });
  for (;;) answer(peer, await peer.request(), random);
}

function answer(peer: ScriptedPeer, request: ScriptedRequest, random: Random): void {
  const half = Math.ceil(request.bytes / 2);
  if (random.chance(0.1)) peer.chunk(request, 0x8001, Buffer.concat([u32(5), u16(3), Buffer.from('bad')]), true);
  else if (request.command === 0) {
    peer.write(chunkOf(request, 1, dataAt(request.offset + half, Buffer.alloc(request.bytes - half, 1)), false),
      chunkOf(request, 1, dataAt(request.offset, Buffer.alloc(half, 1)), true));
  } else if (request.command === 7) peer.chunk(request, 5, Buffer.concat([u32(1), u32(4096), u32(0), u32(8192), u32(3)]), true);
  else peer.simple(request);
}

async function listenDamaged(path: string, random: Random): Promise<() => Promise<void>> {
  const server = createServer((socket) => {
    sockets.add(socket);
    const damage = damageOf(random);
    const write = socket.write.bind(socket);
    const timer = setTimeout(() => socket.destroy(), 150);
    socket.on('close', () => clearTimeout(timer));
    socket.write = (data: Uint8Array | string): boolean => write(damage(Buffer.from(data)));
    converse(new ScriptedPeer(socket), random).catch(() => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return () => new Promise((resolve) => {
    for (const socket of sockets) socket.destroy();
    sockets.clear();
    server.close(() => resolve());
  });
}

async function useAll(path: string): Promise<unknown[]> {
  const address = { type: 'unix', path } as const;
  const limits = { handshakeTimeoutMs: 120 };
  const outcomes: PromiseSettledResult<unknown>[] = [...await Promise.allSettled([nbdServerFacts({ address, exportName: '', timeoutMs: 120 })])];
  const [opened] = await Promise.allSettled([NbdClient.open({ address, ...limits, connections: 2 })]);
  outcomes.push(opened);
  if (opened.status === 'fulfilled') {
    const client = opened.value;
    for (let round = 0; round < 3; round++) {
      outcomes.push(...await Promise.allSettled([
        client.read(0, new Uint8Array(3000)), client.read(5000, new Uint8Array(70_000)), client.write(0, new Uint8Array(500)), client.flush(),
        client.blockStatus(0, 100_000), client.writeZeroes(0, 4096), client.trim(0, 4096),
      ]));
    }
    await client.close();
  }
  return outcomes.filter((outcome) => outcome.status === 'rejected').map((outcome) => outcome.reason as unknown);
}

function within<T>(ms: number, work: Promise<T>): Promise<T | 'hangs'> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve('hangs'), ms);
    work.finally(() => clearTimeout(timer)).then(resolve, reject);
  });
}

test(`${SEEDS} damaged conversations`, async () => {
  let refused = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const path = tmp(`socket-${seed}`);
    const stop = await listenDamaged(path, new Random(seed));
    const before = process.memoryUsage().arrayBuffers;
    const errors = await within(8000, useAll(path));
    expect({ seed, errors }).not.toEqual({ seed, errors: 'hangs' });
    const odd = (errors as unknown[]).filter((error) => !(error instanceof BlockError));
    expect({ seed, odd }).toEqual({ seed, odd: [] });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(BYTES_LIMIT);
    if ((errors as unknown[]).length > 0) refused++;
    await stop();
  }
  expect(refused).toBeGreaterThan(SEEDS / 3);
}, 120_000);
