/** The same options, byte for byte, to qemu-nbd and to ours: the same answers, byte for byte. */
import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { BlockBackend, NbdServer, openImage, type BlockNode } from '../../src/index.js';
import { useNbdPeers } from '../support/nbd-peers.js';
import { infoPayload, metaPayload, option, RawNbd, text, u16, u32 } from '../support/nbd-raw.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const startPeer = useNbdPeers();
const NAME = 'disk é';
const DESCRIPTION = 'what it holds';
const [EXPORT_NAME, ABORT, LIST, PEEK, STARTTLS, INFO, GO, STRUCTURED, LIST_META, SET_META] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] as const;

let server: NbdServer;
let node: BlockNode;

beforeEach(async () => {
  // not a whole number of sectors
  writeFileSync(tmp('disk.raw'), Buffer.alloc(1_000_000, 0x11));
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'disk.raw', '-F', 'raw', tmp('disk.qcow2')]);
  const image = tmp('disk.qcow2');
  await startPeer('qemu-nbd', ['-t', '-k', tmp('qemu'), '-e', '5', '-A', '-f', 'qcow2', '-x', NAME, '-D', DESCRIPTION, image], tmp('qemu'));
  node = await openImage(image, { locking: 'off' });
  server = new NbdServer();
  server.addExport({ name: NAME, description: DESCRIPTION, backend: new BlockBackend('export', node), readOnly: false, multiConn: true, bitmaps: [], allocationDepth: true });
  await server.listen({ unix: tmp('ours') });
});

afterEach(async () => {
  await server.close();
  await node.close();
});

/** All that a server says to these bytes, until it has nothing more to say. */
async function answerOf(path: string, bytes: readonly Buffer[]): Promise<string> {
  const client = await RawNbd.connect(path);
  client.send(...bytes);
  client.end();
  return (await client.rest()).toString('latin1');
}

const flags = u32(3);
const structured = option(STRUCTURED);
const long = 'x'.repeat(4097);
const SCRIPTS: Readonly<Record<string, readonly Buffer[]>> = {
  'nothing at all': [],
  'half of the flags': [u16(0)],
  'unknown flags': [u32(7), option(LIST)],
  'no fixed newstyle, LIST': [u32(0), option(LIST)],
  'no fixed newstyle, EXPORT_NAME': [u32(0), option(EXPORT_NAME, Buffer.from(NAME))],
  'EXPORT_NAME with zeroes': [u32(1), option(EXPORT_NAME, Buffer.from(NAME))],
  'EXPORT_NAME without zeroes': [flags, option(EXPORT_NAME, Buffer.from(NAME))],
  'EXPORT_NAME after structured replies': [flags, structured, option(EXPORT_NAME, Buffer.from(NAME))],
  'EXPORT_NAME of what is not there': [flags, option(EXPORT_NAME, Buffer.from('none'))],
  'EXPORT_NAME too long': [flags, option(EXPORT_NAME, Buffer.from(long))],
  'bad magic': [flags, Buffer.from('IHAVEOPTIHAVEOPT'), Buffer.from('GARBAGE!'), u32(3), u32(0)],
  'an option of 32 MiB and a byte': [flags, option(99, Buffer.alloc(0), 0x200_0001)],
  'unknown options': [flags, option(99), option(0xffff_ffff, Buffer.alloc(100_000, 1)), option(0), option(PEEK), option(11), option(LIST)],
  'LIST': [flags, option(LIST), option(LIST)],
  'LIST with a payload': [flags, option(LIST, Buffer.from('abc')), option(LIST)],
  'ABORT': [flags, option(ABORT), option(LIST)],
  'ABORT with a payload': [flags, option(ABORT, Buffer.from('abc')), option(LIST)],
  'STARTTLS where there is none': [flags, option(STARTTLS), option(STARTTLS, Buffer.from('x'))],
  'STRUCTURED twice, and with a payload': [flags, option(STRUCTURED, Buffer.from('x')), structured, structured],
  'INFO': [flags, option(INFO, infoPayload(NAME))],
  'INFO of everything': [flags, option(INFO, infoPayload(NAME, 0, 1, 2, 3, 4, 1, 0xffff))],
  'INFO after structured replies': [flags, structured, option(INFO, infoPayload(NAME, 1))],
  'INFO of what is not there': [flags, option(INFO, infoPayload('none', 3)), option(INFO, infoPayload('')), option(INFO, infoPayload('n'.repeat(79))), option(INFO, infoPayload('n'.repeat(80))), option(INFO, infoPayload('n'.repeat(4096)))],
  'INFO, name too long': [flags, option(INFO, infoPayload(long)), option(LIST)],
  'INFO, lengths that do not fit': [flags, option(INFO), option(INFO, u32(10)), option(INFO, text(NAME)), option(INFO, Buffer.concat([text(NAME), u16(2), u16(1)])), option(INFO, Buffer.concat([infoPayload(NAME, 1), u16(1)])), option(LIST)],
  'INFO, a NUL in the name': [flags, option(INFO, infoPayload('a\0b')), option(LIST)],
  'GO': [flags, option(GO, infoPayload(NAME))],
  'GO of everything, structured': [flags, structured, option(GO, infoPayload(NAME, 1, 2, 3))],
  'GO of what is not there, then LIST': [flags, option(GO, infoPayload('none')), option(LIST)],
  'meta contexts without structured replies': [flags, option(LIST_META, metaPayload(NAME)), option(SET_META, metaPayload(NAME, 'base:allocation')), option(LIST)],
  'LIST_META of all': [flags, structured, option(LIST_META, metaPayload(NAME))],
  'LIST_META by query': [flags, structured, ...['', 'base:', 'qemu:', 'base', 'base:allocation', 'base:allocation:', 'qemu:allocation-depth', 'qemu:dirty-bitmap:', 'x:', 'qemu:x']
    .map((query) => option(LIST_META, metaPayload(NAME, query)))],
  'LIST_META, several queries': [flags, structured, option(LIST_META, metaPayload(NAME, 'qemu:allocation-depth', 'x:y', 'base:allocation', 'base:'))],
  'SET_META': [flags, structured, ...[[], ['base:'], ['qemu:'], ['base:allocation'], ['qemu:allocation-depth', 'base:allocation'], ['x:y']].map((queries) => option(SET_META, metaPayload(NAME, ...queries)))],
  'meta contexts of what is not there': [flags, structured, option(LIST_META, metaPayload('none')), option(SET_META, metaPayload('none', 'base:allocation')), option(LIST)],
  'meta contexts, lengths that do not fit': [flags, structured, option(SET_META), option(SET_META, text(NAME)), option(SET_META, Buffer.concat([text(NAME), u32(5)])), option(LIST_META, Buffer.concat([text(NAME), u32(1), u32(4), Buffer.from('abc')])), option(LIST)],
  'meta contexts, strings too long': [flags, structured, option(LIST_META, metaPayload(NAME, `base:${long}`, 'base:allocation')), option(SET_META, metaPayload(long, 'base:allocation')), option(LIST)],
  'meta contexts, a NUL': [flags, structured, option(SET_META, metaPayload(NAME, 'base:\0allocation')), option(LIST)],
  'an option cut off': [flags, option(INFO, infoPayload(NAME).subarray(0, 5), 100)],
};

peers('qemu-nbd', 'qemu-img')('negotiation is as with qemu-nbd', () => {
  test('whatever the client says', async () => {
    const different = [];
    for (const [title, bytes] of Object.entries(SCRIPTS)) {
      const [theirs, ours] = [await answerOf(tmp('qemu'), bytes), await answerOf(tmp('ours'), bytes)];
      if (ours !== theirs) different.push({ title, theirs, ours });
    }
    expect(different).toEqual([]);
  });
});
