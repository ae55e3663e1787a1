/** What credential objects refuse when they are made. */
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer, type Socket } from 'node:net';
import { loadTlsPsk, loadTlsPskFile, loadTlsX509, startTlsClient, startTlsServer, systemTrust, type TlsCredentials } from '../../../src/nbd/tls.js';
import { makeCertificates, makePskKeys } from '../../support/certificates.js';
import { peers } from '../../support/peers.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();

/** Both ends of a unix socket. */
async function pair(path: string): Promise<[Socket, Socket]> {
  return new Promise((resolve) => {
    const server = createServer((there) => {
      server.close();
      resolve([here, there]);
    });
    let here!: Socket;
    server.listen(path, () => { here = connect({ path }); });
  });
}

async function handshake(client: TlsCredentials, server: TlsCredentials, hostname: string | null): Promise<string> {
  const [here, there] = await pair(tmp(`socket-${Math.trunc(performance.now() * 1000)}`));
  const [one, two] = await Promise.allSettled([startTlsClient(here, client, hostname, 2000), startTlsServer(there, server, 2000)]);
  const outcome = one.status === 'rejected' ? 'client refuses' : two.status === 'rejected' ? 'server refuses' : one.value.getProtocol() ?? 'none';
  for (const end of [one, two]) if (end.status === 'fulfilled') end.value.destroy();
  for (const end of [one, two]) if (end.status === 'rejected') expect(end.reason).toMatchObject({ code: 'PEER', errno: 'EIO' });
  here.destroy();
  there.destroy();
  return outcome;
}

peers('openssl')('certificates', () => {
  let pki = '';
  let other = '';
  beforeAll(() => {
    pki = makeCertificates(mkdtempSync(join(tmpdir(), 'quiesce-pki-')));
    other = makeCertificates(mkdtempSync(join(tmpdir(), 'quiesce-pki-')));
  });
  afterAll(() => { for (const dir of [pki, other]) rmSync(dir, { recursive: true, force: true }); });

  test('our two ends speak with each other, in both versions', async () => {
    const [client, server] = [loadTlsX509({ endpoint: 'client', dir: pki }), loadTlsX509({ endpoint: 'server', dir: pki })];
    expect(await handshake(client, server, 'localhost')).toBe('TLSv1.3');
    expect(await handshake(loadTlsX509({ endpoint: 'client', dir: pki, priority: 'NORMAL:-VERS-TLS1.3' }), server, null)).toBe('TLSv1.2');
    expect(await handshake(client, server, 'example.org')).toBe('client refuses');
    expect(await handshake(loadTlsX509({ endpoint: 'client', dir: other }), server, null)).toBe('client refuses');
    expect(await handshake(systemTrust(), server, 'localhost')).toBe('client refuses');
    expect(await handshake(client, loadTlsPsk({ endpoint: 'server', dir: makePskKeys(tmp('psk'), { qemu: '00ff' }) }), null)).toBe('client refuses');
  });

  test.each([
    ['no authority', 'ca-cert.pem', 'NOT_FOUND', /Unable to access credentials .*ca-cert\.pem: No such file/],
    ['no certificate of the server', 'server-cert.pem', 'NOT_FOUND', /Unable to access credentials .*server-cert\.pem/],
    ['no key of the server', 'server-key.pem', 'NOT_FOUND', /Unable to access credentials .*server-key\.pem/],
  ])('%s', (_what, missing, code, message) => {
    for (const name of ['ca-cert.pem', 'server-cert.pem', 'server-key.pem']) if (name !== missing) copyFileSync(join(pki, name), tmp(name));
    expect(() => loadTlsX509({ endpoint: 'server', dir: tmp() })).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  test('half a client, garbage, and a chain that ends elsewhere', () => {
    copyFileSync(join(pki, 'ca-cert.pem'), tmp('ca-cert.pem'));
    copyFileSync(join(pki, 'client-cert.pem'), tmp('client-cert.pem'));
    const load = (): unknown => loadTlsX509({ endpoint: 'client', dir: tmp() });
    expect(load).toThrow(/must hold both/);
    copyFileSync(join(other, 'client-cert.pem'), tmp('client-cert.pem'));
    copyFileSync(join(other, 'client-key.pem'), tmp('client-key.pem'));
    expect(load).toThrow(/failed validation against/);
    expect(() => loadTlsX509({ endpoint: 'client', dir: tmp(), sanityCheck: false })).not.toThrow();
    copyFileSync(join(pki, 'client-cert.pem'), tmp('client-cert.pem'));
    expect(load).toThrow(/cannot be used/);
    writeFileSync(tmp('ca-cert.pem'), 'no certificate');
    expect(load).toThrow(/Unable to import certificates/);
    copyFileSync(join(pki, 'client-cert.pem'), tmp('ca-cert.pem'));
    expect(load).toThrow(/basic constraints do not show a CA/);
  });

  test('certificates out of their time', () => {
    const dir = makeCertificates(tmp('expired'), { days: -1 });
    expect(() => loadTlsX509({ endpoint: 'server', dir })).toThrow(/The server certificate .* has expired/);
  });
});

describe('pre-shared keys', () => {
  test('our two ends speak with each other, and only with the key', async () => {
    const dir = makePskKeys(tmp('psk'), { qemu: '0011223344', alice: 'aabbcc' });
    const server = loadTlsPsk({ endpoint: 'server', dir });
    expect(await handshake(loadTlsPsk({ endpoint: 'client', dir }), server, 'x')).toBe('TLSv1.3');
    expect(await handshake(loadTlsPsk({ endpoint: 'client', dir, username: 'alice', priority: 'NORMAL:-VERS-ALL:+VERS-TLS1.2' }), server, null)).toBe('TLSv1.2');
    const wrong = makePskKeys(tmp('wrong'), { qemu: '0011223345', bob: '0011223344' });
    for (const username of ['qemu', 'bob']) expect(await handshake(loadTlsPsk({ endpoint: 'client', dir: wrong, username }), server, null)).toMatch(/refuses/);
  });

  test('files and users that are not there', () => {
    expect(() => loadTlsPsk({ endpoint: 'server', dir: tmp() })).toThrow(/Unable to access credentials .*keys\.psk/);
    const dir = makePskKeys(tmp('psk'), { qemu: '00' });
    expect(() => loadTlsPsk({ endpoint: 'client', dir, username: 'eve' })).toThrow(/Username eve not found/);
    expect(() => loadTlsPskFile(join(dir, 'keys.psk'), 'eve')).toThrow(/Username eve not found/);
    for (const line of ['qemu', 'qemu:xyz', ':00', 'qemu:0', `qemu:${'00'.repeat(513)}`]) {
      writeFileSync(tmp('keys.psk'), `# a comment\n\n${line}\n`);
      expect(() => loadTlsPsk({ endpoint: 'server', dir: tmp() })).toThrow(/line 3 of .* USER:HEXKEY/);
    }
  });

  test.each([
    ['NORMAL:-VERS-ALL', /leaves no version/], ['NORMAL:-AES-128-CBC', /'-AES-128-CBC' is not understood/], ['NORMAL:!ARCFOUR', /not understood/],
  ])('priority %s', (priority, message) => {
    const dir = makePskKeys(tmp('psk'), { qemu: '00' });
    expect(() => loadTlsPsk({ endpoint: 'client', dir, priority })).toThrow(message);
  });
});
