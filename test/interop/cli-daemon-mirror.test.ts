/** `quiesce daemon` keeps its mirrors: killed in one, it goes on with it when it is started again. */
import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { QmpClient } from '../../src/index.js';
import { makeImage, startQuiesce, waitFor, type RunningCommand } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { kill, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const before = { XDG_RUNTIME_DIR: process.env['XDG_RUNTIME_DIR'], XDG_STATE_HOME: process.env['XDG_STATE_HOME'] };
let daemon: RunningCommand | null = null;

beforeEach(() => {
  process.env['XDG_RUNTIME_DIR'] = tmp('run');
  process.env['XDG_STATE_HOME'] = tmp('state');
});

afterEach(async () => {
  if (daemon !== null) await kill(daemon.child);
  for (const [name, value] of Object.entries(before)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

async function startDaemon(): Promise<QmpClient> {
  const running = daemon = startQuiesce(['daemon', '--config', tmp('lab.json')]);
  await waitFor('ready', () => running.stderr().includes('"ready"') || running.child.exitCode !== null);
  return QmpClient.connect(tmp('run/quiesce/qmp.sock'));
}

peers('qemu-img', 'qemu-io')('killed', () => {
  test('it goes on with a mirror', async () => {
    for (const name of ['source', 'target']) await makeImage(tmp(name), '32M');
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -P 9 1M 20M', tmp('source')]);
    writeFileSync(tmp('lab.json'), JSON.stringify({ blockdevs: ['source', 'target'].map((name) => ({ driver: 'qcow2', 'node-name': name, file: { driver: 'file', filename: tmp(name) } })) }));
    let qmp = await startDaemon();
    await qmp.execute('blockdev-mirror', { 'job-id': 'm', device: 'source', target: 'target', sync: 'full', speed: 4 << 20 });
    qmp.close();
    await kill(daemon!.child);
    qmp = await startDaemon();
    expect(daemon!.stderr()).toContain("mirror 'm' was interrupted and goes on");
    await qmp.execute('block-job-set-speed', { device: 'm', speed: 0 });
    await waitFor('ready', async () => ((await qmp.execute('query-block-jobs')) as { ready: boolean }[])[0]?.ready === true);
    const over = qmp.waitEvent('BLOCK_JOB_COMPLETED', () => true, { timeoutMs: 20_000 });
    await qmp.execute('block-job-complete', { device: 'm' });
    expect((await over).data).not.toHaveProperty('error');
    qmp.close();
    await kill(daemon!.child, 'SIGTERM');
    await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', tmp('source'), tmp('target')]);
  });
});
