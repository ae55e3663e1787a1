/** `quiesce mirror`: of files in this process, and of a node that a storage daemon exports. */
import { existsSync, readdirSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { QmpClient } from '../../src/index.js';
import { isThere } from '../support/listening.js';
import { expectRefused, makeImage, MiB, quiesceOk, startQuiesce, waitFor } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { kill, quiesce, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

async function source(size = '64M'): Promise<string> {
  const image = await makeImage(tmp('disk.qcow2'), size);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -P 9 1M 20M', '-c', 'write -P 7 40M 3k', '-c', 'write -z 3M 1M', image]);
  return image;
}

const equal = (one: string, other: string, format: string): Promise<string> => runOk('qemu-img', ['compare', '-U', '-f', 'qcow2', '-F', format, one, other]);

peers('qemu-img', 'qemu-io')('files', () => {
  test('what is in flight can be said; a granularity must be a power of two', async () => {
    const image = await source();
    await expectRefused(['mirror', image, tmp('copy'), '--granularity', '5000'], "Parameter 'granularity' expects a power of 2");
    expect(existsSync(tmp('copy'))).toBe(false);
    await quiesceOk(['mirror', image, tmp('copy'), '--granularity', '4k', '--buf-size', '64k', '--operations', '2']);
    await equal(image, tmp('copy'), 'raw');
  });

  test.each([['copy.raw', 'raw'], ['copy.qcow2', 'qcow2']])('%s is equal to the source', async (name, format) => {
    const image = await source();
    expect(await quiesceOk(['mirror', image, tmp(name)])).toMatch(/copy\.\w+' is a copy of '.*disk\.qcow2': 64 MiB, .* of it written, in [^;]*\n$/);
    await equal(image, tmp(name), format);
  });

  test('--json tells events and the end', async () => {
    const lines = (await quiesceOk(['mirror', await source(), tmp('copy'), '--json', '--verify'])).trim().split('\n').map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines.map(({ event }) => event)).toEqual(expect.arrayContaining(['JOB_STATUS_CHANGE', 'BLOCK_JOB_READY', 'BLOCK_JOB_COMPLETED']));
    expect(lines.at(-1)).toMatchObject({ target: tmp('copy'), bytes: 64 * MiB, verified: true });
  });

  test('--verify compares all, also the end of a disk that is no whole number of chunks', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'raw', tmp('odd'), String(3 * MiB + 1536)]);
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 5 3M 1536', tmp('odd')]);
    expect(await quiesceOk(['mirror', '-f', 'raw', tmp('odd'), tmp('copy.qcow2'), '--verify'])).toContain('; both are equal');
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', tmp('odd'), tmp('copy.qcow2')]);
  });

  test('Ctrl-C leaves no half target, and the source as it was', async () => {
    const image = await source();
    const running = startQuiesce(['mirror', image, tmp('copy.qcow2'), '--speed', '2M']);
    await waitFor('it copies', () => existsSync(tmp('copy.qcow2')));
    await new Promise((go) => { setTimeout(go, 300); });
    running.child.kill('SIGINT');
    expect(await running.done).toMatchObject({ code: 130, stdout: '' });
    expect(readdirSync(tmp())).toEqual(['disk.qcow2']);
    await runOk('qemu-img', ['check', '-q', image]);
  });

  test('--forecast copies nothing', async () => {
    const told = JSON.parse(await quiesceOk(['mirror', await source(), tmp('copy.qcow2'), '--forecast', '--json'])) as Record<string, unknown>;
    // zeros are no data
    expect(told).toMatchObject({ bytes: 19 * MiB + 65_536, 'dirty-rate': 0, 'guest-share': 1 });
    expect(told['auto-ms']).toBeGreaterThan(0);
    expect(readdirSync(tmp())).toEqual(['disk.qcow2']);
  });
});

test.each([
  [['--pivot', 'a', 'b'], '--pivot goes with --daemon or --qmp', 2],
  [['a', 'b', '--deadline', '5', '--copy-mode', 'background'], '--copy-mode and --deadline go with --daemon or --qmp', 2],
  [['--daemon', 'sock', '--cache', 'none', '--backing=deny', 'a', 'b'], '--cache and --backing are for files: a daemon has its nodes open', 2],
  [['--daemon', 'sock', '-f', 'raw', 'a', 'b'], '--source-format is for files', 2],
  [['--qmp', 'sock', '--verify', 'a', 'b'], '--verify does not go with --qmp', 2],
  [['--qmp', 'sock', '--operations', '4', 'a', 'b'], '--operations does not go with --qmp', 2],
  [['a', 'b', '--granularity', '100'], '--granularity', 2],
  [['--qmp', 'sock', '--daemon', 'sock', 'a', 'b'], '--daemon and --qmp exclude each other', 2],
  [['--daemon', 'sock', '--copy-mode', 'background', '--deadline', '5', 'a', 'b'], '--deadline goes with --copy-mode auto', 2],
  [['--forecast', '--existing', 'a', 'b'], '--existing does not go with --forecast', 2],
  [['same', 'same'], 'are the same image', 1],
] as const)('%j is refused', async (args, message, code) => {
  const { code: found, stderr, stdout } = await quiesce(['mirror', ...args]);
  expect({ code: found, stdout }).toEqual({ code, stdout: '' });
  expect(stderr).toContain(message);
});

test('a source that is not there leaves no target', async () => {
  await expectRefused(['mirror', tmp('none'), tmp('copy')], 'none');
  expect(readdirSync(tmp())).toEqual([]);
});

peers('qemu-img', 'qemu-io')('a daemon', () => {
  test('--pivot puts the target in the place of an exported node', async () => {
    const image = await source();
    const disk = { driver: 'qcow2', 'node-name': 'disk0', file: { driver: 'file', filename: image } };
    const daemon = start(storageDaemonLauncher, [
      '--blockdev', JSON.stringify(disk), '--blockdev', 'null-co,node-name=liar,size=67108864,read-zeroes=on', '--nbd-server', `addr.type=unix,addr.path=${tmp('nbd')}`,
      '--export', 'type=nbd,id=e,node-name=disk0,name=d,writable=on', '--chardev', `socket,id=c,path=${tmp('qmp')},server=on,wait=off`, '--monitor', 'chardev=c',
    ]);
    const ended = new Promise<number | null>((resolve) => { daemon.once('close', resolve); });
    try {
      await waitFor('the daemon listens', () => isThere(tmp('qmp')));
      const uri = `nbd+unix:///d?socket=${tmp('nbd')}`;
      await expectRefused(['mirror', '--daemon', tmp('qmp'), 'nobody', tmp('gone.raw')], "'nobody' is neither a node nor a device of");
      expect(existsSync(tmp('gone.raw'))).toBe(false);
      const slow = startQuiesce(['mirror', '--daemon', tmp('qmp'), 'disk0', tmp('gone.raw'), '--speed', '1M', '--copy-mode', 'background', '--json']);
      await waitFor('it copies', () => existsSync(tmp('gone.raw')));
      await new Promise((go) => { setTimeout(go, 500); });
      slow.child.kill('SIGINT');
      expect(await slow.done).toMatchObject({ code: 130 });
      expect(existsSync(tmp('gone.raw'))).toBe(false);
      expect(await quiesceOk(['mirror', '--daemon', tmp('qmp'), 'disk0', tmp('copy.raw'), '--granularity', '64k', '--buf-size', '1M', '--operations', '3'])).toContain("is what 'disk0' was: 20.1 MiB copied in ");
      await equal(image, tmp('copy.raw'), 'raw');
      // what it takes is not what it shows
      await expectRefused(['mirror', '--daemon', tmp('qmp'), 'disk0', 'liar', '--pivot', '--verify'], /^the mirror failed: Source and target differ in \d+ bytes at 1048576$/);
      await runOk('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 9 1M 2M', uri]);
      await expectRefused(['mirror', '--daemon', tmp('qmp'), 'disk0', 'liar', '--existing'], "'liar' is a node, and no file to be made or opened in a format");
      expect(await quiesceOk(['mirror', '--daemon', tmp('qmp'), 'disk0', tmp('new.qcow2'), '--pivot', '--verify'])).toContain("has taken the place of 'disk0'");
      await runOk('qemu-io', ['-f', 'raw', '-c', 'read -P 9 1M 2M', '-c', 'write -P 3 50M 1M', uri]);
      const qmp = await QmpClient.connect(tmp('qmp'));
      const nodes = await qmp.execute('query-named-block-nodes', { flat: true }) as { 'node-name': string }[];
      expect(nodes.map((node) => node['node-name']).filter((name) => name.startsWith('target-'))).toHaveLength(1);
      await qmp.execute('quit');
      qmp.close();
      expect(await ended).toBe(0);
    } finally {
      await kill(daemon);
    }
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'read -P 9 1M 2M', '-c', 'read -P 3 50M 1M', '-c', 'read -P 7 40M 3k', tmp('new.qcow2')]);
  });
});
