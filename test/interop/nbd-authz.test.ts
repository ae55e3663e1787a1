/** `tls-authz`: who may connect is asked of an object, by our programs as by QEMU's. */
import { expect, test } from '@jest/globals';
import { makeCertificates } from '../support/certificates.js';
import { peers } from '../support/peers.js';
import { appears } from '../support/listening.js';
import { kill, nbdLauncher, run, runOk, start, storageDaemonLauncher, type RunResult } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const SUBJECT = 'CN=test client';

function objects(dir: string, authz: string | null): string[] {
  return ['--object', `tls-creds-x509,id=t,endpoint=server,dir=${dir}`, ...(authz === null ? [] : ['--object', authz])];
}

/** What a client with a good certificate gets of a server that asks `z`. */
async function connected(program: string, args: readonly string[], dir: string): Promise<RunResult> {
  const child = start(program, args);
  try {
    await appears(tmp('s'));
    return await run('nbdinfo', ['--size', `nbds+unix:///?socket=${tmp('s')}&tls-certificates=${dir}&tls-hostname=localhost`]);
  } finally {
    await kill(child);
    await runOk('rm', ['-f', tmp('s')]);
  }
}

peers('qemu-img', 'qemu-nbd', 'qemu-storage-daemon', 'nbdinfo', 'openssl')('with tls-authz', () => {
  test('both programs let in whom the object allows, and nobody where there is none', async () => {
    const dir = makeCertificates(tmp('pki'));
    await runOk('qemu-img', ['create', '-q', '-f', 'raw', tmp('disk'), '1M']);
    for (const [authz, allowed] of [
      [`authz-simple,id=z,identity=${SUBJECT}`, true], ['authz-simple,id=z,identity=CN=another', false], [null, false],
    ] as const) {
      const nbd = ['-t', '-f', 'raw', '-k', tmp('s'), ...objects(dir, authz), '--tls-creds', 't', '--tls-authz', 'z', tmp('disk')];
      const daemon = [...objects(dir, authz), '--blockdev', `driver=file,node-name=n,filename=${tmp('disk')}`,
        '--nbd-server', `addr.type=unix,addr.path=${tmp('s')},tls-creds=t,tls-authz=z`, '--export', 'type=nbd,id=e,node-name=n,name='];
      for (const [program, args] of [['qemu-nbd', nbd], [nbdLauncher, nbd], ['qemu-storage-daemon', daemon], [storageDaemonLauncher, daemon]] as const) {
        const { code, stdout } = await connected(program, args, dir);
        expect({ program, authz, allowed: code === 0, stdout }).toEqual({ program, authz, allowed, stdout: allowed ? '1048576\n' : '' });
      }
    }
  });
});
