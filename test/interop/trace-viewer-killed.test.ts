/** A viewer that is killed while it watches a daemon's disks: the recording that was made for it ends, and its files are gone. */
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { monitorOf, waitFor } from '../support/cli.js';
import { useDaemonLives } from '../support/daemon-lives.js';
import { peers } from '../support/peers.js';
import { launcher, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { useTmux } from '../support/tmux.js';

interface Told { readonly recording: boolean; readonly files?: readonly string[] }

peers('tmux', 'qemu-img')('a killed viewer', () => {
  const tmp = useTmp();
  const lives = useDaemonLives(tmp);
  const terminal = useTmux();

  async function state(): Promise<Told> {
    const qmp = await monitorOf(tmp('monitor'));
    const trace = await qmp.execute('x-quiesce-query-trace') as Told;
    qmp.close();
    return trace;
  }

  test.each(['view', 'serve'])('of trace %s', async (command) => {
    await runOk('qemu-img', ['create', '-q', '-f', 'raw', tmp('disk.raw'), '16M']);
    const life = await lives(['--blockdev', `driver=raw,node-name=source,file.driver=file,file.filename=${tmp('disk.raw')}`]);
    life.qmp.close();
    const tmux = await terminal({ columns: 80, rows: 24 });
    await tmux.type(`sh -c 'echo $$ > "${tmp('viewer')}"; TMPDIR="${tmp()}" exec "${launcher}" trace ${command} "${tmp('monitor')}"'`);
    await waitFor('it is recorded', async () => (await state()).recording);
    const { files = [] } = await state();
    expect(files.some((file) => existsSync(file))).toBe(true);
    process.kill(Number(readFileSync(tmp('viewer'), 'utf8')), 'SIGKILL');
    await waitFor('the recording ends', async () => !(await state()).recording);
    await waitFor('its files are gone', async () => !files.some((file) => existsSync(file)));
    // the next one is recorded for nobody, and goes on without those who began it
    const script = await monitorOf(tmp('monitor'));
    await script.execute('x-quiesce-trace-start', { file: tmp('run') });
    script.close();
    expect(await state()).toMatchObject({ recording: true });
    const refusing = await monitorOf(tmp('monitor'));
    await refusing.execute('x-quiesce-trace-stop');
    await expect(refusing.execute('x-quiesce-trace-start', { file: tmp('again'), watcher: tmp('nobody') })).rejects.toThrow(/: Could not connect to the watcher '.*nobody': No such file or directory/);
    expect(await refusing.execute('x-quiesce-query-trace')).toMatchObject({ recording: false });
    expect(existsSync(tmp('again.blktrace.0'))).toBe(false);
    refusing.close();
    await life.end('SIGTERM');
  });
});
