/** `quiesce daemon`: a file sets it up, QMP steers it, and what clients wrote stays however it ends. */
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { QmpClient } from '../../src/index.js';
import { expectRefused, makeImage, startQuiesce, waitFor, type RunningCommand } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { kill, runOk } from '../support/run.js';
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

async function startWithDisk(): Promise<RunningCommand & { readonly image: string }> {
  const image = existsSync(tmp('disk.qcow2')) ? tmp('disk.qcow2') : await makeImage(tmp('disk.qcow2'), '16M');
  const file = config({
    exports: [{ type: 'nbd', id: 'e', 'node-name': 'd', name: 'disk', writable: true }],
    blockdevs: [{ driver: 'qcow2', 'node-name': 'd', file: { driver: 'file', filename: image } }],
    'nbd-server': { addr: { type: 'unix', data: { path: tmp('nbd.sock') } } },
    monitors: [{ id: 'second', backend: { type: 'socket', data: { addr: { type: 'unix', data: { path: tmp('second.sock') } }, server: true, wait: false } } }],
  });
  const daemon = startQuiesce(['daemon', '--config', file]);
  started.push(daemon);
  await waitFor('ready', () => daemon.stderr().includes('"ready"') || daemon.child.exitCode !== null);
  expect(JSON.parse(daemon.stderr())).toMatchObject({ level: 30, pid: daemon.child.pid, msg: 'ready', qmp: qmpSocket() });
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
    const { code, signal, stderr } = await daemon.done;
    expect({ code, signal }).toEqual({ code: 0, signal: null });
    expect(stderr.trim().split('\n').map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual(['ready', 'closing', 'closed']);
    expect([qmpSocket(), tmp('state/quiesce/daemon.pid'), tmp('nbd.sock')].filter((path) => existsSync(path))).toEqual([]);
    await runOk('qemu-img', ['check', '-q', daemon.image]);
    expect(await runOk('qemu-io', ['-r', '-c', 'read -P 7 1M 64k', daemon.image])).not.toContain('failed');
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
