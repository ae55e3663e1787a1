/** The client in the transmission phase: what it sends, what it makes of replies, and what it refuses. */
import { describe, expect, test } from '@jest/globals';
import { BlockBackend } from '../../../src/block/backend.js';
import { BlockNode } from '../../../src/block/node.js';
import { NbdServer } from '../../../src/nbd/server.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';
import { NbdClient, type NbdClientOptions } from '../../../src/nbd/client.js';
import { chunkOf, dataAt, u16, u32, u64, useScriptedServer, type ScriptedPeer, type ScriptedRequest, type ServedExport } from '../../support/nbd-script.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const listen = useScriptedServer();
const STATUS = { contexts: { 'base:allocation': 5 } };

async function connect(script: (peer: ScriptedPeer) => Promise<void>, served: ServedExport = STATUS, options: Partial<NbdClientOptions> = {}): Promise<NbdClient> {
  await listen(tmp('socket'), async (peer) => {
    await peer.serve(served);
    await script(peer);
  });
  return NbdClient.open({ address: { type: 'unix', path: tmp('socket') }, handshakeTimeoutMs: 2000, ...options });
}

async function goodbye(peer: ScriptedPeer): Promise<void> {
  expect((await peer.request()).command).toBe(2);
  peer.close();
}

function filled(bytes: number, value: number): Uint8Array {
  return new Uint8Array(bytes).fill(value);
}

describe('over TCP', () => {
  test('the same, by name and by address; nobody there is told as such', async () => {
    const server = new NbdServer();
    const node = new BlockNode({ name: 'disk', driver: new MemoryDriver({ bytes: 1_048_576, growable: false }) });
    server.addExport({ name: '', description: null, backend: new BlockBackend('disk', node), readOnly: false, multiConn: true, bitmaps: [], allocationDepth: false });
    const port = (await server.listen({ host: '127.0.0.1', port: 0 }))!;
    for (const host of ['127.0.0.1', 'localhost']) {
      const client = await NbdClient.open({ address: { type: 'inet', host, port }, connections: 3 });
      const data = filled(300_000, 6);
      await client.write(512, data);
      const back = new Uint8Array(300_000);
      await client.read(512, back);
      expect(Buffer.compare(back, data)).toBe(0);
      await client.close();
    }
    await server.close();
    await expect(NbdClient.open({ address: { type: 'inet', host: '127.0.0.1', port } }))
      .rejects.toMatchObject({ code: 'IO', errno: 'ECONNREFUSED', message: `Failed to connect to '127.0.0.1:${port}': Connection refused` });
  });
});

describe('requests', () => {
  test('those of one turn leave together, and are told apart by their cookies', async () => {
    const client = await connect(async (peer) => {
      const before = peer.pieces.length;
      const requests: ScriptedRequest[] = [];
      for (let count = 0; count < 20; count++) requests.push(await peer.request());
      expect(peer.pieces.length - before).toBe(1);
      for (const request of requests.toReversed()) peer.chunk(request, 1, dataAt(request.offset, filled(512, request.offset / 512)), true);
      await goodbye(peer);
    });
    const buffers = Array.from({ length: 20 }, () => new Uint8Array(512));
    await Promise.all(buffers.map((buffer, index) => client.read(index * 512, buffer)));
    expect(buffers.map((buffer) => buffer[511])).toEqual(buffers.map((_, index) => index));
    await client.close();
  });

  test('flags, offsets beyond 4 GiB and payloads are what the specification says', async () => {
    const seen: [number, number, number, number, number][] = [];
    const client = await connect(async (peer) => {
      for (let count = 0; count < 7; count++) {
        const request = await peer.request();
        seen.push([request.command, request.flags, request.offset, request.bytes, request.payload.byteLength]);
        peer.simple(request);
      }
      await goodbye(peer);
    }, { size: 2 ** 45 });
    const far = 2 ** 44 + 512;
    await client.write(far, filled(100, 1), { fua: true });
    await client.write(far, filled(50_000, 1));
    await client.flush();
    await client.trim(far, 4096);
    await client.cache(far, 4096);
    await client.writeZeroes(far, 4096, { noHole: true, fast: true });
    await client.writeZeroes(far, 4096, { fua: true });
    await client.close();
    expect(seen).toEqual([[1, 1, far, 100, 100], [1, 0, far, 50_000, 50_000], [3, 0, 0, 0, 0], [4, 0, far, 4096, 0], [5, 0, far, 4096, 0], [6, 18, far, 4096, 0], [6, 1, far, 4096, 0]]);
  });

  test('I-8: no more than 64 are in flight, and the rest follow as replies come', async () => {
    const client = await connect(async (peer) => {
      const first: ScriptedRequest[] = [];
      for (let count = 0; count < 64; count++) first.push(await peer.request());
      const heard = peer.pieces.length;
      await new Promise((resolve) => setTimeout(resolve, 30));
      expect(peer.pieces.length).toBe(heard);
      for (const request of first) peer.simple(request);
      for (let count = 0; count < 36; count++) peer.simple(await peer.request());
      await goodbye(peer);
    });
    await Promise.all(Array.from({ length: 100 }, () => client.trim(0, 512)));
    await client.close();
  });

  test('larger ones than the server takes are cut', async () => {
    const sizes: number[] = [];
    const client = await connect(async (peer) => {
      for (let count = 0; count < 3; count++) {
        const request = await peer.request();
        sizes.push(request.bytes);
        peer.chunk(request, 1, dataAt(request.offset, filled(request.bytes, count + 1)), true);
      }
      await goodbye(peer);
    }, { blocks: [512, 4096, 65_536] });
    const buffer = new Uint8Array(150_000);
    await client.read(0, buffer);
    expect([sizes, buffer[0], buffer[65_536], buffer[149_999]]).toEqual([[65_536, 65_536, 18_928], 1, 2, 3]);
    await client.close();
  });

  test('what the server cannot do is refused before it is sent', async () => {
    const client = await connect(goodbye, { flags: 1, contexts: {} });
    await client.flush();
    for (const refused of [
      client.trim(0, 1), client.cache(0, 1), client.writeZeroes(0, 1), client.write(0, filled(1, 1), { fua: true }), client.blockStatus(0, 1),
    ]) await expect(refused).rejects.toMatchObject({ code: 'NOT_SUPPORTED', errno: 'ENOTSUP' });
    await client.close();
  });
});

describe('replies', () => {
  const pieces = (request: ScriptedRequest): Buffer => Buffer.concat([
    chunkOf(request, 1, dataAt(request.offset + 300, filled(100, 3)), false),
    chunkOf(request, 2, Buffer.concat([u64(BigInt(request.offset)), u32(200)]), false),
    chunkOf(request, 1, dataAt(request.offset + 200, filled(100, 2)), false),
    chunkOf(request, 0, Buffer.alloc(0), true),
  ]);

  test.each(['at once', 'byte by byte'])('a read in scattered chunks and holes, %s', async (how) => {
    const client = await connect(async (peer) => {
      const request = await peer.request();
      if (how === 'at once') peer.write(pieces(request));
      else await peer.trickle(pieces(request));
      await goodbye(peer);
    });
    const buffer = filled(400, 0xee);
    await client.read(1000, buffer);
    expect(Buffer.compare(buffer, Buffer.concat([filled(200, 0), filled(100, 2), filled(100, 3)]))).toBe(0);
    await client.close();
  });

  test('simple replies with their data, where nothing else was agreed', async () => {
    const client = await connect(async (peer) => {
      const [one, two] = [await peer.request(), await peer.request()];
      peer.simple(two, 0, filled(70_000, 2));
      peer.simple(one, 5);
      await goodbye(peer);
    }, { structured: false });
    const second = new Uint8Array(70_000);
    const first = client.read(0, new Uint8Array(10));
    await Promise.all([client.read(512, second), expect(first).rejects.toMatchObject({ code: 'IO', errno: 'EIO', offset: 0, bytes: 10 })]);
    expect(second.every((byte) => byte === 2)).toBe(true);
    await client.close();
  });

  test('an error ends its request only; what follows it is read rightly', async () => {
    const message = Buffer.from('disk on \u001b[5mfire');
    const errors: ((peer: ScriptedPeer, request: ScriptedRequest) => void)[] = [
      (peer, request) => peer.simple(request, 28),
      (peer, request) => peer.chunk(request, 0x8001, Buffer.concat([u32(5), u16(message.length), message]), true),
      (peer, request) => peer.chunk(request, 0x8001, Buffer.concat([u32(95), u16(0)]), true),
      (peer, request) => {
        peer.chunk(request, 1, dataAt(request.offset, filled(100, 1)), false);
        peer.chunk(request, 0x8002, Buffer.concat([u32(12), u16(3), Buffer.from('mem'), u64(BigInt(request.offset + 100))]), false);
        peer.chunk(request, 0x8001, Buffer.concat([u32(1), u16(0)]), true);
      },
      (peer, request) => peer.chunk(request, 0x8055, filled(1000, 9), true),
      (peer, request) => peer.chunk(request, 0x8001, Buffer.concat([u32(999), u16(0)]), true),
    ];
    const client = await connect(async (peer) => {
      for (const fail of errors) {
        fail(peer, await peer.request());
        const good = await peer.request();
        peer.chunk(good, 1, dataAt(good.offset, filled(good.bytes, 4)), true);
      }
      await goodbye(peer);
    });
    const expected = [
      { code: 'NO_SPACE', errno: 'ENOSPC' }, { code: 'IO', errno: 'EIO', message: expect.stringContaining('(disk on ?[5mfire)') },
      { code: 'NOT_SUPPORTED', errno: 'ENOTSUP' }, { errno: 'ENOMEM', message: expect.stringContaining('(mem)') }, { errno: 'EINVAL' }, { errno: 'EINVAL' },
    ];
    for (const error of expected) {
      await expect(client.read(0, new Uint8Array(200))).rejects.toMatchObject(error);
      const buffer = new Uint8Array(100);
      await client.read(0, buffer);
      expect(buffer.every((byte) => byte === 4)).toBe(true);
    }
    await client.close();
  });

  test('block status: extents of one context, the last one cut to what was asked', async () => {
    const client = await connect(async (peer) => {
      const request = await peer.request();
      expect([request.command, request.flags, request.bytes]).toEqual([7, 8, 100_000]);
      peer.chunk(request, 5, Buffer.concat([u32(5), u32(4096), u32(0), u32(0x7fff_0000), u32(3), u32(4096), u32(0)]), true);
      await goodbye(peer);
    });
    expect(await client.blockStatus(0, 100_000, undefined, true)).toEqual([{ bytes: 4096, flags: 0 }, { bytes: 95_904, flags: 3 }]);
    await client.close();
  });
});

describe('a stream that cannot be trusted ends everything in flight', () => {
  type Answer = (peer: ScriptedPeer, read: ScriptedRequest) => void;
  const chunk = (type: number, data: Uint8Array, done = true, claimed?: number): Answer => (peer, read) => peer.chunk(read, type, data, done, claimed);
  const hole = (offset: number, bytes: number): Buffer => Buffer.concat([u64(BigInt(offset)), u32(bytes)]);
  const error = (errno: number, messageBytes: number): Buffer => Buffer.concat([u32(errno), u16(messageBytes)]);
  test.each<[string, Answer]>([
    ['another magic', (peer) => peer.write(Buffer.alloc(16, 7))],
    ['an unknown cookie', (peer, read) => peer.simple({ ...read, cookie: Buffer.alloc(8, 9) }, 5)],
    ['a cookie of an earlier use', (peer, read) => { peer.simple(read, 5); peer.simple(read, 5); }],
    ['a simple reply to a read', (peer, read) => peer.simple(read, 0, filled(512, 1))],
    ['data before the read', chunk(1, dataAt(4095, filled(100, 1)))],
    ['data past the read', chunk(1, dataAt(4096 + 412, filled(101, 1)))],
    ['more data than the read has', chunk(1, dataAt(4096, filled(513, 1)))],
    ['a data chunk without data', chunk(1, dataAt(4096, filled(0, 1)))],
    ['an endless data chunk', chunk(1, dataAt(4096, filled(1, 1)), true, 0xffff_ffff)],
    ['data twice', (peer, read) => { for (let count = 0; count < 2; count++) peer.chunk(read, 1, dataAt(4096, filled(256, 1)), count === 1); }],
    ['data that overlaps out of order', (peer, read) => { for (const at of [300, 250]) peer.chunk(read, 1, dataAt(4096 + at, filled(100, 1)), false); }],
    ['half of the data', chunk(1, dataAt(4096, filled(256, 1)))],
    ['no data', chunk(0, Buffer.alloc(0))],
    ['an empty hole', chunk(2, hole(4096, 0))],
    ['a hole past the read', chunk(2, hole(4096, 513))],
    ['a hole at an immense offset', chunk(2, Buffer.concat([Buffer.alloc(8, 255), u32(1)]))],
    ['a hole of another length', chunk(2, hole(4096, 512).subarray(0, 11))],
    ['block status for a read', chunk(5, Buffer.concat([u32(5), u32(512), u32(0)]))],
    ['a chunk of no known kind', chunk(77, Buffer.alloc(8))],
    ['an empty chunk that ends nothing', chunk(0, Buffer.alloc(0), false)],
    ['an error chunk too short', chunk(0x8001, error(5, 0).subarray(0, 5))],
    ['an error chunk without an error', chunk(0x8001, error(0, 0))],
    ['an error whose message does not fit', chunk(0x8001, error(5, 10))],
    ['an error with an endless message', chunk(0x8001, error(5, 65_535), true, 65_541)],
    ['an error outside the read', chunk(0x8002, Buffer.concat([error(5, 0), u64(1n)]))],
    ['an endless chunk of an unknown error', chunk(0x8055, Buffer.alloc(0), true, 0x7fff_ffff)],
  ])('%s', async (_what, answer) => {
    let connections = 0;
    await listen(tmp('socket'), async (peer) => {
      connections++;
      await peer.serve(STATUS);
      const read = await peer.request();
      await peer.request();
      answer(peer, read);
    });
    const client = await NbdClient.open({ address: { type: 'unix', path: tmp('socket') }, reconnectDelayMs: 5000 });
    const outcomes = await Promise.allSettled([client.read(4096, new Uint8Array(512)), client.trim(0, 512)]);
    expect(outcomes[1]).toMatchObject({ status: 'rejected', reason: { code: 'PROTOCOL', errno: 'EINVAL' } });
    expect(outcomes[0].status).toBe('rejected');
    // such a server is not asked again
    await expect(client.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'PROTOCOL' });
    expect(connections).toBe(1);
    await client.close();
  });

  test.each<[string, Buffer]>([
    ['of a context nobody agreed on', Buffer.concat([u32(6), u32(512), u32(0)])],
    ['of no bytes', Buffer.concat([u32(5), u32(0), u32(0)])],
    ['without an extent', u32(5)],
    ['of a broken length', Buffer.concat([u32(5), u32(512), u32(0), u32(1)])],
  ])('block status %s', async (_what, data) => {
    const client = await connect(async (peer) => peer.chunk(await peer.request(), 5, data, true));
    await expect(client.blockStatus(0, 512)).rejects.toMatchObject({ code: 'PROTOCOL' });
    await client.close();
  });
});
