/** Character devices as qemu-storage-daemon has them: the same answers, and monitors over a terminal, a pipe, a file and a mux. */
import { execFileSync, type ChildProcess } from 'node:child_process';
import { closeSync, constants, createReadStream, existsSync, openSync, readFileSync, rmSync, writeFileSync, writeSync, type ReadStream } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { NbdClient } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { standIn } from '../support/programs.js';
import { kill, run, start, storageDaemonLauncher } from '../support/run.js';
import { waitFor } from '../support/cli.js';
import { useTmp } from '../support/tmp.js';
import { converse, negotiated, ourDaemonTranscript, theirTranscript } from '../support/transcript.js';

const tmp = useTmp();

const line = (execute: string, args?: unknown): string => JSON.stringify({ execute, ...(args === undefined ? {} : { arguments: args }) });
const add = (id: string, type: string, data: object = {}): string => line('chardev-add', { id, backend: { type, data } });
const change = (id: string, type: string, data: object = {}): string => line('chardev-change', { id, backend: { type, data } });
const remove = (id: string): string => line('chardev-remove', { id });
const socket = (path: string, more: object = {}): object => ({ addr: { type: 'unix', data: { path } }, ...more });

/** The numbers of terminals are the host's. */
function even(message: string): string {
  return message.replace(/\/dev\/pts\/\d+/g, '/dev/pts/N').replace(/unix:[^"]*\/(?:ours|theirs),/, 'unix:MONITOR,');
}

function everything(): string[] {
  return [
    add('f', 'file', { out: tmp('out') }), add('f2', 'file', { out: '/no/such/x' }), add('f3', 'file', { out: tmp('out'), in: '/dev/null' }),
    add('f4', 'file', { out: tmp('out'), in: '/no/such' }), add('f5', 'file', { out: tmp('out'), append: true }),
    add('p', 'pipe', { device: tmp('none') }), add('p1', 'pipe', { device: tmp('two') }), add('p2', 'pipe', { device: tmp('one') }),
    add('t', 'pty'), add('n', 'null'), add('n', 'null'), add('m', 'mux', { chardev: 'n' }), add('m2', 'mux', { chardev: 'none' }), add('m3', 'mux', { chardev: 'm' }),
    add('m4', 'mux', { chardev: 'n' }), add('m5', 'mux', { chardev: 'monitor' }), add('r', 'ringbuf'), add('r2', 'ringbuf', { size: 100 }), add('w', 'wctablet'), add('w', 'vc'),
    add('s', 'socket', socket(tmp('none'), { server: false })), add('s', 'socket', socket(tmp('s'), { reconnect: 5 })), add('s', 'socket', socket(tmp('s'), { 'tls-creds': 'x' })),
    add('s', 'socket', socket(tmp('s'), { server: false, wait: false })), add('s', 'socket', socket(tmp('s'), { 'tls-authz': 'x' })),
    add('s', 'socket', socket(tmp('s'), { server: false, websocket: true })), add('s', 'socket', socket('/no/such/s', { wait: false })),
    add('s', 'socket', { addr: { type: 'vsock', data: { cid: 'x', port: '5' } } }), add('s', 'socket', { addr: { type: 'fd', data: { str: '99' } } }),
    add('s', 'socket', { addr: { type: 'inet', data: { host: '127.0.0.1', port: '1' } }, server: false }),
    line('nbd-server-start', { addr: { type: 'fd', data: { str: '99' } } }),
    add('3x', 'null'), add('', 'null'), line('query-chardev'), line('query-chardev-backends'), line('chardev-send-break', { id: 'n' }), line('chardev-send-break', { id: 'none' }),
    line('chardev-send-break', { id: 't' }), remove('none'), remove('n'), remove('m'), remove('m3'), remove('monitor'), remove('t'), remove('p1'),
    change('none', 'null'), change('monitor', 'null'), change('m', 'null'), change('n', 'null'), change('f', 'null'), change('f3', 'pty'),
    line('ringbuf-write', { device: 'p2', data: 'x' }), line('query-chardev'), line('qom-list', { path: '/chardevs' }),
    // the peer then has lost the device that was to change; ours keeps it
    change('f', 'file', { out: '/no/such/x' }), change('f5', 'mux', { chardev: 'none' }),
  ];
}

peers('qemu-storage-daemon')('character devices', () => {
  test('are made, changed, removed and listed with the same answers', async () => {
    for (const name of ['two.in', 'two.out', 'one']) execFileSync('mkfifo', [tmp(name)]);
    const transcript = negotiated(...everything());
    const theirs = await theirTranscript(transcript, tmp('theirs'));
    const ours = await ourDaemonTranscript(transcript, tmp('ours'));
    expect(ours.slice(1).map(even)).toEqual(theirs.slice(1).map(even));
  });

  test('are refused on the command line in the same words', async () => {
    const ours = standIn('qemu-storage-daemon', tmp('bin'));
    const differing: object[] = [];
    const wrong = [
      'file,id=x', 'file,id=x,path=/no/such/x', 'pipe,id=x', 'pipe,id=x,path=/no/such', 'mux,id=x', 'mux,id=x,chardev=q', 'serial,id=x', 'parallel,id=x', 'udp,id=x',
      'udp,id=x,host=h', 'ringbuf,id=x,size=100', 'ringbuf,id=x,size=abc', 'tty,id=x', 'parport,id=x', 'console,id=x', 'pty,id=x',
      'socket,id=x,path=/no/such/s,server=on,wait=off,reconnect=3', 'socket,id=x,path=/no/such/s,server=on,wait=off,tls-creds=t', 'socket,id=x,path=/no/such/s,reconnect=abc',
      'socket,id=x,host=127.0.0.1,port=0,server=on,wait=off,tls-authz=t', 'socket,id=x,path=/no/such/s,websocket=on',
    ];
    for (const text of wrong) {
      // what is not wrong alone ends with the option behind it
      const args = ['--chardev', text, '--monitor', 'none'];
      const told = ({ code, stdout, stderr }: { code: number | null; stdout: string; stderr: string }): string => even(JSON.stringify({ code, stdout, stderr }));
      const [theirs, own] = [told(await run('qemu-storage-daemon', args, { timeoutMs: 20_000 })), told(await run(ours, args, { timeoutMs: 20_000 }))];
      if (theirs !== own) differing.push({ text, theirs, own });
    }
    expect(differing).toEqual([]);
  });
});

peers('qemu-storage-daemon')('sockets of a daemon', () => {
  const whole = negotiated(line('query-chardev'), line('quit'));
  const children: ChildProcess[] = [];
  afterEach(async () => { for (const child of children.splice(0)) await kill(child); });
  const daemon = (program: string, ...args: string[]): ChildProcess => {
    const child = start(program, [...args, '--pidfile', tmp('pid')]);
    children.push(child);
    return child;
  };


  /** Runs the daemon with a socket of this kind as descriptor 3; what its monitor answers. */
  async function inherited(program: string, socketScript: string, chardev: string): Promise<string[]> {
    rmSync(tmp('listening'), { force: true });
    const script = `import os, socket, sys\n${socketScript}\nos.dup2(s.fileno(), 3); os.set_inheritable(3, True)\nos.execvp(sys.argv[1], sys.argv[1:])`;
    const child = daemon('python3', '-c', script, program, '--chardev', chardev, '--monitor', 'c');
    try {
      await waitFor('it runs', () => existsSync(tmp('pid')));
      return (await converse(whole, tmp('listening'))).slice(1).filter((message) => !message.includes('"event"'));
    } finally {
      await kill(child);
      rmSync(tmp('pid'), { force: true });
    }
  }

  test('one that listens already came with the process', async () => {
    const listening = `s = socket.socket(socket.AF_UNIX); s.bind(${JSON.stringify(tmp('listening'))}); s.listen(5)`;
    const [theirs, ours] = [await inherited('qemu-storage-daemon', listening, 'socket,id=c,fd=3,server=on,wait=off'), await inherited(storageDaemonLauncher, listening, 'socket,id=c,fd=3,server=on,wait=off')];
    expect(ours).toEqual(theirs);
    expect(theirs[1]).toContain(`"unix:${tmp('listening')},server=on"`);
  });

  test('abstract names of full length, for exports', async () => {
    const name = `quiesce-test-${process.pid}`;
    for (const program of ['qemu-storage-daemon', storageDaemonLauncher]) {
      const child = daemon(program, '--blockdev', 'null-co,node-name=n,size=65536', '--nbd-server', `addr.type=unix,addr.path=${name},addr.abstract=on,addr.tight=off`, '--export', 'nbd,id=e,node-name=n');
      await waitFor('it runs', () => existsSync(tmp('pid')));
      const client = await NbdClient.open({ address: { type: 'unix', path: `\0${name}` }, exportName: 'n' });
      expect(client.size).toBe(65_536);
      await client.close();
      await kill(child, 'SIGTERM');
      rmSync(tmp('pid'), { force: true });
    }
  });

  test('the first free port of several', async () => {
    const holder = createServer();
    await new Promise<void>((resolve) => { holder.listen(0, '127.0.0.1', resolve); });
    const taken = (holder.address() as AddressInfo).port;
    const child = daemon(storageDaemonLauncher, '--chardev', `socket,id=c,host=127.0.0.1,port=${taken},to=${taken + 50},server=on,wait=off`, '--monitor', 'c');
    await waitFor('it runs', () => existsSync(tmp('pid')));
    let found = 0;
    for (let port = taken + 1; port <= taken + 50 && found === 0; port++) {
      const greeted = await new Promise<boolean>((resolve) => {
        const probe = connect(port, '127.0.0.1');
        probe.once('data', (data: Buffer) => { resolve(data.toString().startsWith('{"QMP"')); probe.destroy(); });
        probe.once('error', () => resolve(false)).setTimeout(2000, () => resolve(false));
      });
      if (greeted) found = port;
    }
    expect(found).toBeGreaterThan(taken);
    await kill(child, 'SIGTERM');
    holder.close();
  });
});

/** One side of a conversation with a monitor. */
class Conversation {
  heard = '';
  readonly #reader: ReadStream;
  readonly #writeFd: number;

  constructor(readFd: number, writeFd: number) {
    this.#writeFd = writeFd;
    this.#reader = createReadStream('', { fd: readFd });
    this.#reader.on('data', (data) => { this.heard += data.toString(); }).on('error', () => undefined);
  }

  async ask(text: string, answer: string): Promise<void> {
    writeSync(this.#writeFd, `${text}\n`);
    await waitFor(`${answer} in '${this.heard}'`, () => this.heard.includes(answer));
  }

  close(): void {
    this.#reader.destroy();
  }
}

const CAPABILITIES = line('qmp_capabilities');

test('a daemon that nobody can speak to holds its disks until it is told to end', async () => {
  const child = start(storageDaemonLauncher, ['--chardev', 'null,id=n', '--monitor', 'n', '--pidfile', tmp('pid')]);
  await waitFor('the daemon runs', () => existsSync(tmp('pid')));
  await new Promise((resolve) => { setTimeout(resolve, 300); });
  expect(child.exitCode).toBeNull();
  await kill(child, 'SIGTERM');
  expect(child.exitCode).toBe(0);
});

describe('a monitor speaks', () => {
  async function withDaemon(args: readonly string[], section: (said: () => string) => Promise<void>): Promise<void> {
    const child = start(storageDaemonLauncher, [...args, '--pidfile', tmp('pid')]);
    let said = '';
    child.stdout!.on('data', (data: Buffer) => { said += data.toString(); });
    try {
      await waitFor('the daemon runs', () => { try { return readFileSync(tmp('pid'), 'utf8').endsWith('\n'); } catch { return false; } });
      await section(() => said);
    } finally {
      await kill(child, 'SIGTERM');
    }
  }

  test('over a terminal, to one client after the other', async () => {
    await withDaemon(['--chardev', 'pty,id=t', '--monitor', 't'], async (said) => {
      await waitFor('the terminal is told', () => said().includes('\n'));
      const path = /^char device redirected to (\/dev\/pts\/\d+) \(label t\)\n$/.exec(said())![1]!;
      for (let round = 0; round < 2; round++) {
        const script = 'exec 3<>"$0"; head -n 1 <&3; printf "%s\\n" "$1" >&3; head -n 1 <&3; printf "%s\\n" "$2" >&3; head -n 1 <&3';
        const { stdout } = await run('sh', ['-c', script, path, CAPABILITIES, line('query-chardev')], { timeoutMs: 30_000 });
        expect(stdout).toMatch(/^\{"QMP": .*\r?\n\{"return": \{\}\}\r?\n\{"return": \[\{"frontend-open": true, "filename": "pty:\/dev\/pts\/\d+", "label": "t"\}\]\}\r?\n$/);
        await new Promise((resolve) => { setTimeout(resolve, 50); });
      }
    });
  });

  test.each([['over two pipes', 'pipe'], ['over a mux on pipes', 'mux']])('%s', async (_how, kind) => {
    for (const name of ['p.in', 'p.out']) execFileSync('mkfifo', [tmp(name)]);
    const [readFd, writeFd] = [openSync(tmp('p.out'), constants.O_RDWR), openSync(tmp('p.in'), constants.O_RDWR)];
    const base = ['--chardev', `pipe,id=p,path=${tmp('p')}`];
    await withDaemon([...base, ...kind === 'pipe' ? ['--monitor', 'p'] : ['--chardev', 'mux,id=m,chardev=p', '--monitor', 'm']], async () => {
      const client = new Conversation(readFd, writeFd);
      await client.ask(CAPABILITIES, '{"return": {}}');
      await client.ask(line('query-version'), '"major": 7');
      expect(client.heard).toMatch(/^\{"QMP": /);
      writeSync(openSync(tmp('p.out'), constants.O_RDWR), '\n'); // lets the read end
      client.close();
    });
    closeSync(writeFd);
  });

  test('from a file into a file', async () => {
    writeFileSync(tmp('in'), `${CAPABILITIES}\n${line('query-version')}\n`);
    await withDaemon(['--chardev', `file,id=f,path=${tmp('out')},input-path=${tmp('in')}`, '--monitor', 'f'], async () => {
      await waitFor('the answers', () => readFileSync(tmp('out'), 'utf8').split('\r\n').length === 4);
    });
    expect(readFileSync(tmp('out'), 'utf8')).toMatch(/^\{"QMP": .*\r\n\{"return": \{\}\}\r\n\{"return": \{"qemu": .*\r\n$/);
  });
});
