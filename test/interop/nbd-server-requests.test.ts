/** The same requests, odd ones too, to qemu-nbd and to ours: the same data, the same errors with the same texts. */
import { writeFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from '@jest/globals';
import { BlockBackend, NbdServer, openImage } from '../../src/index.js';
import { useNbdPeers } from '../support/nbd-peers.js';
import { RawNbd, request, type RawReply, type RawRequest } from '../support/nbd-raw.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const startPeer = useNbdPeers();
const [READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] = [0, 1, 2, 3, 4, 5, 6, 7] as const;
const [FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO] = [1, 2, 4, 8, 16] as const;
const KiB = 1024;
const MiB = 1024 * KiB;
const SIZE = 4 * MiB - 512;

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

/** Two equal images of data, zeros and what the backing file has; one served by each. */
async function serveBoth(format: 'raw' | 'qcow2', readOnly: boolean): Promise<readonly string[]> {
  for (const who of ['qemu', 'ours']) {
    const image = tmp(`${who}.${format}`);
    const base = tmp('base.raw');
    writeFileSync(base, Buffer.alloc(2 * MiB, 0x22));
    if (format === 'raw') await runOk('qemu-img', ['create', '-q', '-f', 'raw', image, String(SIZE)]);
    else await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', image, String(SIZE)]);
    const write = ['write -P 1 0 64k', 'write -P 2 192k 70k', 'write -z 256k 64k', 'write -P 3 3M 1k'];
    await runOk('qemu-io', ['-f', format, ...write.flatMap((command) => ['-c', command]), image]);
  }
  await startPeer('qemu-nbd', ['-t', '-k', tmp('s-qemu'), '-e', '0', '-A', '--discard=unmap', '-f', format, ...(readOnly ? ['-r'] : []), tmp(`qemu.${format}`)], tmp('s-qemu'));
  const node = await openImage(tmp(`ours.${format}`), { format, readOnly, discard: 'unmap' });
  const server = new NbdServer();
  server.addExport({ name: '', description: null, backend: new BlockBackend('export', node), readOnly, multiConn: true, bitmaps: [], allocationDepth: true });
  await server.listen({ unix: tmp('s-ours') });
  ends.push(() => node.close(), () => server.close());
  return [tmp('s-qemu'), tmp('s-ours')];
}

/** What a client sees: how a server cuts data into chunks is its own affair. */
function seen({ type, bytes = 0, offset = 0 }: RawRequest, replies: readonly RawReply[]): string {
  const isData = (reply: RawReply): boolean => reply.type === 1 || reply.type === 2;
  if (type !== READ || !replies.every(isData)) return replies.map((reply) => `${reply.type} ${reply.handle} ${reply.error} ${reply.done} ${reply.payload.toString('latin1')}`).join('\n');
  const data = Buffer.alloc(bytes, 0xee);
  for (const { type: chunk, payload } of replies) {
    const at = Number(payload.readBigUInt64BE(0)) - Number(offset);
    if (chunk === 1) payload.copy(data, at, 8);
    else data.fill(0, at, at + payload.readUInt32BE(8));
  }
  return data.toString('latin1');
}

async function outcomes(path: string, requests: readonly RawRequest[], structured: boolean): Promise<string[]> {
  const client = await RawNbd.transmitting(path, { structured, contexts: structured ? ['base:allocation', 'qemu:allocation-depth'] : [] });
  const all: string[] = [];
  for (const [index, one] of requests.entries()) {
    client.send(request({ ...one, handle: index }));
    all.push(seen(one, await client.replies(one.type === READ ? one.bytes ?? 0 : 0)));
  }
  client.destroy();
  return all;
}

const payload = Buffer.alloc(8 * KiB, 0x77);
const REQUESTS: readonly RawRequest[] = [
  { type: READ, offset: 0, bytes: 4 * KiB }, { type: READ, offset: 0, bytes: SIZE }, { type: READ, offset: 0, bytes: SIZE, flags: FUA },
  { type: READ, offset: 511, bytes: 3 }, { type: READ, offset: SIZE - 1, bytes: 1 }, { type: READ, offset: 60 * KiB, bytes: 300 * KiB },
  { type: READ, offset: 0, bytes: 0 }, { type: READ, offset: SIZE, bytes: 0 },
  { type: READ, offset: SIZE, bytes: 1 }, { type: READ, offset: SIZE - 1, bytes: 2 }, { type: READ, offset: SIZE + 1, bytes: 0 },
  { type: READ, offset: 0xffff_ffff_ffff_ffffn, bytes: 2 }, { type: READ, offset: 0x8000_0000_0000_0000n, bytes: 0 },
  { type: READ, offset: 0, bytes: 32 * MiB + 1 }, { type: READ, offset: 0, bytes: 0xffff_ffff },
  { type: READ, offset: 0, bytes: 512, flags: NO_HOLE }, { type: READ, offset: 0, bytes: 512, flags: 0x8000 }, { type: READ, offset: 0, bytes: 0, flags: FAST_ZERO },
  { type: WRITE, offset: 1 * MiB, bytes: 8 * KiB, payload }, { type: WRITE, offset: 777, bytes: 5, payload: payload.subarray(0, 5), flags: FUA },
  { type: WRITE, offset: 0, bytes: 0 }, { type: WRITE, offset: SIZE, bytes: 0 }, { type: WRITE, offset: SIZE, bytes: 1, payload: payload.subarray(0, 1) },
  { type: WRITE, offset: SIZE - 100, bytes: 8 * KiB, payload }, { type: WRITE, offset: 0, bytes: 512, payload: payload.subarray(0, 512), flags: DF },
  { type: WRITE, offset: 0xffff_ffff_ffff_f000n, bytes: 8 * KiB, payload },
  { type: READ, offset: 0, bytes: SIZE },
  { type: FLUSH }, { type: FLUSH, flags: FUA }, { type: FLUSH, flags: REQ_ONE }, { type: FLUSH, offset: 5, bytes: 7 }, { type: FLUSH, offset: SIZE + 5 },
  { type: TRIM, offset: 64 * KiB, bytes: 64 * KiB }, { type: TRIM, offset: 0, bytes: SIZE + 1 }, { type: TRIM, offset: 1 * MiB, bytes: 4 * KiB, flags: FUA },
  { type: TRIM, offset: 0, bytes: 0 }, { type: TRIM, offset: 0, bytes: 512, flags: NO_HOLE },
  { type: WRITE_ZEROES, offset: 192 * KiB, bytes: 1 * KiB }, { type: WRITE_ZEROES, offset: 768 * KiB, bytes: 64 * KiB, flags: FAST_ZERO + FUA },
  { type: WRITE_ZEROES, offset: 0, bytes: SIZE + 1 }, { type: WRITE_ZEROES, offset: 0, bytes: 0 }, { type: WRITE_ZEROES, offset: 0, bytes: 512, flags: DF },
  { type: BLOCK_STATUS, offset: 0, bytes: SIZE }, { type: BLOCK_STATUS, offset: 0, bytes: SIZE, flags: REQ_ONE }, { type: BLOCK_STATUS, offset: 100, bytes: 5 },
  { type: BLOCK_STATUS, offset: 0, bytes: 0 }, { type: BLOCK_STATUS, offset: 0, bytes: SIZE + 1 }, { type: BLOCK_STATUS, offset: 0, bytes: SIZE, flags: DF },
  { type: WRITE_ZEROES, offset: SIZE - 1, bytes: 1 }, { type: WRITE_ZEROES, offset: 512 * KiB, bytes: 64 * KiB, flags: NO_HOLE },
  // nothing that is there to be cached: QEMU copies it into the overlay too
  { type: CACHE, offset: 1, bytes: SIZE }, { type: CACHE, offset: 0, bytes: 32 * MiB + 1 }, { type: CACHE, bytes: 0 },
  { type: 8, bytes: 512 }, { type: 8, offset: SIZE, bytes: 512 }, { type: 99 }, { type: 0xffff, flags: 0xffff },
  { type: READ, offset: 0, bytes: SIZE },
];

peers('qemu-nbd', 'qemu-img', 'qemu-io')('requests are answered as by qemu-nbd', () => {
  describe.each([
    { format: 'raw', readOnly: false, structured: true }, { format: 'qcow2', readOnly: false, structured: true },
    { format: 'raw', readOnly: false, structured: false }, { format: 'qcow2', readOnly: true, structured: true },
  ] as const)('%o', ({ format, readOnly, structured }) => {
    test('one after the other', async () => {
      const [qemu, ours] = await serveBoth(format, readOnly);
      const theirs = await outcomes(qemu!, REQUESTS, structured);
      const own = await outcomes(ours!, REQUESTS, structured);
      const different = REQUESTS.map((one, index) => ({ type: one.type, flags: one.flags, offset: one.offset, bytes: one.bytes, theirs: theirs[index]?.slice(0, 600), ours: own[index]?.slice(0, 600) }))
        .filter((_, index) => theirs[index] !== own[index]);
      expect(different).toEqual([]);
    });
  });

  test('what ends a connection', async () => {
    const [qemu, ours] = await serveBoth('raw', false);
    const fatal = [
      request({ type: DISC, flags: 0xffff, offset: 1, bytes: 9 }),
      request({ type: WRITE, bytes: 32 * MiB + 1, handle: 5 }),
      Buffer.from('this is no request at all...'),
      request({ type: WRITE, bytes: 4 * KiB, payload: payload.subarray(0, 100) }),
      request({ type: READ }).subarray(0, 27),
      Buffer.alloc(0),
    ];
    for (const bytes of fatal) {
      const answers = [];
      for (const path of [qemu!, ours!]) {
        const client = await RawNbd.transmitting(path);
        client.send(bytes);
        client.end();
        answers.push((await client.rest()).toString('latin1'));
      }
      expect(answers[1]).toBe(answers[0]);
    }
    // and both still serve
    for (const path of [qemu!, ours!]) {
      const client = await RawNbd.transmitting(path);
      client.send(request({ type: READ, bytes: 512 }));
      expect((await client.replies()).length).toBe(1);
      client.destroy();
    }
  });
});
