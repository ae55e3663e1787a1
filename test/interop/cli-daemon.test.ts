/** `quiesce daemon`: a file sets it up, QMP steers it, and what clients wrote stays however it ends. */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { QmpClient } from '../../src/index.js';
import { isThere } from '../support/listening.js';
import { expectRefused, makeImage, startQuiesce, waitFor, type RunningCommand } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { kill, run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const started: RunningCommand[] = [];
const before = { XDG_RUNTIME_DIR: process.env['XDG_RUNTIME_DIR'], XDG_STATE_HOME: process.env['XDG_STATE_HOME'] };

beforeEach(() => {
  process.env['XDG_RUNTIME_DIR'] = tmp('run');
  process.env['XDG_STATE_HOME'] = tmp('state');
});

afterEach(async () => {
  for (const { child } of started.splice(0)) await kill(child);
  for (const [name, value] of Object.entries(before)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

const uri = (): string => `nbd+unix:///disk?socket=${tmp('nbd.sock')}`;
const qmpSocket = (): string => tmp('run/quiesce/qmp.sock');

function config(value: unknown): string {
  writeFileSync(tmp('lab.json'), typeof value === 'string' ? value : JSON.stringify(value));
  return tmp('lab.json');
}

function logged(daemon: RunningCommand): Record<string, unknown>[] {
  return daemon.stderr().split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Record<string, unknown>);
}

const messages = (daemon: RunningCommand): unknown[] => logged(daemon).map(({ msg }) => msg);
const isReady = (daemon: RunningCommand): boolean => daemon.stderr().includes('"ready"');

async function startWithDisk(...more: string[]): Promise<RunningCommand & { readonly image: string }> {
  const image = existsSync(tmp('disk.qcow2')) ? tmp('disk.qcow2') : await makeImage(tmp('disk.qcow2'), '16M');
  const file = config({
    exports: [{ type: 'nbd', id: 'e', 'node-name': 'd', name: 'disk', writable: true }],
    blockdevs: [{ driver: 'qcow2', 'node-name': 'd', file: { driver: 'file', filename: image } }],
    'nbd-server': { addr: { type: 'unix', data: { path: tmp('nbd.sock') } } },
    monitors: [{ id: 'second', backend: { type: 'socket', data: { addr: { type: 'unix', data: { path: tmp('second.sock') } }, server: true, wait: false } } }],
  });
  const daemon = startQuiesce(['daemon', '--config', file, ...more]);
  started.push(daemon);
  await waitFor('ready', () => isReady(daemon) || daemon.child.exitCode !== null);
  expect(logged(daemon).at(-1)).toMatchObject({ level: 30, pid: daemon.child.pid, msg: 'ready', qmp: qmpSocket() });
  return { ...daemon, image };
}

peers('qemu-img', 'qemu-io', 'nbdinfo')('with clients', () => {
  test('the file sets it up, QMP answers, SIGTERM closes cleanly; a second daemon is refused', async () => {
    const daemon = await startWithDisk();
    expect((await runOk('nbdinfo', ['--size', uri()])).trim()).toBe(String(16 << 20));
    expect(statSync(tmp('state/quiesce')).mode & 0o777).toBe(0o700);
    for (const socket of [qmpSocket(), tmp('second.sock')]) {
      const qmp = await QmpClient.connect(socket);
      expect(await qmp.execute('query-block-exports')).toMatchObject([{ id: 'e', 'node-name': 'd' }]);
      qmp.close();
    }
    await expectRefused(['daemon'], `another daemon is at '${qmpSocket()}' already`);
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 7 1M 64k', uri()]);
    daemon.child.kill('SIGTERM');
    expect(await daemon.done).toMatchObject({ code: 0, signal: null });
    expect(messages(daemon)).toEqual(expect.arrayContaining(['ready', 'closing', 'closed']));
    expect([qmpSocket(), tmp('state/quiesce/daemon.pid'), tmp('nbd.sock')].filter((path) => existsSync(path))).toEqual([]);
    await runOk('qemu-img', ['check', '-q', daemon.image]);
    expect(await runOk('qemu-io', ['-r', '-c', 'read -P 7 1M 64k', daemon.image])).not.toContain('failed');
  });

  test.each([['SIGINT'], ['SIGTERM', 'SIGTERM'], ['SIGTERM', 'SIGINT', 'SIGHUP']] as NodeJS.Signals[][])('Q-14: %s %s %s: it closes in order', async (...signals) => {
    const daemon = await startWithDisk();
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 7 1M 64k', uri()]);
    for (const signal of signals) daemon.child.kill(signal);
    expect(await daemon.done).toMatchObject({ code: 0, signal: null });
    expect(messages(daemon).slice(-1)).toEqual(['closed']);
    await runOk('qemu-img', ['check', '-q', daemon.image]);
    expect(await runOk('qemu-io', ['-r', '-c', 'read -P 7 1M 64k', daemon.image])).not.toContain('failed');
  });

  test('of two that start at once one is told in one line, and changes nothing', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '16M');
    const file = config({ blockdevs: [{ driver: 'qcow2', 'node-name': 'd', file: { driver: 'file', filename: image } }] });
    const both = [startQuiesce(['daemon', '--config', file]), startQuiesce(['daemon', '--config', file])];
    started.push(...both);
    await waitFor('one is ready and the other has ended', () => both.some(isReady) && both.some(({ child }) => child.exitCode !== null));
    const [ready, refused] = both[0]!.child.exitCode === null ? [both[0]!, both[1]!] : [both[1]!, both[0]!];
    const { code, stderr } = await refused.done;
    expect(code).toBe(1);
    expect(stderr).toMatch(/^quiesce: another daemon (?:is at|has) '[^\n]+' already\n$/);
    const qmp = await QmpClient.connect(qmpSocket());
    expect(await qmp.execute('query-named-block-nodes', { flat: true })).toHaveLength(2);
    expect(readFileSync(tmp('state/quiesce/daemon.pid'), 'utf8')).toBe(`${ready.child.pid}\n`);
    await qmp.execute('quit');
    expect(await ready.done).toMatchObject({ code: 0 });
  });

  test('it logs who comes and goes, what is changed, and errors of disks', async () => {
    const daemon = await startWithDisk('--log-level', 'debug');
    const qmp = await QmpClient.connect(qmpSocket());
    const file = { driver: 'blkdebug', image: { driver: 'null-co', size: 65_536 }, 'inject-error': [{ event: 'none', iotype: 'write', once: false }] };
    await qmp.execute('blockdev-add', { driver: 'raw', 'node-name': 'bad', file });
    await qmp.execute('block-export-add', { type: 'nbd', id: 'b', 'node-name': 'bad', writable: true });
    await qmp.execute('query-block-exports');
    await qmp.execute('object-add', { 'qom-type': 'secret', id: 's', data: 'hidden' });
    await expect(qmp.execute('blockdev-del', { 'node-name': 'none' })).rejects.toThrow('none');
    await run('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', '-c', 'write 0 4k', '-c', 'write 0 4k', `nbd+unix:///bad?socket=${tmp('nbd.sock')}`]);
    await waitFor('the client is gone', () => messages(daemon).includes('client gone'));
    await qmp.execute('block-export-del', { id: 'b' });
    qmp.close();
    await waitFor('the monitor is gone', () => messages(daemon).includes('monitor gone'));
    daemon.child.kill('SIGTERM');
    await daemon.done;
    const lines = logged(daemon);
    const find = (msg: string): Record<string, unknown>[] => lines.filter((line) => line['msg'] === msg);
    expect(find('export added')).toMatchObject([{ export: 'e', 'export-name': 'disk', node: 'd', writable: true }, { export: 'b', node: 'bad' }]);
    expect(find('export removed')).toMatchObject([{ export: 'b' }, { export: 'e' }]);
    expect(find('client connected')).toMatchObject([{ level: 30, export: 'b', peer: 'unix', tls: false }]);
    expect(find('client gone')).toMatchObject([{ export: 'b', peer: 'unix' }]);
    expect(find('monitor connected')).toMatchObject([{ monitor: 'quiesce-qmp' }]);
    expect(find('writing to file failed')[0]).toMatchObject({ level: 50, export: 'b', node: 'bad', offset: 0, bytes: 4096, errno: 'EIO' });
    expect(find('command').map(({ command }) => command)).toEqual(['blockdev-add', 'block-export-add', 'object-add', 'block-export-del']);
    expect(find('command failed')).toMatchObject([{ command: 'blockdev-del', error: expect.stringContaining('none') }]);
    expect(daemon.stderr()).not.toContain('hidden');
    expect(find('nbd server stopped')).toHaveLength(1);
  });

  test('with less to log it logs less', async () => {
    const image = await makeImage(tmp('disk.qcow2'), '16M');
    const daemon = startQuiesce(['daemon', '--log-level', 'error', '--config', config({ blockdevs: [{ driver: 'qcow2', 'node-name': 'd', file: { driver: 'file', filename: image } }] })]);
    started.push(daemon);
    await waitFor('ready', () => isThere(qmpSocket()));
    daemon.child.kill('SIGTERM');
    expect(await daemon.done).toMatchObject({ code: 0, stderr: '' });
    await expectRefused(['daemon', '--log-level', 'loud'], '--log-level: expected one of error, warn, info, debug', 2);
  });

  test('what was flushed survives kill -9, and the next daemon takes the dead socket', async () => {
    const daemon = await startWithDisk();
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 9 2M 128k', '-c', 'flush', uri()]);
    daemon.child.kill('SIGKILL');
    expect(await daemon.done).toMatchObject({ signal: 'SIGKILL' });
    expect(existsSync(qmpSocket())).toBe(true);
    expect(await runOk('qemu-io', ['-r', '-c', 'read -P 9 2M 128k', daemon.image])).not.toContain('failed');
    await startWithDisk();
    expect(await runOk('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 9 2M 128k', uri()])).not.toContain('failed');
  });
});

test('what is wrong with the file is one line that names it', async () => {
  const refused = (value: unknown, message: string): Promise<void> => expectRefused(['daemon', '--config', config(value)], `'${tmp('lab.json')}': ${message}`);
  await refused('{"blockdevs": [', 'JSON parse error');
  await refused([], 'a JSON object is wanted');
  await refused({ disks: [] }, "'disks' is none of objects, blockdevs, nbd-server, exports, monitors");
  await refused({ exports: {} }, "'exports' is not a list");
  await refused({ blockdevs: [{ driver: 'nope', 'node-name': 'd' }] }, "blockdevs[0]: Parameter 'driver' does not accept value 'nope'");
  await refused({ blockdevs: [{ driver: 'file', 'node-name': 'd', filename: tmp('none') }] }, 'blockdevs[0]: Could not open');
  await expectRefused(['daemon', '--config', tmp('missing.json')], /missing\.json.*No such file/);
});
