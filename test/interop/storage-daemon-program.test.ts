/** quiesce-storage-daemon's command line: wrong ones refused in the peer's words; daemonized, it serves and ends cleanly. */
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { disappears, standIn } from '../support/programs.js';
import { run, runOk, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const SOCKET = 'socket,id=a,path=/no/such/folder/x';

const LINES: readonly (readonly string[])[] = [
  ['--foo'], ['a', '--blockdev', 'driver=foo'], ['-xh'], ['--pidfile'], ['--pidfile', '/no/such/folder/x'], ['--daemonize=1'], [''], ['--blockdev'],
  ['--blockdev=driver=foo'], ['--blo', 'driver=foo'], ['--blockdev', 'help'], ['--blockdev', ''], ['--blockdev', '{"driver":"x"}'], ['--blockdev', '{"driver":'],
  ['--monitor', 'a'], ['--monitor', 'a,mode=readline'], ['--chardev', 'stdio,id=a', '--monitor', 'a,pretty=1'], ['--chardev', 'stdio,id=a', '--chardev', 'stdio,id=b'],
  ['--daemonize', '--chardev', 'stdio,id=a'], ['--chardev', 'socket'], ['--chardev', 'socket,id=a'], ['--chardev', 'socket,id=a,fd=99'], ['--chardev', SOCKET],
  ['--chardev', `${SOCKET},server=on`], ['--chardev', `${SOCKET},wait=on`], ['--chardev', `${SOCKET},server=x`], ['--chardev', `${SOCKET},server=on,foo=1`],
  ['--chardev', 'socket,id=3a,path=/x'], ['--chardev', 'foo,id=a'], ['--chardev', 'id=x'], ['--chardev', 'socket,id=a,host=localhost,server,nowait'],
  ['--nbd-server', 'foo'], ['--nbd-server', 'addr.type=unix'], ['--nbd-server', 'addr.type=unix,addr.path=/no/such/folder/a'],
  ['--export', 'type=nbd,id=a'], ['--export', 'nbd,id=a,node-name=foo'], ['--export', 'bar,id=a,node-name=foo'],
  ['--object', 'foo,id=a'], ['--object', 'secret'], ['--object', 'secret,id=a'], ['--object', 'help'], ['--object', 'secret,help'],
];

peers('qemu-storage-daemon', 'qemu-img', 'qemu-io')('quiesce-storage-daemon', () => {
  test('refuses wrong command lines in the same words', async () => {
    const ours = standIn('qemu-storage-daemon', tmp('bin'));
    const differing: object[] = [];
    for (const args of LINES) {
      const [theirs, own] = [await run('qemu-storage-daemon', args, { timeoutMs: 10_000 }), await run(ours, args, { timeoutMs: 10_000 })];
      if (JSON.stringify(theirs) !== JSON.stringify(own)) differing.push({ args, theirs, own });
    }
    expect(differing).toEqual([]);
  });

  test('--daemonize returns when all is set up; SIGTERM writes everything out and takes the pid file away', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('disk.qcow2'), '4M']);
    await runOk(storageDaemonLauncher, [
      '--blockdev', `driver=qcow2,node-name=n,file.driver=file,file.filename=${tmp('disk.qcow2')}`,
      '--nbd-server', `addr.type=unix,addr.path=${tmp('s')}`, '--export', 'nbd,id=e,node-name=n,writable=on',
      '--chardev', `socket,id=c,path=${tmp('qmp')},server=on,wait=off`, '--monitor', 'c', '--daemonize', '--pidfile', tmp('pid'),
    ]);
    const pid = Number(readFileSync(tmp('pid'), 'utf8'));
    const uri = `nbd+unix:///n?socket=${tmp('s')}`;
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 6 0 64k', uri]);
    process.kill(pid, 'SIGTERM');
    await disappears(`/proc/${pid}`);
    expect([existsSync(tmp('pid')), existsSync(tmp('qmp'))]).toEqual([false, false]);
    await runOk('qemu-img', ['check', '-q', tmp('disk.qcow2')]);
    await runOk('qemu-io', ['-c', 'read -P 6 0 64k', tmp('disk.qcow2')]);
  });
});
