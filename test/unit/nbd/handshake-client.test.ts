/** The client's negotiation, by bytes. */
import { describe, expect, test } from '@jest/globals';
import type { BlockError } from '../../../src/base/errors.js';
import { NbdClient, type NbdClientOptions } from '../../../src/nbd/client.js';
import { nbdServerFacts } from '../../../src/nbd/server-facts.js';
import { systemTrust } from '../../../src/nbd/tls.js';
import { u16, u32, u64, useScriptedServer, type ScriptedPeer } from '../../support/nbd-script.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const listen = useScriptedServer();

function open(options: Partial<NbdClientOptions> = {}): Promise<NbdClient> {
  return NbdClient.open({ address: { type: 'unix', path: tmp('socket') }, handshakeTimeoutMs: 2000, ...options });
}

async function openOnce(script: (peer: ScriptedPeer) => Promise<void>, options: Partial<NbdClientOptions> = {}): Promise<NbdClient> {
  await listen(tmp('socket'), script);
  return open(options);
}

/** Answers what comes before `option`, as a plain server would. */
async function until(peer: ScriptedPeer, option: number): Promise<Buffer> {
  await peer.greet();
  for (;;) {
    const next = await peer.option();
    if (next.option === option) return next.data;
    peer.reply(next.option, next.option === 8 ? 1 : next.option === 10 ? 1 : 0x8000_0001);
  }
}

const EXPORT_INFO = Buffer.concat([u16(0), u64(4096n), u16(1)]);

describe('what the client says', () => {
  test('flags, structured replies, contexts and GO, in this order and byte for byte', async () => {
    let heard: Buffer | null = null;
    const client = await openOnce(async (peer) => {
      await peer.serve({ contexts: { 'base:allocation': 7 } });
      heard = Buffer.concat(peer.pieces);
      await peer.read(28);
      peer.close();
    }, { exportName: 'dïsk' });
    await client.close();
    const option = (number: number, data: Buffer): Buffer => Buffer.concat([Buffer.from('IHAVEOPT'), u32(number), u32(data.byteLength), data]);
    const name = Buffer.concat([u32(5), Buffer.from('dïsk')]);
    expect(heard!.toString('hex')).toBe(Buffer.concat([
      u32(3), option(8, Buffer.alloc(0)), option(10, Buffer.concat([name, u32(1), u32(15), Buffer.from('base:allocation')])),
      option(7, Buffer.concat([name, u16(1), u16(3)])),
    ]).toString('hex'));
    expect([...client.info.contexts]).toEqual([['base:allocation', 7]]);
  });

  test('EXPORT_NAME where the server has no GO, with and without its zeroes', async () => {
    for (const flags of [3, 1]) {
      const path = tmp(`socket-${flags}`);
      await listen(path, async (peer) => {
        expect(await peer.greet(flags)).toBe(flags);
        for (let option = 0; option !== 1;) {
          const next = await peer.option();
          ({ option } = next);
          if (option === 1) expect(next.data.toString()).toBe('old');
          else peer.reply(option, 0x8000_0001);
        }
        peer.write(u64(8192n), u16(1 + 2), Buffer.alloc(flags === 3 ? 0 : 124));
        await peer.read(28);
        peer.close();
      });
      const client = await open({ address: { type: 'unix', path }, exportName: 'old' });
      expect([client.size, client.readOnly, client.info.structuredReplies]).toEqual([8192, true, false]);
      await client.close();
    }
  });

  test('nothing but EXPORT_NAME to a server that is not fixed newstyle', async () => {
    const client = await openOnce(async (peer) => {
      expect(await peer.greet(0)).toBe(0);
      expect((await peer.option()).option).toBe(1);
      peer.write(u64(512n), u16(0), Buffer.alloc(124));
    });
    expect(client.size).toBe(512);
    await client.close();
  });

  test('nothing at all to an oldstyle server', async () => {
    const client = await openOnce(async (peer) => {
      peer.write(Buffer.from('NBDMAGIC'), u64(0x0000_4202_8186_1253n), u64(1024n), u32(1 + 4), Buffer.alloc(124));
    });
    expect(client.size).toBe(1024);
    await expect(open({ exportName: 'x' })).rejects.toMatchObject({ code: 'PEER' });
    await expect(open({ tls: { credentials: systemTrust(), hostname: null } })).rejects.toMatchObject({ code: 'PEER' });
    await client.close();
  });

  test('a minimum block rounds the size down; the maximum is bounded', async () => {
    const client = await openOnce((peer) => peer.serve({ size: 10_000, blocks: [4096, 4096, 0xffff_ffff] }));
    expect([client.size, client.info.maximumBlock]).toEqual([8192, 32 * 1024 * 1024]);
    await client.close();
  });
});

describe('what it does not put up with', () => {
  const answer = (type: number, data: Uint8Array, claimed?: number) => async (peer: ScriptedPeer): Promise<void> => {
    await until(peer, 7);
    peer.reply(7, type, data, claimed);
    peer.reply(7, 1);
  };
  const blocks = (...sizes: number[]): ((peer: ScriptedPeer) => Promise<void>) => answer(3, Buffer.concat([u16(3), ...sizes.map(u32)]));
  test.each<[string, (peer: ScriptedPeer) => Promise<void>]>([
    ['other magic', async (peer) => peer.write(Buffer.from('HTTP/1.1 400 Bad'))],
    ['other second magic', async (peer) => peer.write(Buffer.from('NBDMAGICNBDMAGIC'))],
    ['a reply to another option', async (peer) => { await until(peer, 7); peer.reply(6, 1); }],
    ['another reply magic', async (peer) => { await until(peer, 7); peer.write(Buffer.alloc(20, 1)); }],
    ['an endless reply', async (peer) => { await until(peer, 7); peer.reply(7, 3, EXPORT_INFO, 0xffff_ffff); }],
    ['an endless error', async (peer) => { await until(peer, 7); peer.reply(7, 0x8000_0003, Buffer.from('x'), 0xffff_ffff); }],
    ['an acknowledgement with a payload', async (peer) => { await until(peer, 7); peer.reply(7, 1, Buffer.from('x')); }],
    ['no size', async (peer) => { await until(peer, 7); peer.reply(7, 1); }],
    ['information too short', answer(3, Buffer.from([0]))],
    ['export information of another length', answer(3, Buffer.concat([EXPORT_INFO, Buffer.alloc(1)]))],
    ['a size beyond 2^53', answer(3, Buffer.concat([u16(0), u64(2n ** 53n), u16(1)]))],
    ['a minimum block of 0', blocks(0, 4096, 4096)],
    ['a minimum block that is no power of two', blocks(3, 4096, 4096)],
    ['a preferred block below the minimum', blocks(4096, 512, 65_536)],
    ['a maximum block below the minimum', blocks(4096, 4096, 512)],
    ['a reply of no known kind', answer(77, Buffer.alloc(0))],
    ['a context nobody asked for', async (peer) => { await until(peer, 10); peer.reply(10, 4, Buffer.concat([u32(1), Buffer.from('evil:one')])); }],
    ['a context without a name', async (peer) => { await until(peer, 10); peer.reply(10, 4, u32(1)); }],
    ['bytes after the negotiation that answer nothing', async (peer) => { await peer.serve(); peer.write(Buffer.alloc(64)); }],
  ])('%s', async (_what, script) => {
    const opening = openOnce(script);
    const client = await opening.catch((error: unknown) => error);
    if (client instanceof NbdClient) await expect(client.read(0, new Uint8Array(512))).rejects.toMatchObject({ code: 'PROTOCOL' });
    else expect(client).toMatchObject({ code: 'PROTOCOL' });
  });

  test.each([
    [0x8000_0006, 'NOT_FOUND', 'Requested export not available'], [0x8000_0005, 'PEER', 'TLS negotiation required before option 7 (go)'],
    [0x8000_0002, 'PEER', 'Denied by server'], [0x8000_0007, 'PEER', 'Server shutting down'], [0x8000_0099, 'PEER', 'Unknown error code'],
  ])('refusal 0x%s is told in words', async (type, code, words) => {
    await expect(openOnce(async (peer) => {
      await until(peer, 7);
      peer.reply(7, type, Buffer.from('go\u001b[31m away'));
    })).rejects.toMatchObject({ code, message: expect.stringContaining(words) });
    const error = await open().catch((thrown: unknown) => thrown);
    expect((error as BlockError).message).toContain('(server reported: go?[31m away)');
  });

  test('silence, from the first byte or from any later one', async () => {
    await expect(openOnce(async () => {}, { handshakeTimeoutMs: 80 })).rejects.toMatchObject({ code: 'PROTOCOL', errno: 'ETIMEDOUT' });
    await listen(tmp('later'), async (peer) => { await until(peer, 7); });
    await expect(open({ address: { type: 'unix', path: tmp('later') }, handshakeTimeoutMs: 80 })).rejects.toMatchObject({ code: 'PROTOCOL', errno: 'ETIMEDOUT' });
  });

  test('a server that hangs up', async () => {
    await expect(openOnce(async (peer) => { await until(peer, 7); peer.close(); })).rejects.toMatchObject({ code: 'IO', errno: 'EIO' });
  });

  test('plain text behind the agreement to start TLS', async () => {
    await expect(openOnce(async (peer) => {
      await until(peer, 5);
      peer.write(Buffer.concat([u64(0x0003_e889_0455_65a9n), u32(5), u32(1), u32(0)]), Buffer.from('injected'));
    }, { tls: { credentials: systemTrust(), hostname: null } })).rejects.toMatchObject({ code: 'PROTOCOL' });
  });
});

describe('asking for the exports', () => {
  test('lists them with what INFO tells, and bounds what it takes', async () => {
    await listen(tmp('socket'), async (peer) => {
      await until(peer, 3);
      for (const [name, more] of [['one', 'first'], ['', '']] as const) peer.reply(3, 2, Buffer.concat([u32(name.length), Buffer.from(name + more)]));
      peer.reply(3, 1);
      for (;;) {
        const { option, data } = await peer.option();
        if (option === 2) return;
        if (option === 9) {
          peer.reply(9, 4, Buffer.concat([u32(0), Buffer.from('qemu:dirty-bitmap:b')]));
          peer.reply(9, 1);
        } else if (data.readUInt32BE(0) === 0) {
          peer.reply(6, 0x8000_0006);
        } else {
          peer.reply(6, 3, EXPORT_INFO);
          peer.reply(6, 1);
        }
      }
    });
    const facts = await nbdServerFacts({ address: { type: 'unix', path: tmp('socket') } });
    expect(facts.exports).toMatchObject([
      { name: 'one', description: 'first', info: { size: 4096, flags: 1 }, contexts: ['qemu:dirty-bitmap:b'], error: null },
      { name: '', description: null, info: null, error: { code: 'NOT_FOUND' } },
    ]);
  });

  test('a name longer than its message is refused', async () => {
    await listen(tmp('socket'), async (peer) => {
      await until(peer, 3);
      peer.reply(3, 2, Buffer.concat([u32(100), Buffer.from('short')]));
    });
    await expect(nbdServerFacts({ address: { type: 'unix', path: tmp('socket') } })).rejects.toMatchObject({ code: 'PROTOCOL' });
  });
});
