/** GnuTLS clients speak TLS with our server: certificates both ways, pre-shared keys, and what must be turned away. */
import { copyFileSync } from 'node:fs';
import { afterEach, expect, test } from '@jest/globals';
import { BlockBackend, BlockNode, loadTlsPsk, loadTlsX509, MemoryDriver, NbdServer, type TlsCredentials } from '../../src/index.js';
import { makeCertificates, makePskKeys } from '../support/certificates.js';
import { peers } from '../support/peers.js';
import { run } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KEY = '00112233445566778899aabbccddeeff';
let server: NbdServer | null = null;
afterEach(async () => {
  await server?.close();
  server = null;
});

async function serve(tls: TlsCredentials): Promise<string> {
  const node = new BlockNode({ name: 'disk', driver: new MemoryDriver({ bytes: 1024 * 1024, growable: false }) });
  await node.write(4096, new Uint8Array(4096).fill(0x5a));
  const disk = { name: '', description: null, backend: new BlockBackend('disk', node), readOnly: false, multiConn: true, bitmaps: [], allocationDepth: false };
  server = new NbdServer({ tls });
  server.addExport(disk);
  const path = tmp('socket');
  await server.listen({ unix: path });
  return path;
}

function qemuIo(object: string, socket: string, more = ''): Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }> {
  return run('qemu-io', ['--object', object, '--image-opts', `driver=nbd,server.type=unix,server.path=${socket},tls-creds=t${more}`,
    '-c', 'read -P 0x5a 4096 4096', '-c', 'write -P 1 0 300000', '-c', 'flush', '-c', 'read -P 1 0 300000']);
}

peers('qemu-io', 'nbdinfo', 'openssl')('with certificates', () => {
  test('qemu-io and nbdinfo are served; a client without a certificate, or of another authority, is not', async () => {
    const dir = makeCertificates(tmp('pki'));
    const other = makeCertificates(tmp('other'));
    const socket = await serve(loadTlsX509({ endpoint: 'server', dir }));
    const client = (directory: string): string => `tls-creds-x509,id=t,dir=${directory},endpoint=client`;
    const good = await qemuIo(client(dir), socket, ',tls-hostname=localhost');
    expect(good.stderr + good.stdout).not.toMatch(/fail|error|Pattern verification/i);
    expect(good.code).toBe(0);
    const size = await run('nbdinfo', ['--size', `nbds+unix:///?socket=${socket}&tls-certificates=${dir}&tls-hostname=localhost`]);
    expect(size.stdout.trim() || size.stderr).toBe('1048576');
    copyFileSync(`${dir}/ca-cert.pem`, tmp('ca-cert.pem'));
    for (const directory of [tmp(), other]) expect((await qemuIo(client(directory), socket, ',tls-hostname=localhost')).code).not.toBe(0);
    expect((await run('qemu-img', ['info', `nbd:unix:${socket}`])).code).not.toBe(0);
    // those that were turned away harm nobody
    expect((await run('nbdinfo', ['--size', `nbds+unix:///?socket=${socket}&tls-certificates=${dir}&tls-hostname=localhost`])).code).toBe(0);
  });

  test('a server that does not verify takes a client without a certificate', async () => {
    const dir = makeCertificates(tmp('pki'), { passphrase: 'open sesame' });
    expect(() => loadTlsX509({ endpoint: 'server', dir, passphrase: 'wrong' })).toThrow(/cannot be used/);
    const socket = await serve(loadTlsX509({ endpoint: 'server', dir, verifyPeer: false, passphrase: 'open sesame' }));
    copyFileSync(`${dir}/ca-cert.pem`, tmp('ca-cert.pem'));
    expect((await qemuIo(`tls-creds-x509,id=t,dir=${tmp()},endpoint=client`, socket, ',tls-hostname=localhost')).stderr).toBe('');
  });
});

peers('qemu-io', 'nbdinfo')('with pre-shared keys', () => {
  test('qemu-io and nbdinfo are served with the key and turned away without it', async () => {
    const dir = makePskKeys(tmp('psk'), { qemu: KEY });
    const wrong = makePskKeys(tmp('wrong'), { qemu: KEY.replace('0', '1'), eve: KEY });
    const socket = await serve(loadTlsPsk({ endpoint: 'server', dir }));
    const good = await qemuIo(`tls-creds-psk,id=t,dir=${dir},endpoint=client`, socket);
    expect([good.code, good.stderr]).toEqual([0, '']);
    for (const more of ['', ',username=eve']) expect((await qemuIo(`tls-creds-psk,id=t,dir=${wrong},endpoint=client${more}`, socket)).code).not.toBe(0);
    const size = await run('nbdinfo', ['--size', `nbds+unix://qemu@/?socket=${socket}&tls-psk-file=${dir}/keys.psk`]);
    expect(size.stdout.trim() || size.stderr).toBe('1048576');
  });
});
