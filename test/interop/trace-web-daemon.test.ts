/** The disks of a running daemon, served as a page while a guest writes. */
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { expect, test } from '@jest/globals';
import { monitorOf, startQuiesce } from '../support/cli.js';
import { useDaemonLives } from '../support/daemon-lives.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

interface Told {
  readonly requests: number;
  readonly devices: readonly { readonly name: string }[];
}

const pause = (): Promise<void> => new Promise((resolve) => { setTimeout(resolve, 50); });

/** What the page would be told; null while nothing was read. */
async function overview(url: string): Promise<Told | null> {
  const response = await fetch(`${url}ask`, { method: 'POST', body: '{"ask":"overview"}' });
  if (response.status === 503) return null;
  const bytes = Buffer.from(await response.arrayBuffer());
  return JSON.parse(bytes.toString('utf8', 4, 4 + bytes.readUInt32LE(0))) as Told;
}

peers('qemu-img', 'qemu-io')('quiesce trace serve of a daemon', () => {
  const tmp = useTmp();
  const lives = useDaemonLives(tmp);
  const write = (offset: number): Promise<string> => runOk('qemu-io', ['-f', 'raw', '-c', `write ${offset} 64k`, `nbd+unix:///disk?socket=${tmp('nbd')}`]);
  const recordings = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('quiesce-trace-'));

  test('tells of its layers as requests come, and leaves nothing behind', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('disk.qcow2'), '64M']);
    const life = await lives(['--blockdev', `driver=qcow2,node-name=source,file.driver=file,file.filename=${tmp('disk.qcow2')}`]);
    // one client at a time
    life.qmp.close();
    const before = recordings();
    const command = startQuiesce(['trace', 'serve', tmp('monitor')]);
    while (!command.stdout().includes('\n')) await pause();
    const url = command.stdout().trim();
    let told: Told | null = null;
    for (let offset = 0; (told?.requests ?? 0) === 0; offset += 65_536) {
      await write(offset);
      await pause();
      told = await overview(url);
    }
    const first = told!.requests;
    await write(32 * 1024 * 1024);
    while ((told?.requests ?? 0) <= first) {
      await pause();
      told = await overview(url);
    }
    const layers = told!.devices.map(({ name }) => name);
    expect(layers).toEqual(expect.arrayContaining([expect.stringMatching(/guest disk/), expect.stringMatching(/host file/)]));
    command.child.kill('SIGINT');
    expect(await command.done).toMatchObject({ code: 0, stderr: '' });
    const qmp = await monitorOf(tmp('monitor'));
    expect(await qmp.execute('x-quiesce-query-trace')).toMatchObject({ recording: false });
    qmp.close();
    expect(recordings()).toEqual(before);
    await life.end('SIGTERM');
  });
});
