/** quiesce-nbd serves images to the real clients, and comes and goes as qemu-nbd does. */
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { appears } from '../support/listening.js';
import { disappears, standIn, whileRunning } from '../support/programs.js';
import { kill, nbdLauncher, run, runOk, start } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const uri = (name = ''): string => `nbd+unix:///${name}?socket=${tmp('s')}`;

async function image(name = 'disk.qcow2', size = '4M'): Promise<string> {
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp(name), size]);
  return tmp(name);
}

const io = (target: string, ...commands: string[]): Promise<string> =>
  runOk('qemu-io', [...(target.startsWith('nbd') ? ['-f', 'raw'] : []), ...commands.flatMap((command) => ['-c', command]), target]);

/** In the background, under `pid`; the caller's clients end it, or `stop` does. */
function serve(...args: string[]): Promise<string> {
  return runOk(nbdLauncher, ['-k', tmp('s'), '--fork', '--pid-file', tmp('pid'), ...args]);
}

const pid = (): number => Number(readFileSync(tmp('pid'), 'utf8'));

async function stop(): Promise<void> {
  process.kill(pid(), 'SIGTERM');
  await disappears(`/proc/${pid()}`);
}

peers('qemu-img', 'qemu-io', 'nbdinfo', 'nbdcopy')('quiesce-nbd', () => {
  test('--fork returns when clients can connect, lets go of its output, and the pid file names the server', async () => {
    const disk = await image();
    await serve('-t', disk);
    expect(readFileSync(`/proc/${pid()}/cmdline`, 'utf8')).toContain('quiesce-nbd');
    await io(uri(), 'write -P 7 0 64k');
    await io(uri(), 'read -P 7 0 64k');
    await stop();
    expect(existsSync(tmp('s'))).toBe(false);
    await runOk('qemu-img', ['check', '-q', disk]);
    await io(disk, 'read -P 7 0 64k', 'read -P 0 64k 64k');
  });

  test('it ends with its last client, unless told to stay', async () => {
    const disk = await image();
    const child = start(nbdLauncher, ['-k', tmp('s'), disk]);
    const ended = new Promise((resolve) => { child.once('exit', resolve); });
    await appears(tmp('s'));
    expect(await runOk('nbdinfo', ['--size', uri()])).toBe('4194304\n');
    expect(await ended).toBe(0);
  });

  test('a kill of the server loses nothing that was flushed', async () => {
    const disk = await image();
    const child = start(nbdLauncher, ['-t', '-k', tmp('s'), disk]);
    await appears(tmp('s'));
    await io(uri(), 'write -P 9 1M 64k', 'flush');
    await kill(child, 'SIGKILL');
    await runOk('qemu-img', ['check', '-q', '-r', 'leaks', disk]);
    await io(disk, 'read -P 9 1M 64k');
  });

  test('-e lets so many in at a time, and the others wait', async () => {
    const disk = await image();
    await serve('-t', '-e', '2', disk);
    const info = await runOk('nbdinfo', ['--json', uri()]);
    expect(JSON.parse(info)).toMatchObject({ exports: [{ can_multi_conn: true }] });
    await runOk('nbdcopy', ['--connections=2', uri(), tmp('copy.img')]);
    await stop();
  });

  test('-s: what is written is gone with the server', async () => {
    const disk = await image();
    await io(disk, 'write -P 1 0 64k');
    await serve('-t', '-s', disk);
    await io(uri(), 'read -P 1 0 64k', 'write -P 2 0 64k');
    await io(uri(), 'read -P 2 0 64k');
    await stop();
    await io(disk, 'read -P 1 0 64k');
  });

  test('-l shows an internal snapshot, by name, id and both, read-only', async () => {
    const disk = await image();
    await io(disk, 'write -P 1 0 64k');
    await runOk('qemu-img', ['snapshot', '-c', 'before', disk]);
    await io(disk, 'write -P 2 0 64k');
    for (const wanted of ['before', 'snapshot.id=1,snapshot.name=before']) {
      await serve('-t', '-l', wanted, disk);
      expect(JSON.parse(await runOk('nbdinfo', ['--json', uri()]))).toMatchObject({ exports: [{ is_read_only: true }] });
      await runOk('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 1 0 64k', uri()]);
      await stop();
    }
  });

  test('-o begins inside the image; -x, -D, -B and -A tell of it; -L lists it as qemu-nbd does', async () => {
    const disk = await image();
    await runOk('qemu-img', ['bitmap', '--add', disk, 'b0']);
    await io(disk, 'write -P 5 1M 64k');
    await serve('-t', '-e', '0', '-x', 'name', '-D', 'a description', '-B', 'b0', '-A', disk);
    const theirs = await runOk('qemu-nbd', ['-L', '-k', tmp('s')]);
    expect(await runOk(standIn('qemu-nbd', tmp('bin')), ['-L', '-k', tmp('s')])).toBe(theirs);
    expect(theirs).toContain('qemu:dirty-bitmap:b0');
    expect(await runOk('nbdinfo', ['--map=qemu:dirty-bitmap:b0', uri('name')])).toContain('dirty');
    await stop();
    await serve('-t', '-r', '-o', '1048576', disk);
    await runOk('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 5 0 64k', uri()]);
    await stop();
  });

  test('--image-opts, json: and names with a protocol open trees of nodes', async () => {
    const disk = await image();
    await io(disk, 'write -P 3 0 64k');
    const tree = { driver: 'qcow2', file: { driver: 'file', filename: disk } };
    for (const args of [['--image-opts', `driver=qcow2,file.filename=${disk}`], [`json:${JSON.stringify(tree)}`], [`blkdebug::${disk}`], ['-f', 'qcow2', `file:${disk}`]]) {
      await serve('-t', ...args);
      await io(uri(), 'read -P 3 0 64k');
      await stop();
    }
  });

  test('a listening socket may come with the process', async () => {
    const disk = await image();
    const script = `
      import os, socket, sys
      s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(5)
      os.dup2(s.fileno(), 3); os.set_inheritable(3, True); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
      os.execv(sys.argv[2], sys.argv[2:])`.replace(/^ {6}/gm, '');
    await whileRunning('python3', ['-c', script, tmp('s'), nbdLauncher, '-t', '--pid-file', tmp('pid'), disk], tmp('pid'), async () => {
      expect(await runOk('nbdinfo', ['--size', uri()])).toBe('4194304\n');
    });
    const refused = await run('python3', ['-c', script, tmp('s2'), nbdLauncher, '-p', '1', disk]);
    expect(refused.stderr).toBe("quiesce-nbd: TCP port number can't be set when using socket activation\n");
  });

  test('TCP: port and interface', async () => {
    const disk = await image();
    await whileRunning(nbdLauncher, ['-t', '-b', '127.0.0.1', '-p', '10877', '--pid-file', tmp('pid'), disk], tmp('pid'), async () => {
      expect(await runOk('nbdinfo', ['--size', 'nbd://127.0.0.1:10877'])).toBe('4194304\n');
    });
  });
});
