/** `quiesce job …`: every verb on a mirror of a storage daemon, ours and QEMU's, and what is said of jobs that are not there. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { ChildProcess } from 'node:child_process';
import type { QmpClient } from '../../src/index.js';
import { expectRefused, lastLine, makeImage, monitorOf, quiesceOk, startQuiesce, waitFor } from '../support/cli.js';
import { findOnPath, peers } from '../support/peers.js';
import { kill, quiesce, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
let child: ChildProcess;
let qmp: QmpClient;

const VERBS = ['show', 'watch', 'pause', 'resume', 'complete', 'finalize', 'cancel', 'dismiss'] as const;

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('jobs', () => {
  beforeEach(async () => {
    for (const name of ['disk', 'copy']) await makeImage(tmp(name), '64M');
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 9 1M 40M', tmp('disk')]);
  });

  afterEach(async () => {
    qmp.close();
    await kill(child);
  });

  async function daemon(whose: string): Promise<void> {
    child = start(whose === 'ours' ? storageDaemonLauncher : findOnPath('qemu-storage-daemon')!, [
      ...['disk', 'copy'].flatMap((name) => ['--blockdev', `qcow2,node-name=${name},file.driver=file,file.filename=${tmp(name)}`]),
      ...['qmp', 'watch', 'own'].flatMap((name) => ['--chardev', `socket,id=${name},path=${tmp(name)},server=on,wait=off`, '--monitor', `chardev=${name}`]),
    ]);
    qmp = await monitorOf(tmp('own'));
  }

  const job = (verb: string, ...args: string[]): Promise<string> => quiesceOk(['job', verb, '--daemon', tmp('qmp'), ...args]);
  const json = async (verb: string, ...args: string[]): Promise<Record<string, unknown>> => JSON.parse(await job(verb, ...args, '--json')) as Record<string, unknown>;

  async function mirror(more: Readonly<Record<string, unknown>> = {}): Promise<void> {
    await qmp.execute('blockdev-mirror', { 'job-id': 'm', device: 'disk', target: 'copy', sync: 'full', speed: 1, ...more });
  }

  test.each(['ours', "QEMU's"])('of a daemon of %s', async (whose) => {
    await daemon(whose);
    expect(await job('list')).toBe('no jobs\n');
    for (const verb of VERBS) await expectRefused(['job', verb, '--daemon', tmp('qmp'), 'm'], `there is no job 'm' at '${tmp('qmp')}'`);
    await expectRefused(['job', 'set-speed', '--daemon', tmp('qmp'), 'm', '1M'], "there is no job 'm'");

    await mirror({ 'auto-dismiss': false });
    expect(await job('list')).toMatch(/^ID {2}TYPE {4}STATUS {3}DONE {2}PHASE {2}ERROR\nm {3}mirror {2}running +\d+% {2}- +-\n$/);
    expect(await job('show', 'm')).toMatch(/^m: mirror, running, \d+%\ncopied .* of .*; speed limit: 1 \S+\/s; I\/O status: ok\n$/);
    expect(await job('pause', 'm')).toMatch(/^m: mirror, (running|paused), \d+%\n$/);
    await waitFor('it stands still', async () => (await json('show', 'm'))['status'] === 'paused');
    expect(await json('resume', 'm')).toMatchObject({ id: 'm', type: 'mirror', speed: 1 });
    await expectRefused(['job', 'complete', '--daemon', tmp('qmp'), 'm'], `the daemon at '${tmp('qmp')}' refused 'job-complete': `);
    const watching = startQuiesce(['job', 'watch', '--daemon', tmp('watch'), 'm']);
    expect(await json('set-speed', 'm', '0')).toMatchObject({ speed: 0 });
    await waitFor('ready', async () => (await json('show', 'm'))['status'] === 'ready');
    expect(await job('show', 'm')).toContain("it waits: 'job complete m' puts the target in the place of the source");
    await job('complete', 'm');
    expect(await watching.done).toMatchObject({ code: 0, stderr: '', stdout: expect.stringMatching(/^(m: \w+\n)+$/) });
    expect(await json('show', 'm')).toMatchObject({ status: 'concluded' });
    expect(await job('show', 'm')).toContain("it has ended: 'job dismiss m' forgets it");
    expect(await job('dismiss', 'm')).toBe('m: gone\n');
    expect(JSON.parse(await job('list', '--json'))).toEqual([]);
  });

  test.each(['ours', "QEMU's"])('that ends otherwise, at a daemon of %s: watch tells, and fails', async (whose) => {
    await daemon(whose);
    await mirror();
    const watching = startQuiesce(['job', 'watch', '--daemon', tmp('watch'), 'm', '--json']);
    await waitFor('it watches', () => watching.stdout().includes('"progress"'));
    expect(await job('cancel', 'm')).toMatch(/^m: (gone|mirror, aborting.*)\n$/);
    const { code, stderr, stdout } = await watching.done;
    expect([code, stderr]).toEqual([1, "quiesce: the job 'm' was cancelled\n"]);
    expect(lastLine(stdout)).toMatchObject({ event: expect.any(String) });
    expect(stdout).toContain('"event":"BLOCK_JOB_CANCELLED"');
    // of a job that is no block job
    await qmp.execute('blockdev-create', { 'job-id': 'c', options: { driver: 'file', filename: tmp('no/file'), size: 512 } });
    await waitFor('it has failed', async () => (await json('show', 'c'))['status'] === 'concluded');
    expect(await job('list')).toMatch(/^c {3}create {2}concluded .*Could not create/m);
    await expectRefused(['job', 'watch', '--daemon', tmp('qmp'), 'c'], /^the job 'c' failed: Could not create/);
    await expectRefused(['job', 'set-speed', '--daemon', tmp('qmp'), 'c', '1M'], 'c');
    expect(await job('dismiss', 'c')).toBe('c: gone\n');
  });

  test('in copy mode auto: phases, and the mode changed by hand', async () => {
    await daemon('ours');
    await mirror({ 'x-quiesce-copy-mode': 'auto' });
    await waitFor('it is steered', async () => (await job('show', 'm')).includes('\nauto: bulk, '));
    expect(await job('list')).toMatch(/^m {3}mirror {2}running +\d+% {2}(bulk|converge|sync) +-$/m);
    await job('change', 'm', '--copy-mode', 'background');
    expect(await job('show', 'm')).not.toContain('auto:');
    await job('change', 'm', '--copy-mode', 'write-blocking');
    await job('change', 'm', '--copy-mode', 'auto');
    await expectRefused(['job', 'change', '--daemon', tmp('qmp'), 'm'], "option '--copy-mode' is required", 2);
    expect(await job('cancel', 'm', '--force')).toMatch(/^m: /);
  });
});

test('without --daemon it is the daemon of the user, who may have none', async () => {
  const { code, stderr, stdout } = await quiesce(['job', 'list'], { env: { XDG_RUNTIME_DIR: tmp('run') } });
  expect([code, stdout]).toEqual([1, '']);
  expect(stderr).toContain(`'${tmp('run/quiesce/qmp.sock')}'`);
});

test('every verb has a help that teaches', async () => {
  for (const verb of ['list', 'set-speed', 'change', ...VERBS]) {
    expect(await quiesceOk(['job', verb, '--help'])).toMatch(/^[A-Z][^]+\n\nUsage: quiesce job [^]+\nExamples:\n {2}# [^]+quiesce job /);
  }
});
