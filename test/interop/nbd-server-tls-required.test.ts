/** Before TLS, a server that requires it says what qemu-nbd says, byte for byte; and what was sent too early is never used. */
import tls from 'node:tls';
import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { BlockBackend, BlockNode, loadTlsPsk, loadTlsX509, MemoryDriver, NbdServer, Random } from '../../src/index.js';
import { makeCertificates, makePskKeys } from '../support/certificates.js';
import { useNbdPeers } from '../support/nbd-peers.js';
import { infoPayload, metaPayload, option, RawNbd, u32 } from '../support/nbd-raw.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const startPeer = useNbdPeers();
const KEY = '00112233445566778899aabbccddeeff';
const [EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, SET_META] = [1, 2, 3, 5, 6, 7, 8, 10] as const;
const problems: string[] = [];
let server: NbdServer;

beforeEach(async () => {
  writeFileSync(tmp('disk.raw'), Buffer.alloc(65_536));
  const dir = makePskKeys(tmp('psk'), { qemu: KEY });
  await startPeer('qemu-nbd', ['-t', '-e', '5', '-f', 'raw', '-k', tmp('qemu'), '--object', `tls-creds-psk,id=t,endpoint=server,dir=${dir}`, '--tls-creds', 't', tmp('disk.raw')], tmp('qemu'));
  const node = new BlockNode({ name: 'disk', driver: new MemoryDriver({ bytes: 65_536, growable: false }) });
  server = new NbdServer({ tls: loadTlsPsk({ endpoint: 'server', dir }), onProblem: (why) => problems.push(why) });
  server.addExport({ name: '', description: null, backend: new BlockBackend('disk', node), readOnly: false, multiConn: true, bitmaps: [], allocationDepth: false });
  await server.listen({ unix: tmp('ours') });
});

afterEach(async () => {
  await server.close();
});

peers('nbdinfo', 'openssl', 'qemu-nbd')('who may connect', () => {
  test('is asked by the subject that QEMU would ask about', async () => {
    const subject = 'C=GB,ST=London,O=Example\\, Home,EMAIL=a@b.c,CN=lap top';
    const dir = makeCertificates(tmp('pki'), { clientSubject: '/C=GB/ST=London/O=Example, Home/emailAddress=a@b.c/CN=lap top' });
    const size = (path: string): ReturnType<typeof run> => run('nbdinfo', ['--size', `nbds+unix:///?socket=${path}&tls-certificates=${dir}&tls-hostname=localhost`]);
    // QEMU agrees about the subject
    await startPeer('qemu-nbd', ['-t', '-e', '5', '-f', 'raw', '-k', tmp('authz'), '--object', `tls-creds-x509,id=t,endpoint=server,dir=${dir}`, '--object', `authz-simple,id=z,identity=${subject.replaceAll(',', ',,')}`, '--tls-creds', 't', '--tls-authz', 'z', tmp('disk.raw')], tmp('authz'));
    expect(await size(tmp('authz'))).toMatchObject({ code: 0, stdout: '65536\n' });
    const asked: string[] = [];
    for (const answer of [true, false]) {
      const choosy = new NbdServer({ tls: loadTlsX509({ endpoint: 'server', dir }), authorize: (who) => { asked.push(who); return answer; }, onProblem: (why) => problems.push(why) });
      const disk = new BlockNode({ name: 'disk', driver: new MemoryDriver({ bytes: 65_536, growable: false }) });
      choosy.addExport({ name: '', description: null, backend: new BlockBackend('disk', disk), readOnly: false, multiConn: true, bitmaps: [], allocationDepth: false });
      await choosy.listen({ unix: tmp('choosy') });
      expect((await size(tmp('choosy'))).code === 0).toBe(answer);
      await choosy.close();
    }
    expect(asked).toEqual([subject, subject]);
    expect(problems).toContain(`TLS x509 authz check for ${subject} is denied`);
  });
});

peers('nbdcopy')('nbdcopy', () => {
  test('moves large payloads both ways over TLS', async () => {
    const content = Buffer.alloc(24 * 1024 * 1024);
    new Random(3).fill(content);
    writeFileSync(tmp('in'), content);
    const node = new BlockNode({ name: 'large', driver: new MemoryDriver({ bytes: content.byteLength, growable: false }) });
    server.addExport({ name: 'large', description: null, backend: new BlockBackend('large', node), readOnly: false, multiConn: true, bitmaps: [], allocationDepth: false });
    const uri = `nbds+unix://qemu@/large?socket=${tmp('ours')}&tls-psk-file=${tmp('psk')}/keys.psk`;
    await runOk('nbdcopy', ['--connections=2', '--request-size=4194304', tmp('in'), uri]);
    await runOk('nbdcopy', ['--connections=2', '--request-size=4194304', uri, tmp('out')]);
    expect(readFileSync(tmp('out')).equals(content)).toBe(true);
  });
});

const flags = u32(3);
const SCRIPTS: Readonly<Record<string, readonly Buffer[]>> = {
  'everything but TLS': [flags, option(LIST), option(STRUCTURED), option(INFO, infoPayload('', 3)), option(GO, infoPayload('')), option(SET_META, metaPayload('', 'base:allocation')), option(99, Buffer.alloc(5000)), option(0xffff_ffff)],
  'EXPORT_NAME': [flags, option(EXPORT_NAME)],
  'ABORT': [flags, option(ABORT), option(LIST)],
  'STARTTLS with a payload': [flags, option(STARTTLS, Buffer.from('x')), option(LIST)],
  'no fixed newstyle': [u32(2), option(STARTTLS)],
  'no fixed newstyle, EXPORT_NAME': [u32(0), option(EXPORT_NAME)],
};

peers('qemu-nbd')('a server that requires TLS', () => {
  test('answers as qemu-nbd does', async () => {
    const different = [];
    for (const [title, bytes] of Object.entries(SCRIPTS)) {
      const answers = [];
      for (const path of [tmp('qemu'), tmp('ours')]) {
        const client = await RawNbd.connect(path);
        client.send(...bytes);
        client.end();
        answers.push((await client.rest()).toString('latin1'));
      }
      if (answers[0] !== answers[1]) different.push({ title, answers });
    }
    expect(different).toEqual([]);
  });

  test('never uses what came before TLS', async () => {
    const client = await RawNbd.greeted(tmp('ours'));
    // someone in the middle adds an option to what the client says in the clear
    client.send(option(STARTTLS), option(STRUCTURED));
    expect((await client.rest()).subarray(20).byteLength).toBe(0);
    expect(problems.at(-1)).toBe('the client sent plain bytes after it asked for TLS');
  });

  test('goes on inside TLS as if nothing had been said, but for the flags', async () => {
    const client = await RawNbd.greeted(tmp('ours'), 3);
    client.send(option(STARTTLS));
    await client.optionReplies();
    client.socket.removeAllListeners('data');
    const session = tls.connect({ socket: client.socket, ciphers: 'PSK', minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', pskCallback: () => ({ identity: 'qemu', psk: Buffer.from(KEY, 'hex') }), checkServerIdentity: () => undefined });
    const received: Buffer[] = [];
    session.on('data', (data: Buffer) => received.push(data));
    await new Promise((resolve) => { session.once('secureConnect', resolve); });
    session.write(Buffer.concat([option(STARTTLS), option(STRUCTURED), option(STRUCTURED), option(EXPORT_NAME)]));
    while (Buffer.concat(received).byteLength < 20 + 19 + 20 + 20 + 35 + 10) await new Promise((resolve) => setTimeout(resolve, 5));
    const all = Buffer.concat(received);
    expect(all.toString('latin1')).toContain('TLS already enabled');
    expect(all.toString('latin1')).toContain('structured reply already negotiated');
    // no zeroes: size and flags end it
    expect(all.subarray(-10).readBigUInt64BE(0)).toBe(65_536n);
    session.destroy();
  });
});
