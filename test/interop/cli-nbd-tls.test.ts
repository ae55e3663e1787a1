/** TLS as users meet it: `nbd serve --tls`, `nbds://` in `nbd copy` and `nbd info`, the storage daemon's objects; GnuTLS on the other side. */
import { copyFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { makeCertificates, makePskKeys } from '../support/certificates.js';
import { makeImage, quiesceOk, startQuiesce, waitFor, type RunningCommand } from '../support/cli.js';
import { useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { appears } from '../support/listening.js';
import { kill, quiesce, run, runOk, start, storageDaemonLauncher, type RunResult } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { QmpClient } from '../../src/index.js';

const tmp = useTmp();
const startPeer = useNbdPeers();
const KEY = '00112233445566778899aabbccddeeff';
const NAMES = { pki: 'ca', other: 'other' };
const servers: RunningCommand['child'][] = [];
let image = '';

beforeEach(async () => {
  image = await makeImage(tmp('disk.qcow2'), '8M');
  await runOk('qemu-io', ['-c', 'write -P 7 1M 300k', image]);
});
afterEach(async () => {
  for (const child of servers.splice(0)) await kill(child);
});

/** `nbd serve` on TCP; resolves with its URI. */
async function serve(...args: string[]): Promise<string> {
  const server = startQuiesce(['nbd', 'serve', image, '--port', '0', '--persistent', ...args]);
  servers.push(server.child);
  let said = '';
  server.child.stdout!.on('data', (data: Buffer) => { said += data.toString(); });
  await waitFor('a URI', () => said.endsWith('\n') || server.child.exitCode !== null);
  expect(said).toMatch(/^nbds:\/\/127\.0\.0\.1:\d+\/\n$/);
  return said.trim();
}

/** Three clients of others and two of ours look at an export; true where they saw it. */
async function clients(uri: string, object: string, more = ''): Promise<Record<string, boolean>> {
  const [, host, port] = /^nbds:\/\/(?:[^@/]*@)?([^:]+):(\d+)\//.exec(uri)!;
  const saw = ({ code, stdout }: RunResult): boolean => code === 0 && /8388608|8 MiB|copied/.test(stdout);
  return {
    nbdinfo: saw(await run('nbdinfo', ['--size', uri])),
    qemu: saw(await run('qemu-img', ['info', '--object', object, '--image-opts', `driver=nbd,host=${host},port=${port},tls-creds=t${more}`])),
    nbdcopy: (await run('nbdcopy', [uri, tmp('by-nbdcopy')])).code === 0,
    info: saw(await quiesce(['nbd', 'info', uri])),
    copy: saw(await quiesce(['nbd', 'copy', uri, tmp('copied.raw')])),
  };
}

const ALL = { nbdinfo: true, qemu: true, nbdcopy: true, info: true, copy: true };
const NONE = { nbdinfo: false, qemu: false, nbdcopy: false, info: false, copy: false };

async function expectPlainTurnedAway(uri: string): Promise<void> {
  const plain = uri.replace('nbds:', 'nbd:').replace(/\?.*/, '');
  const asked = [await run('nbdinfo', ['--size', plain]), await run('qemu-img', ['info', plain]), await quiesce(['nbd', 'info', plain]), await quiesce(['nbd', 'copy', plain, tmp('plain.raw')])];
  expect(asked.map(({ code }) => code === 0)).toEqual([false, false, false, false]);
  expect(asked[2]!.stderr).toMatch(/^quiesce: [^\n]*TLS[^\n]*\n$/);
}

peers('openssl', 'nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io')('nbd serve --tls', () => {
  test('certificates: those of the authority are served, others and plain clients are not', async () => {
    const [dir, other] = [makeCertificates(tmp(NAMES.pki)), makeCertificates(tmp(NAMES.other))];
    const uri = await serve('--tls', dir);
    const object = (folder: string): string => `tls-creds-x509,id=t,dir=${folder},endpoint=client`;
    expect(await clients(`${uri}?tls-certificates=${dir}`, object(dir))).toEqual(ALL);
    expect(await runOk('qemu-img', ['compare', '-U', '-F', 'raw', image, tmp('copied.raw')])).toContain('identical');
    expect(await clients(`${uri}?tls-certificates=${other}`, object(other))).toEqual(NONE);
    copyFileSync(`${dir}/ca-cert.pem`, tmp('ca-cert.pem'));
    expect(await clients(`${uri}?tls-certificates=${tmp()}`, object(tmp()))).toEqual(NONE);
    // the server's certificate is not for that name (libnbd 1.14 asks for the host's)
    expect(await clients(`${uri}?tls-certificates=${dir}&tls-hostname=example.org`, object(dir), ',tls-hostname=example.org')).toMatchObject({ qemu: false, info: false, copy: false });
    expect((await quiesce(['nbd', 'info', uri])).stderr).toMatch(/^quiesce: [^\n]*certificate[^\n]*\n$/);
    await expectPlainTurnedAway(uri);
    expect(await clients(`${uri}?tls-certificates=${dir}`, object(dir))).toEqual(ALL);
  });

  test('--tls-any-client: a client without a certificate, which still verifies the server', async () => {
    const [dir, other] = [makeCertificates(tmp(NAMES.pki)), makeCertificates(tmp(NAMES.other))];
    const uri = await serve('--tls', dir, '--tls-any-client');
    copyFileSync(`${dir}/ca-cert.pem`, tmp('ca-cert.pem'));
    expect(await clients(`${uri}?tls-certificates=${tmp()}`, `tls-creds-x509,id=t,dir=${tmp()},endpoint=client`)).toEqual(ALL);
    copyFileSync(`${other}/ca-cert.pem`, tmp('ca-cert.pem'));
    expect(await clients(`${uri}?tls-certificates=${tmp()}`, `tls-creds-x509,id=t,dir=${tmp()},endpoint=client`)).toEqual(NONE);
  });

  test('pre-shared keys: who has the key is served, others and plain clients are not', async () => {
    const dir = makePskKeys(tmp('psk'), { qemu: KEY });
    const wrong = makePskKeys(tmp('wrong'), { qemu: KEY.replace('0', '1') });
    const uri = (await serve('--tls', dir)).replace('nbds://', 'nbds://qemu@');
    expect(await clients(`${uri}?tls-psk-file=${dir}/keys.psk`, `tls-creds-psk,id=t,dir=${dir},endpoint=client`)).toEqual(ALL);
    expect(await clients(`${uri}?tls-psk-file=${wrong}/keys.psk`, `tls-creds-psk,id=t,dir=${wrong},endpoint=client`)).toEqual(NONE);
    await expectPlainTurnedAway(uri);
    expect(await quiesce(['nbd', 'serve', image, '--tls', dir, '--tls-any-client'])).toMatchObject({ code: 2, stderr: expect.stringContaining('needs certificates') });
  });
});

peers('openssl', 'qemu-nbd', 'qemu-img', 'qemu-io')('nbd copy', () => {
  test('from and to TLS servers of QEMU', async () => {
    const [dir, psk] = [makeCertificates(tmp(NAMES.pki)), makePskKeys(tmp('psk'), { qemu: KEY })];
    await makeImage(tmp('target.qcow2'), '8M');
    const served = (socket: string, object: string, file: string): Promise<unknown> =>
      startPeer('qemu-nbd', ['-t', '-e', '8', '-f', 'qcow2', '-k', socket, '--object', object, '--tls-creds', 't', file], socket);
    await served(tmp('a'), `tls-creds-x509,id=t,endpoint=server,dir=${dir}`, image);
    await served(tmp('b'), `tls-creds-psk,id=t,endpoint=server,dir=${psk}`, tmp('target.qcow2'));
    await quiesceOk(['nbd', 'copy', `nbds+unix:///?socket=${tmp('a')}&tls-certificates=${dir}&tls-hostname=localhost`, `nbds+unix://qemu@/?socket=${tmp('b')}&tls-psk-file=${psk}/keys.psk`]);
    expect(await runOk('qemu-img', ['compare', '-U', image, tmp('target.qcow2')])).toContain('identical');
  });
});

peers('openssl', 'qemu-img', 'qemu-io', 'nbdinfo')('the storage daemon', () => {
  /** A daemon of ours: node `disk` over the image, its monitor at `qmp`. */
  async function daemon(...args: string[]): Promise<QmpClient> {
    const child = start(storageDaemonLauncher, [
      '--blockdev', `driver=qcow2,node-name=disk,file.driver=file,file.filename=${image}`, ...args,
      '--chardev', `socket,id=c,path=${tmp('qmp')},server=on,wait=off`, '--monitor', 'c',
    ]);
    servers.push(child);
    await appears(tmp('qmp'));
    return QmpClient.connect(tmp('qmp'));
  }
  const io = (object: string, socket: string, more = ''): Promise<RunResult> => run('qemu-io', ['--object', object, '--image-opts', `driver=nbd,server.type=unix,server.path=${socket},export=disk,tls-creds=t${more}`,
    '-c', 'read -P 7 1M 300k', '-c', 'write -P 8 4M 64k', '-c', 'flush']);

  test('keys on its command line, certificates by QMP: the same server, one after the other', async () => {
    const [dir, other] = [makeCertificates(tmp(NAMES.pki)), makeCertificates(tmp(NAMES.other))];
    const psk = makePskKeys(tmp('psk'), { qemu: KEY });
    const wrong = makePskKeys(tmp('wrong'), { qemu: KEY.replace('0', '1') });
    const qmp = await daemon('--object', `tls-creds-psk,id=k,endpoint=server,dir=${psk}`,
      '--nbd-server', `addr.type=unix,addr.path=${tmp('s')},tls-creds=k`, '--export', 'nbd,id=e,node-name=disk,writable=on');
    expect(await io(`tls-creds-psk,id=t,dir=${psk},endpoint=client`, tmp('s'))).toMatchObject({ code: 0, stderr: '' });
    expect((await io(`tls-creds-psk,id=t,dir=${wrong},endpoint=client`, tmp('s'))).code).not.toBe(0);
    expect((await run('nbdinfo', ['--size', `nbd+unix:///disk?socket=${tmp('s')}`])).code).not.toBe(0);
    await qmp.execute('nbd-server-stop');
    await qmp.execute('object-add', { 'qom-type': 'tls-creds-x509', id: 'x', endpoint: 'server', dir });
    await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: tmp('s2') } }, 'tls-creds': 'x' });
    await qmp.execute('block-export-add', { type: 'nbd', id: 'e2', 'node-name': 'disk', writable: true });
    const object = (folder: string): string => `tls-creds-x509,id=t,dir=${folder},endpoint=client`;
    expect(await io(object(dir), tmp('s2'), ',tls-hostname=localhost')).toMatchObject({ code: 0, stderr: '' });
    expect((await io(object(other), tmp('s2'), ',tls-hostname=localhost')).code).not.toBe(0);
    expect((await run('nbdinfo', ['--size', `nbd+unix:///disk?socket=${tmp('s2')}`])).code).not.toBe(0);
    // credentials of the wrong end are none
    await qmp.execute('object-add', { 'qom-type': 'tls-creds-psk', id: 'client', endpoint: 'client', dir: psk });
    await qmp.execute('nbd-server-stop');
    await expect(qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: tmp('s3') } }, 'tls-creds': 'client' })).rejects.toThrow('Expecting TLS credentials with a server endpoint');
    qmp.close();
  });

  test('a node on a TLS server: with the object that is for it, and with no other', async () => {
    const psk = makePskKeys(tmp('psk'), { qemu: KEY });
    await makeImage(tmp('far.qcow2'), '8M');
    await startPeer('qemu-nbd', ['-t', '-e', '8', '-f', 'qcow2', '-k', tmp('far'), '--object', `tls-creds-psk,id=t,endpoint=server,dir=${psk}`, '--tls-creds', 't', tmp('far.qcow2')], tmp('far'));
    const qmp = await daemon('--object', `tls-creds-psk,id=k,endpoint=client,dir=${psk}`, '--nbd-server', `addr.type=unix,addr.path=${tmp('s')}`);
    const server = { type: 'unix', path: tmp('far') };
    await expect(qmp.execute('blockdev-add', { driver: 'nbd', 'node-name': 'n', server })).rejects.toThrow(/TLS/);
    await qmp.execute('blockdev-add', { driver: 'nbd', 'node-name': 'n', server, 'tls-creds': 'k' });
    await qmp.execute('block-export-add', { type: 'nbd', id: 'e', 'node-name': 'n', writable: true });
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 5 2M 64k', '-c', 'read -P 5 2M 64k', `nbd+unix:///n?socket=${tmp('s')}`]);
    expect(await runOk('qemu-io', ['-U', '-r', '-c', 'read -P 5 2M 64k', tmp('far.qcow2')])).not.toContain('failed');
    qmp.close();
  });
});
