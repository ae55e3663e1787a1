/** The disks of a running daemon, watched in the terminal while a guest writes. */
import { existsSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { expect, test } from '@jest/globals';
import { monitorOf } from '../support/cli.js';
import { useDaemonLives } from '../support/daemon-lives.js';
import { peers } from '../support/peers.js';
import { launcher, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { useTmux } from '../support/tmux.js';

peers('tmux', 'qemu-img', 'qemu-io')('quiesce trace view of a daemon', () => {
  const tmp = useTmp();
  const lives = useDaemonLives(tmp);
  const terminal = useTmux();
  const write = (offset: number): Promise<string> => runOk('qemu-io', ['-f', 'raw', '-c', `write ${offset} 64k`, `nbd+unix:///disk?socket=${tmp('nbd')}`]);
  const recordings = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('quiesce-trace-'));

  async function state(): Promise<unknown> {
    const qmp = await monitorOf(tmp('monitor'));
    const trace = await qmp.execute('x-quiesce-query-trace');
    qmp.close();
    return trace;
  }

  test('its layers and causes, and nothing is left behind', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('disk.qcow2'), '64M']);
    const life = await lives(['--blockdev', `driver=qcow2,node-name=source,file.driver=file,file.filename=${tmp('disk.qcow2')}`]);
    // one client at a time
    life.qmp.close();
    const before = recordings();
    const tmux = await terminal({ columns: 120, rows: 40 });
    await tmux.type('clear; echo before');
    await tmux.type(`'${launcher}' trace view '${tmp('monitor')}'`);
    await tmux.untilText(/waiting for|q quit/);
    await write(0);
    await tmux.untilText(/monitor {2}[1-9]\d* requests .*LIVE/);
    await write(1024 * 1024);
    await tmux.keys('c', 'c');
    await tmux.untilText('by layer');
    await tmux.untilText(/● 4000,\d+ guest disk/);
    await tmux.untilText(/host file/);
    await tmux.keys('q');
    await tmux.until('the prompt', (lines) => lines.includes('before') && !lines.join('').includes('q quit'));
    await tmux.untilText(/\$ *\n*$/);
    expect(await state()).toMatchObject({ recording: false });
    expect(recordings()).toEqual(before);
    await life.end('SIGTERM');
  });

  test('a recording that is under way already is watched, and goes on', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'raw', tmp('disk.raw'), '16M']);
    const life = await lives(['--blockdev', `driver=raw,node-name=source,file.driver=file,file.filename=${tmp('disk.raw')}`]);
    await life.qmp.execute('x-quiesce-trace-start', { file: tmp('run') });
    life.qmp.close();
    await write(0);
    const tmux = await terminal({ columns: 80, rows: 24 });
    await tmux.type(`'${launcher}' trace view '${tmp('monitor')}'`);
    await tmux.untilText(/[1-9]\d* requests .*LIVE/);
    await tmux.keys('q');
    await tmux.until('the prompt', (lines) => !lines.join('').includes('q quit'));
    expect(await state()).toMatchObject({ recording: true });
    expect(existsSync(tmp('run.blktrace.0'))).toBe(true);
    await life.end('SIGTERM');
  });
});
