/** quiesce-storage-daemon's command line: wrong ones refused in the peer's words; daemonized, it serves and ends cleanly. */
import { existsSync, readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { disappears, standIn, until } from '../support/programs.js';
import { kill, run, runOk, start, storageDaemonLauncher, type RunResult } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const SOCKET = 'socket,id=a,path=/no/such/folder/x';

/** What goes on in the background says so, to be ended. */
const PID_FILE = 'pid';
const BACKGROUND = ['--pidfile', PID_FILE];

const LINES: readonly (readonly string[])[] = [
  ['--foo'], ['a', '--blockdev', 'driver=foo'], ['-xh'], ['--pidfile'], ['--pidfile', '/no/such/folder/x'], ['--daemonize=1'], [''], ['--blockdev'],
  ['--blockdev=driver=foo'], ['--blo', 'driver=foo'], ['--blockdev', 'help'], ['--blockdev', ''], ['--blockdev', '{"driver":"x"}'], ['--blockdev', '{"driver":'],
  ['--monitor', 'a'], ['--monitor', 'a,mode=readline'], ['--chardev', 'stdio,id=a', '--monitor', 'a,pretty=1'], ['--chardev', 'stdio,id=a', '--chardev', 'stdio,id=b'],
  ['--daemonize', '--chardev', 'stdio,id=a'], ['--chardev', 'socket'], ['--chardev', 'socket,id=a'], ['--chardev', 'socket,id=a,fd=99'], ['--chardev', SOCKET],
  ['--chardev', `${SOCKET},server=on`], ['--chardev', `${SOCKET},wait=on`], ['--chardev', `${SOCKET},server=x`], ['--chardev', `${SOCKET},server=on,foo=1`],
  ['--chardev', 'socket,id=3a,path=/x'], ['--chardev', 'foo,id=a'], ['--chardev', 'id=x'], ['--chardev', 'socket,id=a,host=localhost,server,nowait'],
  ['--nbd-server', 'foo'], ['--nbd-server', 'addr.type=unix'], ['--nbd-server', 'addr.type=unix,addr.path=/no/such/folder/a'],
  ['--export', 'type=nbd,id=a'], ['--export', 'nbd,id=a,node-name=foo'], ['--export', 'bar,id=a,node-name=foo'],
  [...BACKGROUND, '--d'],
  ...['--foo=1', '--nbd', '--e', '--p', '-T', '-Z', '-', '--export', '--monitor', '--nbd-server', '--object', '--chardev', '--version=1'].map((word) => [word]),
  ...['foo', 'file', 'driver=qcow2', 'null-co', 'null-co,node-name=', 'null-co,node-name=1a', 'null-co,node-name=a b', 'null-co,node-name=a,size=x', 'null-co,node-name=a,driver=raw', '[1]', '{}', '=a',
    'a.b=1,a=2', 'file,node-name=a', 'file,node-name=a,filename=none', 'file,node-name=a,filename=.', 'file,node-name=a,filename=q.qcow2,read-only=1', 'file,node-name=a,filename=q.qcow2,aio=native',
    'qcow2,node-name=a,file=zz', 'qcow2,node-name=a,file.driver=file,file.filename=none', 'qcow2,node-name=a,file.driver=null-co', 'qcow2,node-name=a,backing=zz,file.driver=file,file.filename=q.qcow2',
    'qcow2,node-name=a,file.driver=file,file.filename=orphan.qcow2', 'qcow2,node-name=a,overlap-check=foo,file.driver=file,file.filename=q.qcow2', 'qcow2,node-name=a,file.driver=file,file.filename=held.qcow2',
    'nbd,node-name=a,server.type=foo', 'nbd,node-name=a,server.type=unix,server.path=/none', 'quorum,node-name=a,vote-threshold=1', 'copy-on-read,node-name=a,file=x',
  ].map((value) => ['--blockdev', value]),
  ...['null,id=a,mux=x', 'null,id=a,to=x', 'null,id=a,size=x', 'null,id=a,tight=3', 'mux,id=a', 'mux,id=a,chardev=zz', 'ringbuf,id=a,size=3', 'file,id=a,path=/no/x', 'pipe,id=a,path=/no/x', 'udp,id=a',
    'socket,id=a,path=/x,websocket=on', 'socket,id=a,path=/x,tls-creds=c', 'socket,id=a,path=/x,reconnect=5,server=on', 'socket,id=a,host=127.0.0.1,port=5,to=3,server=on', 'socket,id=a,host=h', 'null,id=a,foo=1', 'vc,id=a',
  ].map((value) => ['--chardev', value]),
  ...['addr.type=foo', 'addr.type=inet,addr.host=localhost,addr.port=x', 'addr.type=fd,addr.str=99', 'addr.type=unix,addr.path=/no/x,tls-creds=z', 'addr.type=unix,addr.path=a,max-connections=x',
    `addr.type=unix,addr.path=/no/${'a'.repeat(120)}`].map((value) => ['--nbd-server', value]),
  ...['nbd,id=1', 'nbd,id=e', 'nbd,id=e,writable=x', 'nbd,id=e,iothread=x', 'fuse,id=e', 'fuse,id=1,mountpoint=/no/x', 'fuse,id=e,mountpoint=/no/x', 'fuse,id=e,mountpoint=.', 'fuse,id=e,mountpoint=/no/x,iothread=z',
    'vhost-user-blk,id=e', 'vhost-user-blk,id=e,addr.type=unix,addr.path=/no/x', 'vhost-user-blk,id=e,addr.type=unix,addr.path=/no/x,num-queues=0',
    'vhost-user-blk,id=e,addr.type=unix,addr.path=/no/x,logical-block-size=1000', 'vhost-user-blk,id=e,addr.type=inet,addr.host=x,addr.port=1,num-queues=0,logical-block-size=3',
    'vhost-user-blk,id=e,addr.type=vsock,addr.cid=1,addr.port=1', 'vduse-blk,id=e', 'vduse-blk,id=e,name=y,queue-size=3', 'vduse-blk,id=e,name=y,num-queues=0,queue-size=3', 'vduse-blk,id=e,name=y,logical-block-size=3',
  ].map((value) => ['--blockdev', 'null-co,node-name=a', '--export', `${value},node-name=a`]),
  ['--object', 'secret,id=a b,data=x'], ['--object', 'secret,id=1,data=x'], ['--object', 'secret,id=a,data=x,file=y'], ['--object', 'secret,id=a,data=x', '--object', 'secret,id=a,data=y'],
  ['--object', 'tls-creds-x509,id=t,endpoint=server,dir=/no'], ['--object', 'throttle-group,id=g,limits.bps-total=1,limits.bps-read=1'], ['--object', 'secret,id=a,data=!!,format=base64'],
  ...['foo', '', ',,', 'enable=', 'enable=foo', 'foo,enable=bar', '-foo', '-', '--blockdev', 'a?', 'a*,x=1', 'file=/no/such/folder/x', 'file=log', 'file=', 'file=.', 'file=a%s', 'file=%d%d', 'events=/no/x',
    'events=', 'events=.', 'events=EVENTS', 'help=on', 'x=help', 'foo,bar', 'foo,nobar', 'foo,id=1x', 'id=x',
  ].map((value) => ['--trace', value, '--nbd-server', 'foo']),
  ['-T', 'foo', '--nbd-server', 'foo'], ['--nbd-server', 'foo', '-T', 'foo'], ['-T', 'file=/no/x', '-T', 'foo'],
  ['--object', 'tls-creds-psk,id=a,dir=.,endpoint=server,username=x'], ['--object', 'foo,id=a'], ['--object', 'secret'], ['--object', 'secret,id=a'], ['--object', 'help'], ['--object', 'secret,help'],
];

/** Runs a command line; where that leaves a process in the background, it is ended. */
async function ended(program: string, args: readonly string[]): Promise<RunResult & { readonly background: boolean }> {
  const result = await run(program, args, { cwd: tmp() });
  const background = existsSync(tmp(PID_FILE));
  if (background) {
    const pid = Number(readFileSync(tmp(PID_FILE), 'utf8'));
    process.kill(pid, 'SIGKILL');
    await disappears(`/proc/${pid}`);
    await rm(tmp(PID_FILE));
  }
  return { ...result, background };
}

peers('qemu-storage-daemon', 'qemu-img', 'qemu-io')('quiesce-storage-daemon', () => {
  test('refuses wrong command lines in the same words', async () => {
    const ours = standIn('qemu-storage-daemon', tmp('bin'));
    const differing: object[] = [];
    for (const name of ['q.qcow2', 'held.qcow2', 'none']) await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp(name), '1M']);
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'none', '-F', 'qcow2', tmp('orphan.qcow2')]);
    await rm(tmp('none'));
    await writeFile(tmp('EVENTS'), `# a comment\nfoo\n\n  bar\nx*\n-\n-zip\n${'a'.repeat(3000)}\nxyz`);
    const holder = start('qemu-io', [tmp('held.qcow2')]);
    await until(async () => (await run('qemu-img', ['info', tmp('held.qcow2')])).code !== 0, 'the image is not locked');
    for (const args of LINES) {
      const [theirs, own] = [await ended('qemu-storage-daemon', args), await ended(ours, args)];
      if (JSON.stringify(theirs) !== JSON.stringify(own)) differing.push({ args, theirs, own });
    }
    await kill(holder);
    expect(differing).toEqual([]);
  }, 300_000);

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
