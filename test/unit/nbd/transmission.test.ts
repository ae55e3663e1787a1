/** Requests of one or several connections: how they are bounded, ordered against flushes, and survive failures. */
import { describe, expect, test } from '@jest/globals';
import { BufferPool } from '../../../src/base/buffer-pool.js';
import { BlockError } from '../../../src/base/errors.js';
import { metaPayload, option, RawNbd, request, u16 } from '../../support/nbd-raw.js';
import { ioError, ManualClock, settled, until, useServed } from '../../support/nbd-served.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const serve = useServed();
const [READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] = [0, 1, 3, 4, 5, 6, 7] as const;
const [FUA, REQ_ONE] = [1, 8] as const;
const KiB = 1024;
const MiB = 1024 * KiB;

describe('replies', () => {
  test('a head and a payload may come cut anywhere', async () => {
    await serve(tmp('s'));
    const client = await RawNbd.transmitting(tmp('s'));
    const bytes = Buffer.concat([
      request({ type: WRITE, offset: 1000, bytes: 10, payload: Buffer.from('0123456789'), handle: 1 }), request({ type: READ, offset: 999, bytes: 12, handle: 2 }),
    ]);
    for (const byte of bytes) {
      client.send(Uint8Array.of(byte));
      await settled(0);
    }
    expect(await client.reply()).toMatchObject({ handle: 1n, error: 0 });
    expect((await client.reply()).payload.subarray(8).toString('latin1')).toBe('\x000123456789\x00');
    client.destroy();
  });

  test('the handle is echoed, all 64 bits of it', async () => {
    await serve(tmp('s'));
    const client = await RawNbd.transmitting(tmp('s'), { structured: false });
    for (const handle of [0n, 0xffff_ffff_ffff_ffffn, 0x8000_0000_0000_0001n]) {
      client.send(request({ type: READ, bytes: 1, handle }));
      expect((await client.reply(1)).handle).toBe(handle);
    }
    client.destroy();
  });

  test('a read of data, holes and data is as many chunks, whose last says so', async () => {
    await serve(tmp('s'));
    const client = await RawNbd.transmitting(tmp('s'));
    for (const offset of [0, 512 * KiB]) {
      client.send(request({ type: WRITE, offset, bytes: 64 * KiB, payload: Buffer.alloc(64 * KiB, 9) }));
      await client.reply();
    }
    client.send(request({ type: READ, bytes: MiB }));
    const chunks = await client.replies();
    expect(chunks.map(({ type, done, payload }) => [type, done, Number(payload.readBigUInt64BE(0)), type === 1 ? payload.byteLength - 8 : payload.readUInt32BE(8)])).toEqual([
      [1, false, 0, 64 * KiB], [2, false, 64 * KiB, 448 * KiB], [1, false, 512 * KiB, 64 * KiB], [2, true, 576 * KiB, 448 * KiB],
    ]);
    client.send(request({ type: READ, bytes: MiB, flags: 4 }));
    expect((await client.replies()).map(({ type }) => type)).toEqual([1]);
    client.destroy();
  });

  test('who has said all and reads on gets all answers', async () => {
    const { disk } = await serve(tmp('s'), { maxInFlight: 2 });
    const client = await RawNbd.transmitting(tmp('s'));
    disk.hold();
    for (let handle = 0; handle < 5; handle++) client.send(request({ type: READ, bytes: 512, handle }));
    client.end();
    await until(() => disk.waiting === 2);
    disk.letGo();
    for (let handle = 0; handle < 5; handle++) expect((await client.reply()).handle).toBe(BigInt(handle));
    expect((await client.rest()).byteLength).toBe(0);
  });
});

describe('a failing disk', () => {
  const ERRORS = [['EIO', 5], ['EPERM', 1], ['EROFS', 1], ['ENOSPC', 28], ['EDQUOT', 28], ['EFBIG', 28], ['ENOMEM', 12], ['EOVERFLOW', 75], ['ENOTSUP', 95], ['EOPNOTSUPP', 95], ['ESHUTDOWN', 108], ['ENODEV', 22]] as const;
  test.each(ERRORS)('%s travels as %i, and the connection lives', async (errno, wire) => {
    const { disk } = await serve(tmp('s'));
    const client = await RawNbd.transmitting(tmp('s'), { structured: false });
    disk.failure = { op: 'write', error: ioError(errno) };
    client.send(request({ type: WRITE, bytes: 512, payload: Buffer.alloc(512) }));
    expect((await client.reply()).error).toBe(wire);
    client.send(request({ type: READ, bytes: 512 }));
    expect((await client.reply(512)).error).toBe(0);
    client.destroy();
  });

  test('I-8: each command fails with its own text, sparse reads too, and gives its memory back', async () => {
    const pool = new BufferPool(32 * MiB);
    const { disk } = await serve(tmp('s'), { pool });
    const client = await RawNbd.transmitting(tmp('s'), { contexts: ['base:allocation'] });
    const cases = [
      ['read', { type: READ, bytes: 512 }, 'reading from file failed'], ['status', { type: READ, bytes: MiB }, 'unable to check for holes'],
      ['write', { type: WRITE, bytes: 512, payload: Buffer.alloc(512) }, 'writing to file failed'], ['write-zeroes', { type: WRITE_ZEROES, bytes: 512 }, 'writing to file failed'],
      ['flush', { type: FLUSH }, 'flush failed'], ['flush', { type: READ, bytes: 512, flags: FUA }, 'flush failed'], ['flush', { type: TRIM, bytes: 512, flags: FUA }, 'flush failed'],
      ['discard', { type: TRIM, bytes: 512 }, 'discard failed'], ['status', { type: CACHE, bytes: 512 }, 'caching data failed'], ['status', { type: BLOCK_STATUS, bytes: 512 }, "can't get block status"],
    ] as const;
    for (const [op, bad, text] of cases) {
      disk.failure = { op, error: ioError('EIO') };
      client.send(request(bad));
      const [reply, ...more] = await client.replies();
      expect([reply!.type, reply!.payload.readUInt32BE(0), reply!.payload.subarray(6).toString(), more.length]).toEqual([0x8001, 5, text, 0]);
      disk.failure = null;
    }
    client.send(request({ type: WRITE, bytes: 64 * KiB, payload: Buffer.alloc(64 * KiB, 1) }));
    await client.reply();
    disk.failure = { op: 'read', error: ioError('EIO') };
    client.send(request({ type: READ, bytes: MiB }));
    expect((await client.replies()).map(({ type }) => type)).toEqual([0x8001]);
    await settled(5);
    expect(pool.bytesFree).toBe(32 * MiB);
    client.destroy();
  });

  test('a disk that cannot trim has not failed; one that has no fast zeroes has', async () => {
    const { disk } = await serve(tmp('s'));
    const client = await RawNbd.transmitting(tmp('s'), { structured: false });
    disk.failure = { op: 'discard', error: new BlockError('NOT_SUPPORTED', 'no discard') };
    client.send(request({ type: TRIM, bytes: 512 }));
    expect((await client.reply()).error).toBe(0);
    disk.failure = { op: 'write-zeroes', error: new BlockError('NOT_SUPPORTED', 'no zeroes') };
    client.send(request({ type: WRITE_ZEROES, bytes: 512, flags: 16 }), request({ type: WRITE_ZEROES, bytes: 512 }));
    expect([(await client.reply()).error, (await client.reply()).error]).toEqual([95, 0]);
    client.destroy();
  });
});

describe('flushes', () => {
  test('cover what other connections were told is written', async () => {
    const { disk } = await serve(tmp('s'));
    const [writer, flusher] = [await RawNbd.transmitting(tmp('s')), await RawNbd.transmitting(tmp('s'))];
    writer.send(request({ type: WRITE, bytes: 512, payload: Buffer.alloc(512) }));
    await writer.reply();
    flusher.send(request({ type: FLUSH }));
    await flusher.reply();
    writer.send(request({ type: WRITE, offset: 512, bytes: 512, payload: Buffer.alloc(512), flags: FUA }), request({ type: WRITE_ZEROES, bytes: 512, flags: FUA }), request({ type: TRIM, bytes: 512, flags: FUA }));
    for (let left = 3; left > 0; left--) expect((await writer.reply()).error).toBe(0);
    expect(disk.log.map((line) => line.split(' ')[0])).toEqual(['write', 'flush', 'write', 'write-zeroes', 'discard', 'flush', 'flush', 'flush']);
    writer.destroy();
    flusher.destroy();
  });
});

test('I-13: while a disk is drained nothing reaches it, and all is answered afterwards', async () => {
  const { server, disk } = await serve(tmp('s'));
  const { node } = [...server.exports()][0]!.backend;
  const client = await RawNbd.transmitting(tmp('s'), { contexts: ['base:allocation'] });
  await node.drained(async () => {
    client.send(
      request({ type: WRITE, bytes: 512, payload: Buffer.alloc(512), handle: 1 }), request({ type: READ, bytes: 512, handle: 2 }), request({ type: READ, bytes: 64 * KiB, handle: 3 }),
      request({ type: FLUSH, handle: 4 }), request({ type: BLOCK_STATUS, bytes: 512, handle: 5 }), request({ type: TRIM, bytes: 512, handle: 6 }), request({ type: CACHE, bytes: 512, handle: 7 }),
    );
    await settled();
    expect([disk.log, disk.asked]).toEqual([[], 0]);
  });
  const handles = new Set<bigint>();
  while (handles.size < 7) handles.add((await client.reply()).handle);
  expect(disk.asked).toBeGreaterThan(0);
  client.destroy();
});

describe('bounds', () => {
  test('no more requests than allowed are carried out at once, and the socket is not read meanwhile', async () => {
    const { disk } = await serve(tmp('s'), { maxInFlight: 4 });
    const client = await RawNbd.transmitting(tmp('s'));
    disk.hold();
    for (let handle = 0; handle < 4; handle++) client.send(request({ type: READ, bytes: 512, handle }));
    await until(() => disk.waiting === 4);
    const flood = Buffer.alloc(200_000 * 28, request({ type: READ, bytes: 512 }));
    client.socket.write(flood);
    await settled(100);
    expect(disk.waiting).toBe(4);
    expect(client.socket.writableLength).toBeGreaterThan(1 * MiB);
    client.destroy();
    disk.letGo();
  });

  test('I-9, I-10: one connection holds no more than its share of memory, and others go on', async () => {
    const pool = new BufferPool(32 * MiB);
    const { disk } = await serve(tmp('s'), { pool }, 64 * MiB);
    const [greedy, modest] = [await RawNbd.transmitting(tmp('s')), await RawNbd.transmitting(tmp('s'))];
    disk.hold();
    for (let handle = 0; handle < 40; handle++) greedy.send(request({ type: READ, bytes: MiB, handle, flags: 4 }));
    await until(() => disk.waiting === 16);
    await settled();
    expect([disk.waiting, pool.bytesFree]).toEqual([16, 16 * MiB]);
    modest.send(request({ type: READ, bytes: 8 * MiB, flags: 4 }));
    await until(() => disk.waiting === 17);
    disk.letGo();
    expect((await modest.replies()).length).toBe(1);
    for (let left = 40; left > 0; left--) expect((await greedy.replies()).length).toBe(1);
    await settled(5);
    expect(pool.bytesFree).toBe(32 * MiB);
    greedy.destroy();
    modest.destroy();
  });

  test('a request as large as the pool waits for it, and gets it', async () => {
    const pool = new BufferPool(32 * MiB);
    await serve(tmp('s'), { pool }, 64 * MiB);
    const clients = await Promise.all(Array.from({ length: 4 }, () => RawNbd.transmitting(tmp('s'))));
    for (const client of clients) for (let n = 0; n < 2; n++) client.send(request({ type: READ, bytes: 32 * MiB }));
    for (const client of clients) for (let n = 0; n < 2; n++) expect((await client.replies()).at(-1)!.done).toBe(true);
    for (const client of clients) client.destroy();
  });

  test.each([
    ['half a payload', (client: RawNbd): void => client.send(request({ type: WRITE, bytes: 20 * MiB, payload: Buffer.alloc(5) }))],
    ['replies that nobody reads', (client: RawNbd): void => {
      client.socket.pause();
      client.send(request({ type: READ, bytes: 20 * MiB, flags: 4 }));
    }],
  ])('%s: kept while nobody needs the memory, turned away when somebody does', async (_, stall) => {
    const pool = new BufferPool(32 * MiB);
    const clock = new ManualClock();
    const { problems } = await serve(tmp('s'), { pool, clock, stallTimeoutMs: 30_000, handshakeTimeoutMs: 0 }, 64 * MiB);
    const [stalled, other] = [await RawNbd.transmitting(tmp('s')), await RawNbd.transmitting(tmp('s'))];
    stall(stalled);
    await until(() => pool.bytesFree === 12 * MiB);
    await settled(20);
    clock.advance(1_000_000);
    expect(clock.sleepers).toBe(0);
    other.send(request({ type: READ, bytes: 16 * MiB, flags: 4 }));
    await until(() => clock.sleepers === 1);
    clock.advance(29_000);
    await settled();
    expect(problems).toEqual([]);
    clock.advance(1000);
    expect((await other.replies()).length).toBe(1);
    expect(problems).toEqual(['the client held buffers that others waited for, and did nothing']);
    await until(() => pool.bytesFree === 32 * MiB);
    stalled.destroy();
    other.destroy();
  });

  test('a client that never reads its replies costs its share and no more', async () => {
    const { disk } = await serve(tmp('s'), { pool: new BufferPool(32 * MiB) }, 64 * MiB);
    const client = await RawNbd.transmitting(tmp('s'), { structured: false });
    client.socket.pause();
    const before = process.memoryUsage().rss;
    const flood = Buffer.alloc(1000 * 28, request({ type: READ, bytes: 256 * KiB }));
    for (let turn = 0; turn < 20; turn++) client.socket.write(flood);
    await settled(400);
    expect(disk.log.length).toBeLessThan(100);
    expect(process.memoryUsage().rss - before).toBeLessThan(64 * MiB);
    client.destroy();
  });

  test.each([['at the payload', 100], ['at the head', -10]])('a client that dies %s takes nothing with it', async (_, cut) => {
    const pool = new BufferPool(32 * MiB);
    const { server, disk } = await serve(tmp('s'), { pool });
    const port = await server.listen({ host: '127.0.0.1', port: 0 });
    for (let turn = 0; turn < 5; turn++) {
      const client = await RawNbd.transmitting(port!);
      disk.hold();
      client.send(request({ type: READ, bytes: 4096 }), request({ type: WRITE, bytes: 512, payload: Buffer.alloc(512) }), request({ type: WRITE, bytes: 4096, payload: Buffer.alloc(Math.max(cut, 0)) }).subarray(0, 28 + cut));
      await until(() => disk.waiting === 2);
      client.socket.resetAndDestroy();
      await settled(10);
      disk.letGo();
      await until(() => server.connections === 0);
      expect(pool.bytesFree).toBe(32 * MiB);
    }
  });
});

describe('block status', () => {
  test('of dirty bitmaps', async () => {
    const dirty = [[4096, 8192], [65_536, 131_072]] as const;
    const bitmap = {
      name: 'b0',
      nextDirty: (offset: number, end: number) => Math.min(end, Math.max(offset, dirty.find(([, stop]) => stop > offset)?.[0] ?? end)),
      nextClean: (offset: number, end: number) => Math.min(end, dirty.find(([start, stop]) => start <= offset && offset < stop)?.[1] ?? offset),
    };
    await serve(tmp('s'), {}, MiB, { bitmaps: [{ ...bitmap, name: 'other' }, bitmap] });
    const client = await RawNbd.transmitting(tmp('s'), { contexts: ['qemu:dirty-bitmap:b0'] });
    const ask = async (offset: number, bytes: number, flags = 0): Promise<number[]> => {
      client.send(request({ type: BLOCK_STATUS, offset, bytes, flags }));
      const { payload } = (await client.replies())[0]!;
      return Array.from({ length: payload.byteLength / 4 }, (_, index) => payload.readUInt32BE(4 * index));
    };
    expect(await ask(0, MiB)).toEqual([3, 4096, 0, 4096, 1, 57_344, 0, 65_536, 1, MiB - 131_072, 0]);
    expect(await ask(5000, 10)).toEqual([3, 10, 1]);
    expect(await ask(5000, MiB - 5000, REQ_ONE)).toEqual([3, 3192, 1]);
    expect(await ask(131_072, 4096)).toEqual([3, 4096, 0]);
    client.destroy();
  });

  test('more was said in a query of contexts than it says it holds', async () => {
    await serve(tmp('s'));
    const client = await RawNbd.greeted(tmp('s'));
    client.send(option(8), option(10, Buffer.concat([metaPayload('', 'base:allocation'), u16(1)])));
    await client.optionReplies();
    expect((await client.optionReplies()).map(({ type }) => type)).toEqual([0x8000_0003]);
    client.send(option(7, Buffer.concat([Buffer.alloc(4), u16(0)])));
    await client.optionReplies();
    client.send(request({ type: BLOCK_STATUS, bytes: 512 }));
    expect((await client.reply()).payload.subarray(6).toString()).toBe('CMD_BLOCK_STATUS not negotiated');
    client.destroy();
  });
});
