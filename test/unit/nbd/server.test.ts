/** The life of a server: where it listens, whom it lets in, what comes and goes, and how it ends. */
import { existsSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import { NbdServer } from '../../../src/nbd/server.js';
import { infoPayload, option, RawNbd, request, u32 } from '../../support/nbd-raw.js';
import { exportOf, HeldDriver, ManualClock, settled, until, useServed } from '../../support/nbd-served.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const serve = useServed();
const [READ, WRITE] = [0, 1] as const;
const [LIST, GO, INFO] = [3, 7, 6] as const;

async function namesListed(path: string): Promise<string[]> {
  const client = await RawNbd.greeted(path);
  client.send(option(LIST));
  const names = (await client.optionReplies()).filter(({ type }) => type === 2).map(({ payload }) => payload.subarray(4).toString());
  client.destroy();
  return names;
}

describe('a socket', () => {
  test('of unix: a stale one is replaced, a file is not, and it is gone after the end', async () => {
    const path = tmp('socket');
    const dead = createServer().listen({ path: tmp('dead') });
    await until(() => existsSync(tmp('dead')));
    renameSync(tmp('dead'), path);
    dead.close();
    const { server } = await serve(path);
    const client = await RawNbd.transmitting(path);
    client.destroy();
    await server.close();
    expect(existsSync(path)).toBe(false);

    writeFileSync(tmp('file'), 'precious');
    const refused = new NbdServer();
    const long = `/tmp/${'x'.repeat(103)}`;
    await expect(refused.listen({ unix: long })).rejects.toThrow(`UNIX socket path '${long}' is too long`);
    await expect(refused.listen({ unix: tmp('file') })).rejects.toThrow(`Failed to bind socket to ${tmp('file')}: Address already in use`);
    expect(existsSync(tmp('file'))).toBe(true);
    await refused.close();
  });

  test('of TCP: port 0 takes a free one', async () => {
    const { server } = await serve(tmp('socket'));
    const port = await server.listen({ host: '127.0.0.1', port: 0 });
    expect(port).toBeGreaterThan(0);
    const second = new NbdServer();
    await expect(second.listen({ host: '127.0.0.1', port: port! })).rejects.toThrow('Failed to find an available port: Address already in use');
    await second.close();
  });
});

describe('exports', () => {
  test('come and go while clients are connected', async () => {
    const { server, disk } = await serve(tmp('s'));
    const client = await RawNbd.greeted(tmp('s'));
    client.send(option(INFO, infoPayload('second')));
    expect((await client.optionReplies())[0]!.payload.toString()).toBe("export 'second' not present");
    server.addExport(exportOf(disk, { name: 'second', description: ' of two' }));
    expect(() => server.addExport(exportOf(disk, { name: 'second' }))).toThrow("NBD server already has export named 'second'");
    expect(await namesListed(tmp('s'))).toEqual(['', 'second of two']);
    client.send(option(GO, infoPayload('second')));
    await client.optionReplies();
    expect(server.clientsOf('second')).toBe(1);
    await expect(server.removeExport('second', 'safe')).rejects.toMatchObject({ code: 'BUSY' });
    await server.removeExport('', 'safe');
    expect(await namesListed(tmp('s'))).toEqual(['second of two']);
    client.send(request({ type: READ, bytes: 512 }));
    expect((await client.reply(512)).error).toBe(0);
    await server.removeExport('second', 'hard');
    await client.rest();
    expect(await namesListed(tmp('s'))).toEqual([]);
    await expect(server.removeExport('second', 'hard')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test('removed hard: when that has ended, nothing touches the disk any more', async () => {
    const { server, disk } = await serve(tmp('s'));
    const client = await RawNbd.transmitting(tmp('s'));
    disk.hold();
    client.send(request({ type: WRITE, bytes: 512, payload: Buffer.alloc(512) }), request({ type: READ, bytes: 512 }));
    await until(() => disk.waiting === 2);
    let removed = false;
    const removal = server.removeExport('', 'hard').then(() => { removed = true; });
    await client.rest();
    await settled();
    expect(removed).toBe(false);
    disk.letGo();
    await removal;
    expect(disk.waiting).toBe(0);
  });

  test.each([
    ['name', { name: 'é'.repeat(2049) }], ['description', { name: 'a', description: 'é'.repeat(2049) }],
  ])('a %s of more than 4096 bytes is refused', async (what, exported) => {
    const { server, disk } = await serve(tmp('s'));
    expect(() => server.addExport(exportOf(disk, exported))).toThrow(new RegExp(`^(export )?${what} '.*' too long$`));
  });

  test('tell who comes and goes', async () => {
    const log: string[] = [];
    const { server, disk } = await serve(tmp('s'), {
      onConnect: (connections) => log.push(`+${connections}`), onDisconnect: (connections, negotiated) => log.push(`-${connections} ${negotiated}`),
    });
    server.addExport(exportOf(disk, { name: 'x', onConnect: () => log.push('x+'), onDisconnect: () => log.push('x-') }));
    const lister = await RawNbd.greeted(tmp('s'));
    const client = await RawNbd.transmitting(tmp('s'), { name: 'x' });
    lister.destroy();
    await until(() => log.length === 4);
    client.destroy();
    await until(() => log.length === 6);
    expect(log).toEqual(['+1', '+2', 'x+', '-1 false', 'x-', '-0 true']);
  });

  test('sizes are whole sectors; block sizes come from the node', async () => {
    const { server } = await serve(tmp('s'));
    server.addExport(exportOf(new HeldDriver(1_000_000), { name: 'odd', readOnly: true, multiConn: false }));
    server.addExport(exportOf(new HeldDriver(1_048_576, { requestAlignment: 512, maxTransfer: 65_536 }), { name: 'aligned' }));
    const client = await RawNbd.greeted(tmp('s'));
    client.send(option(INFO, infoPayload('odd')));
    const odd = await client.optionReplies();
    expect(odd.map(({ payload }) => payload.toString('hex'))).toEqual(['0003000000010000100002000000', '000000000000000f4200040f', '']);
    const sizesOf = async (bytes: Buffer): Promise<string> => {
      client.send(bytes);
      return (await client.optionReplies()).map(({ type, payload }) => type === 3 ? payload.toString('hex', 0, 14) : type.toString(16)).join(' ');
    };
    // asked without block sizes, an answer is all the same, and an error after it
    expect(await sizesOf(option(INFO, infoPayload('aligned')))).toBe('0003000002000000100000010000 000000000000001000000d6d 80000008');
    expect(await sizesOf(option(INFO, infoPayload('aligned', 3)))).toBe('0003000002000000100000010000 000000000000001000000d6d 1');
    expect(await sizesOf(option(GO, infoPayload('aligned')))).toBe('0003000000010000100000010000 000000000000001000000d6d 1');
    client.send(request({ type: READ, offset: 3, bytes: 5 }));
    expect((await client.reply(5)).error).toBe(0);
    client.destroy();
  });
});

describe('clients', () => {
  test('beyond the limit wait until another is gone', async () => {
    const { server } = await serve(tmp('s'), { maxConnections: 2 });
    const [first, second] = [await RawNbd.transmitting(tmp('s')), await RawNbd.transmitting(tmp('s'))];
    const third = await RawNbd.connect(tmp('s'));
    let greeted = false;
    const greeting = third.read(18).then(() => { greeted = true; });
    await settled();
    expect([greeted, server.connections]).toEqual([false, 2]);
    first.destroy();
    await greeting;
    expect(server.connections).toBe(2);
    second.destroy();
    third.destroy();
  });

  test('that take too long to negotiate are turned away, others are not', async () => {
    const clock = new ManualClock();
    const { problems } = await serve(tmp('s'), { clock, handshakeTimeoutMs: 10_000 });
    const served = await RawNbd.transmitting(tmp('s'));
    const silent = await RawNbd.connect(tmp('s'));
    const slow = await RawNbd.greeted(tmp('s'));
    await silent.read(18);
    // slow loris: a byte now and then
    for (const byte of option(LIST).subarray(0, 9)) {
      clock.advance(1000);
      slow.send(Uint8Array.of(byte));
      await settled(2);
    }
    expect(problems).toEqual([]);
    clock.advance(1001);
    await Promise.all([silent.rest(), slow.rest()]);
    expect(problems).toEqual(Array(2).fill('the client did not finish its negotiation in time'));
    served.send(request({ type: READ, bytes: 1 }));
    expect((await served.reply(1)).done).toBe(true);
    served.destroy();
  });

  test('that never read what they ask for in negotiation cost no memory', async () => {
    const { server, disk } = await serve(tmp('s'));
    for (let index = 0; index < 200; index++) server.addExport(exportOf(disk, { name: `${index}`.padEnd(4000, 'x'), description: 'y'.repeat(4000) }));
    const before = process.memoryUsage().rss;
    const client = await RawNbd.connect(tmp('s'));
    client.socket.pause();
    client.send(u32(3), ...Array.from({ length: 2000 }, () => option(LIST)));
    await settled(300);
    // 2000 lists of 1.6 MB each
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * 1024 * 1024);
    client.destroy();
  });
});

describe('the end', () => {
  test('answers what is under way, and takes nothing more', async () => {
    const { server, disk } = await serve(tmp('s'));
    const client = await RawNbd.transmitting(tmp('s'));
    const negotiating = await RawNbd.greeted(tmp('s'));
    disk.hold();
    client.send(request({ type: WRITE, bytes: 512, payload: Buffer.alloc(512, 7), handle: 1 }));
    await until(() => disk.waiting === 1);
    const closed = server.close();
    client.send(request({ type: READ, bytes: 512, handle: 2 }));
    await negotiating.rest();
    await expect(server.listen({ unix: tmp('other') })).rejects.toMatchObject({ code: 'CLOSED' });
    disk.letGo();
    expect(await client.reply()).toMatchObject({ type: 'simple', handle: 1n, error: 0 });
    expect((await client.rest()).byteLength).toBe(0);
    await closed;
    expect(disk.log.length).toBe(1);
  });

  test('does not wait for a client that does not read', async () => {
    const { server } = await serve(tmp('s'), { closeTimeoutMs: 50 }, 64 * 1024 * 1024);
    const client = await RawNbd.transmitting(tmp('s'), { structured: false });
    client.socket.pause();
    for (let handle = 0; handle < 8; handle++) client.send(request({ type: READ, bytes: 1024 * 1024, handle }));
    await settled(30);
    await server.close();
    expect(server.connections).toBe(0);
    client.destroy();
  });
});
