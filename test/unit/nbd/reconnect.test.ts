/** What becomes of requests when the connection goes away. */
import { rmSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { NbdClient, type NbdClientOptions } from '../../../src/nbd/client.js';
import { ALL_FLAGS, dataAt, MULTI_CONN, useScriptedServer, type ScriptedPeer, type ScriptedRequest, type ServedExport } from '../../support/nbd-script.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const listen = useScriptedServer();

function open(options: Partial<NbdClientOptions> = {}): Promise<NbdClient> {
  return NbdClient.open({ address: { type: 'unix', path: tmp('socket') }, handshakeTimeoutMs: 2000, ...options });
}

function filled(bytes: number, value: number): Uint8Array {
  return new Uint8Array(bytes).fill(value);
}

function answer(peer: ScriptedPeer, request: ScriptedRequest): void {
  if (request.command === 0) peer.chunk(request, 1, dataAt(request.offset, filled(request.bytes, 9)), true);
  else if (request.command !== 2) peer.simple(request);
}

async function answerAll(peer: ScriptedPeer): Promise<void> {
  for (;;) {
    const request = await peer.request();
    if (request.command === 2) return peer.close();
    answer(peer, request);
  }
}

describe('with a reconnect delay', () => {
  test('all requests in flight are sent again, whole, to the server that came back', async () => {
    const again: [number, number][] = [];
    await listen(tmp('socket'), async (peer, connection) => {
      await peer.serve();
      if (connection === 0) {
        const read = await peer.request();
        for (let count = 0; count < 2; count++) await peer.request();
        // half of an answer is no answer
        peer.chunk(read, 1, dataAt(read.offset, filled(100, 1)), false);
        peer.socket.end();
        return;
      }
      for (let count = 0; count < 3; count++) {
        const request = await peer.request();
        again.push([request.command, request.payload.byteLength]);
        answer(peer, request);
      }
      await answerAll(peer);
    });
    const client = await open({ reconnectDelayMs: 3000 });
    const buffer = new Uint8Array(512);
    await Promise.all([client.read(0, buffer), client.write(4096, filled(40_000, 3)), client.flush()]);
    expect(again).toEqual([[0, 0], [1, 40_000], [3, 0]]);
    expect(buffer.every((byte) => byte === 9)).toBe(true);
    await client.close();
  });

  test('a large reply that was cut in the middle is read anew, and nothing of the first one stays', async () => {
    await listen(tmp('socket'), async (peer, connection) => {
      await peer.serve({ size: 8_388_608 });
      const read = await peer.request();
      if (connection > 0) {
        answer(peer, read);
        return answerAll(peer);
      }
      peer.chunk(read, 1, dataAt(read.offset, filled(700_000, 1)), true, read.bytes + 8);
      peer.socket.end();
    });
    const client = await open({ reconnectDelayMs: 3000 });
    const buffer = new Uint8Array(2_000_000);
    await client.read(4096, buffer);
    expect(buffer.every((byte) => byte === 9)).toBe(true);
    await client.close();
  });

  test('requests fail when the delay is over, and later ones find the server that is back by then', async () => {
    const server = await listen(tmp('socket'), async (peer) => {
      await peer.serve();
      await peer.request();
      peer.close();
    });
    const client = await open({ reconnectDelayMs: 250 });
    server.close();
    rmSync(tmp('socket'), { force: true });
    const start = performance.now();
    await expect(client.write(0, filled(512, 1))).rejects.toMatchObject({ code: 'IO', errno: 'EIO' });
    expect(performance.now() - start).toBeGreaterThan(200);
    await expect(client.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'IO', errno: 'EIO' });
    await listen(tmp('socket'), async (peer) => {
      await peer.serve();
      await answerAll(peer);
    });
    await client.read(0, new Uint8Array(1));
    await client.close();
  });

  test('closing does not wait for the delay', async () => {
    const server = await listen(tmp('socket'), async (peer) => {
      await peer.serve();
      await peer.request();
      peer.close();
    });
    const client = await open({ reconnectDelayMs: 60_000 });
    server.close();
    rmSync(tmp('socket'), { force: true });
    const write = client.write(0, filled(512, 1));
    await new Promise((resolve) => setTimeout(resolve, 50));
    await client.close();
    await expect(write).rejects.toMatchObject({ code: 'CLOSED' });
  });

  test.each<[string, ServedExport]>([
    ['is smaller', { size: 1_000_000 }], ['cannot flush any more', { flags: ALL_FLAGS - 4 }], ['became read-only', { flags: ALL_FLAGS + 2 }],
    ['takes larger blocks only', { blocks: [512, 4096, 65_536] }], ['lost a context', { contexts: {} }],
  ])('an export that %s is another export', async (_what, changed) => {
    const served = { contexts: { 'base:allocation': 1 } };
    await listen(tmp('socket'), async (peer, connection) => {
      await peer.serve(connection === 0 ? served : { ...served, ...changed });
      await peer.request();
      peer.close();
    });
    const client = await open({ reconnectDelayMs: 3000 });
    await expect(client.write(0, filled(512, 1))).rejects.toMatchObject({ code: 'PEER', errno: 'EIO' });
    await expect(client.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'PEER' });
    await client.close();
  });

  test('one that grew, or numbers its contexts anew, is still the same', async () => {
    await listen(tmp('socket'), async (peer, connection) => {
      await peer.serve({ size: 1_048_576 * (connection + 1), contexts: { 'base:allocation': connection + 1 } });
      const request = await peer.request();
      if (connection === 0) return peer.close();
      peer.chunk(request, 5, Buffer.from([0, 0, 0, 2, 0, 0, 2, 0, 0, 0, 0, 3]), true);
      await answerAll(peer);
    });
    const client = await open({ reconnectDelayMs: 3000 });
    expect(await client.blockStatus(0, 512)).toEqual([{ bytes: 512, flags: 3 }]);
    expect(client.size).toBe(1_048_576);
    await client.close();
  });
});

describe('without one', () => {
  test('W-10: requests in flight fail, the next one connects again, and no flush succeeds any more where writes may be lost', async () => {
    await listen(tmp('socket'), async (peer, connection) => {
      await peer.serve();
      if (connection > 0) return answerAll(peer);
      for (let count = 0; count < 3; count++) answer(peer, await peer.request());
      await peer.request();
      peer.close();
    });
    const client = await open();
    await client.write(0, filled(512, 1));
    await client.flush();
    await client.write(512, filled(512, 1));
    await expect(client.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'IO', errno: 'EIO' });
    await client.read(0, new Uint8Array(1));
    for (let times = 0; times < 2; times++) {
      await expect(client.flush()).rejects.toMatchObject({ code: 'IO', errno: 'EIO', message: expect.stringContaining('not flushed yet') });
    }
    await client.close();
  });

  test('where all writes had been flushed, the next flush succeeds', async () => {
    await listen(tmp('socket'), async (peer, connection) => {
      await peer.serve();
      if (connection > 0) return answerAll(peer);
      for (let count = 0; count < 2; count++) answer(peer, await peer.request());
      await peer.request();
      peer.close();
    });
    const client = await open();
    await client.write(0, filled(512, 1));
    await client.flush();
    await expect(client.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'IO' });
    await client.flush();
    await client.close();
  });

  test('of several connections one may go: reads move on, writes that may have happened fail', async () => {
    const live: ScriptedPeer[] = [];
    const held: ScriptedRequest[] = [];
    await listen(tmp('socket'), async (peer, connection) => {
      await peer.serve({ flags: ALL_FLAGS + MULTI_CONN });
      live.push(peer);
      if (connection !== 0) return answerAll(peer);
      held.push(await peer.request(), await peer.request());
      peer.close();
    });
    const client = await open({ connections: 2 });
    expect(client.connections).toBe(2);
    const buffer = new Uint8Array(512);
    // in turn on the first, the second, the first, …
    const outcomes = await Promise.allSettled([client.read(0, buffer), client.trim(0, 512), client.write(0, filled(512, 1)), client.trim(0, 512)]);
    expect(held.map(({ command }) => command)).toEqual([0, 1]);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled']);
    expect(buffer.every((byte) => byte === 9)).toBe(true);
    expect(client.connections).toBe(1);
    await client.close();
  });

  test('several connections only where the server allows them', async () => {
    let connections = 0;
    await listen(tmp('socket'), async (peer) => {
      connections++;
      await peer.serve();
      await answerAll(peer);
    });
    const client = await open({ connections: 4 });
    await client.flush();
    expect([connections, client.connections]).toEqual([1, 1]);
    await client.close();
  });
});

describe('opening', () => {
  test('tries again until open-timeout', async () => {
    const opening = open({ openTimeoutMs: 5000 });
    await new Promise((resolve) => setTimeout(resolve, 120));
    await listen(tmp('socket'), async (peer) => {
      await peer.serve();
      await answerAll(peer);
    });
    await (await opening).close();
    rmSync(tmp('nobody'), { force: true });
    await expect(open({ address: { type: 'unix', path: tmp('nobody') }, openTimeoutMs: 150 })).rejects.toMatchObject({ code: 'NOT_FOUND', errno: 'ENOENT' });
  });

  test('can be cancelled', async () => {
    const stop = new AbortController();
    const opening = open({ openTimeoutMs: 60_000, signal: stop.signal });
    setTimeout(() => stop.abort(), 30);
    await expect(opening).rejects.toMatchObject({ code: 'CANCELLED' });
    await listen(tmp('silent'), async () => {});
    const again = new AbortController();
    const silent = open({ address: { type: 'unix', path: tmp('silent') }, signal: again.signal });
    setTimeout(() => again.abort(), 30);
    await expect(silent).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  test('a signal that comes later fails all that a silent server was asked for, and what waits for a lost one', async () => {
    await listen(tmp('socket'), async (peer, index) => {
      if (index > 0) return;
      await peer.serve();
      for (let count = 0; count < 3; count++) await peer.request();
      await new Promise(() => undefined);
    });
    const stop = new AbortController();
    const client = await open({ signal: stop.signal, reconnectDelayMs: 60_000 });
    const asked = [client.read(0, filled(512, 0)), client.write(0, filled(512, 1)), client.flush()].map((one) => expect(one).rejects.toMatchObject({ code: 'CANCELLED' }));
    setTimeout(() => stop.abort(), 50);
    await Promise.all(asked);
    await expect(client.read(0, filled(512, 0))).rejects.toMatchObject({ code: 'CANCELLED' });
    await client.close();
  });
});
