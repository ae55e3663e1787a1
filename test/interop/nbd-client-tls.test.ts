/** Our client speaks TLS with GnuTLS servers: certificates both ways, pre-shared keys, and what must be refused. */
import { copyFileSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { BlockError, loadTargetTls, loadTlsPsk, loadTlsX509, NbdClient, parseNbdName, type TlsCredentials } from '../../src/index.js';
import { makeCertificates, makePskKeys } from '../support/certificates.js';
import { nbdkitArgs, qemuNbdArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const start = useNbdPeers();
const KEY = '00112233445566778899aabbccddeeff';

async function roundTrip(socket: string, credentials: TlsCredentials, hostname: string | null): Promise<void> {
  await using client = await NbdClient.open({ address: { type: 'unix', path: socket }, tls: { credentials, hostname } });
  const data = new Uint8Array(300_000).map((_, index) => index % 251);
  await client.write(1000, data);
  await client.flush();
  const back = new Uint8Array(data.byteLength);
  await client.read(1000, back);
  expect(Buffer.compare(back, data)).toBe(0);
}

async function serveX509(directory: string, verify: 'on' | 'off'): Promise<string> {
  const socket = tmp('socket');
  writeFileSync(tmp('disk'), new Uint8Array(1024 * 1024));
  await start('qemu-nbd', qemuNbdArgs(socket, tmp('disk'), '--object', `tls-creds-x509,id=t,dir=${directory},endpoint=server,verify-peer=${verify}`, '--tls-creds', 't'), socket);
  return socket;
}

peers('qemu-nbd', 'openssl')('with qemu-nbd and certificates', () => {
  test('both sides know each other; the host name counts where it is known', async () => {
    const dir = makeCertificates(tmp('pki'));
    const socket = await serveX509(dir, 'on');
    const credentials = loadTlsX509({ endpoint: 'client', dir });
    await roundTrip(socket, credentials, null);
    await roundTrip(socket, credentials, 'localhost');
    await roundTrip(socket, credentials, '127.0.0.1');
    for (const hostname of ['example.org', '127.0.0.2']) {
      await expect(roundTrip(socket, credentials, hostname)).rejects.toMatchObject({ code: 'PEER', message: expect.stringMatching(/TLS handshake failed/) });
    }
    await roundTrip(socket, loadTlsX509({ endpoint: 'client', dir, verifyPeer: false }), 'example.org');
    await roundTrip(socket, loadTlsX509({ endpoint: 'client', dir, priority: 'NORMAL:-VERS-TLS1.3' }), 'localhost');
  });

  test('a server of another authority, and a client without a certificate, are turned away', async () => {
    const dir = makeCertificates(tmp('pki'));
    const other = makeCertificates(tmp('other'));
    const socket = await serveX509(dir, 'on');
    await expect(roundTrip(socket, loadTlsX509({ endpoint: 'client', dir: other }), null)).rejects.toMatchObject({ code: 'PEER' });
    // only the authority: the server wants to know its client
    copyFileSync(`${dir}/ca-cert.pem`, tmp('ca-cert.pem'));
    const anonymous = loadTlsX509({ endpoint: 'client', dir: tmp() });
    await expect(roundTrip(socket, anonymous, null)).rejects.toBeInstanceOf(BlockError);
  });

  test('a client without a certificate is served by a server that does not verify', async () => {
    const dir = makeCertificates(tmp('pki'));
    const socket = await serveX509(dir, 'off');
    copyFileSync(`${dir}/ca-cert.pem`, tmp('ca-cert.pem'));
    await roundTrip(socket, loadTlsX509({ endpoint: 'client', dir: tmp() }), 'localhost');
  });

  test('plain text is refused by a server that has TLS, TLS by one that has none', async () => {
    const dir = makeCertificates(tmp('pki'));
    const socket = await serveX509(dir, 'on');
    await expect(NbdClient.open({ address: { type: 'unix', path: socket } })).rejects.toMatchObject({ code: 'PEER', message: expect.stringMatching(/TLS negotiation required before option/) });
    writeFileSync(tmp('plain-disk'), new Uint8Array(65_536));
    await start('qemu-nbd', qemuNbdArgs(tmp('plain'), tmp('plain-disk')), tmp('plain'));
    await expect(roundTrip(tmp('plain'), loadTlsX509({ endpoint: 'client', dir }), null)).rejects.toMatchObject({ code: 'PEER', message: expect.stringMatching(/Denied by server for option 5 \(starttls\)/) });
  });
});

peers('qemu-nbd')('with qemu-nbd and pre-shared keys', () => {
  test('the key opens, another key, user or version does not', async () => {
    const dir = makePskKeys(tmp('psk'), { qemu: KEY, alice: 'ffeeddccbbaa' });
    const socket = tmp('socket');
    writeFileSync(tmp('disk'), new Uint8Array(1024 * 1024));
    await start('qemu-nbd', qemuNbdArgs(socket, tmp('disk'), '--object', `tls-creds-psk,id=t,dir=${dir},endpoint=server`, '--tls-creds', 't'), socket);
    await roundTrip(socket, loadTlsPsk({ endpoint: 'client', dir }), 'whatever');
    await roundTrip(socket, loadTlsPsk({ endpoint: 'client', dir, username: 'alice' }), null);
    await roundTrip(socket, loadTlsPsk({ endpoint: 'client', dir, priority: 'NORMAL:-VERS-ALL:+VERS-TLS1.2' }), null);
    const wrong = makePskKeys(tmp('wrong'), { qemu: KEY.replace('0', '1'), bob: KEY });
    for (const username of ['qemu', 'bob']) {
      await expect(roundTrip(socket, loadTlsPsk({ endpoint: 'client', dir: wrong, username }), null)).rejects.toMatchObject({ code: 'PEER' });
    }
  });
});

peers('nbdkit')('with nbdkit and pre-shared keys', () => {
  test('a server that dies in the middle of a session is a lost connection, and found again', async () => {
    const dir = makePskKeys(tmp('psk'), { qemu: KEY });
    const args = nbdkitArgs(tmp('socket'), '--tls=require', `--tls-psk=${dir}/keys.psk`, '--filter=delay', 'memory', '4M', 'delay-read=100ms');
    const tls = { credentials: loadTlsPsk({ endpoint: 'client', dir }), hostname: null };
    for (const reconnectDelayMs of [0, 10_000]) {
      const first = await start('nbdkit', args, tmp('socket'));
      const client = await NbdClient.open({ address: { type: 'unix', path: tmp('socket') }, tls, connections: 2, reconnectDelayMs });
      const reads = Promise.allSettled(Array.from({ length: 8 }, () => client.read(0, new Uint8Array(100_000))));
      await first.stop('SIGKILL');
      const second = await start('nbdkit', args, tmp('socket'));
      const outcomes = (await reads).map((outcome) => outcome.status === 'fulfilled' ? 'read' : (outcome.reason as BlockError).errno);
      expect([...new Set(outcomes)]).toEqual([reconnectDelayMs === 0 ? 'EIO' : 'read']);
      await client.read(0, new Uint8Array(512));
      await client.close();
      await second.stop();
    }
  });
});

peers('nbdkit', 'openssl')('with nbdkit', () => {
  test('certificates and keys, by the parameters of a URI', async () => {
    const dir = makeCertificates(tmp('pki'));
    const psk = makePskKeys(tmp('psk'), { qemu: KEY });
    await start('nbdkit', nbdkitArgs(tmp('x509'), '--tls=require', `--tls-certificates=${dir}`, '--tls-verify-peer', 'memory', '1M'), tmp('x509'));
    await start('nbdkit', nbdkitArgs(tmp('keys'), '--tls=require', `--tls-psk=${psk}/keys.psk`, 'memory', '1M'), tmp('keys'));
    for (const uri of [
      `nbds+unix:///?socket=${tmp('x509')}&tls-certificates=${dir}&tls-hostname=localhost`,
      `nbds+unix://qemu@/?socket=${tmp('keys')}&tls-psk-file=${psk}/keys.psk`,
    ]) {
      const { address, tls } = parseNbdName(uri);
      await using client = await NbdClient.open({ address, tls: loadTargetTls(tls) });
      await client.write(0, new Uint8Array(100_000).fill(7));
      const back = new Uint8Array(100_000);
      await client.read(0, back);
      expect(back.every((byte) => byte === 7)).toBe(true);
    }
  });
});
