/** a server that cannot bring to the disk what its clients wrote without a flush says so when it ends, and does not end well. */
import { existsSync, writeFileSync } from 'node:fs';
import { afterEach, expect, test } from '@jest/globals';
import { NbdClient } from '../../src/index.js';
import { startQuiesce, waitFor } from '../support/cli.js';
import { appears } from '../support/listening.js';
import { kill, nbdLauncher, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import type { ChildProcess } from 'node:child_process';

const tmp = useTmp();
const children: ChildProcess[] = [];
const before = { XDG_RUNTIME_DIR: process.env['XDG_RUNTIME_DIR'], XDG_STATE_HOME: process.env['XDG_STATE_HOME'] };
afterEach(async () => {
  for (const child of children.splice(0)) await kill(child);
  for (const [name, value] of Object.entries(before)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

const DISK = { driver: 'raw', file: { driver: 'blkdebug', image: { driver: 'null-co', size: 65_536 }, 'inject-error': [{ event: 'none', iotype: 'flush', errno: 28, once: false }] } };
const NODE = { ...DISK, 'node-name': 'n' };

const SERVERS: Readonly<Record<string, () => ChildProcess>> = {
  'quiesce-nbd': () => start(nbdLauncher, ['-t', '-k', tmp('s'), '-x', 'n', `json:${JSON.stringify(DISK)}`]),
  'quiesce-storage-daemon': () => start(storageDaemonLauncher, [
    '--blockdev', JSON.stringify(NODE), '--nbd-server', `addr.type=unix,addr.path=${tmp('s')}`, '--export', 'nbd,id=e,node-name=n,writable=on',
  ]),
  'quiesce daemon': () => {
    process.env['XDG_RUNTIME_DIR'] = tmp('run');
    process.env['XDG_STATE_HOME'] = tmp('state');
    writeFileSync(tmp('config'), JSON.stringify({
      blockdevs: [NODE], 'nbd-server': { addr: { type: 'unix', data: { path: tmp('s') } } }, exports: [{ type: 'nbd', id: 'e', 'node-name': 'n', writable: true }],
    }));
    return startQuiesce(['daemon', '--config', tmp('config')]).child;
  },
};

test.each([['quiesce-nbd', 1], ['quiesce-storage-daemon', 1], ['quiesce daemon', 143]])('%s', async (name, code) => {
  const child = SERVERS[name]!();
  children.push(child);
  let errors = '';
  child.stderr!.on('data', (data: Buffer) => { errors += data.toString(); });
  await appears(tmp('s'));
  let client: NbdClient | null = null;
  await waitFor('it serves', async () => (client = await NbdClient.open({ address: { type: 'unix', path: tmp('s') }, exportName: 'n' }).catch(() => null)) !== null);
  await client!.write(0, new Uint8Array(4096).fill(1));
  await client!.close();
  const ended = new Promise((resolve) => { child.once('close', resolve); });
  child.kill('SIGTERM');
  await ended;
  expect([child.exitCode, child.signalCode]).toEqual([code, null]);
  expect(errors).toContain('No space left on device');
  expect(existsSync(tmp('s'))).toBe(false);
});
