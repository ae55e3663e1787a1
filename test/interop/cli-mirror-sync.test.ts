/** `quiesce mirror --sync`: overlays, copies brought up to date by a bitmap, and writes alone; of files, of our daemon's nodes and of QEMU's. */
import { existsSync, rmSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { expectRefused, lastLine, makeImage, quiesceOk, startQuiesce, waitFor } from '../support/cli.js';
import { appears } from '../support/listening.js';
import { peers } from '../support/peers.js';
import { kill, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;

async function write(image: string, ...what: string[]): Promise<void> {
  await runOk('qemu-io', [...image.startsWith('nbd') ? ['-f', 'raw'] : ['-f', 'qcow2'], ...what.flatMap((one) => ['-c', one.replace('write', 'write -q')]), image]);
}

/** Image `disk.qcow2` over `base`. */
async function images(): Promise<string> {
  await write(await makeImage(tmp('base'), '16M'), 'write -P 11 0 8M');
  const disk = await makeImage(tmp('disk.qcow2'), '16M', '-F', 'qcow2', '-b', tmp('base'));
  await write(disk, 'write -P 1 3000k 4k', 'write -z 5M 100k', 'write -P 2 12M 64k');
  return disk;
}

async function expectSame(copy: string): Promise<void> {
  await runOk('qemu-img', ['compare', '-U', '-f', 'qcow2', '-F', 'qcow2', tmp('disk.qcow2'), copy]);
  await runOk('qemu-img', ['check', '-q', '-U', copy]);
}

async function info(image: string): Promise<Readonly<Record<string, unknown>>> {
  return JSON.parse(await runOk('qemu-img', ['info', '-U', '--output=json', image])) as Readonly<Record<string, unknown>>;
}

/** Bytes that an image holds itself. */
async function own(image: string): Promise<number> {
  const map = JSON.parse(await runOk('qemu-img', ['map', '-U', '--output=json', '-f', 'qcow2', image])) as readonly { readonly length: number; readonly depth: number; readonly present: boolean }[];
  return map.filter(({ depth, present }) => present && depth === 0).reduce((sum, { length }) => sum + length, 0);
}

async function withDaemon(ours: boolean, work: (end: () => Promise<void>) => Promise<void>): Promise<void> {
  const options = [
    '--blockdev', JSON.stringify({ driver: 'qcow2', 'node-name': 'disk', file: { driver: 'file', filename: tmp('disk.qcow2') } }),
    '--nbd-server', `addr.type=unix,addr.path=${tmp('nbd')}`, '--export', 'type=nbd,id=e,node-name=disk,name=d,writable=on',
    '--chardev', `socket,id=m,path=${tmp('qmp')},server=on,wait=off`, '--monitor', 'chardev=m',
  ];
  rmSync(tmp('qmp'), { force: true });
  const child = ours ? start(storageDaemonLauncher, options) : start('qemu-storage-daemon', options);
  const ended = new Promise((resolve) => { child.once('exit', resolve); });
  try {
    await appears(tmp('qmp'));
    await work(async () => {
      child.kill('SIGTERM');
      await ended;
    });
  } finally {
    await kill(child);
  }
}

const exported = (): string => `nbd+unix:///d?socket=${tmp('nbd')}`;

peers('qemu-img', 'qemu-io')('files', () => {
  test('top: an overlay of the same image, with what the first layer holds', async () => {
    await quiesceOk(['mirror', await images(), tmp('copy.qcow2'), '--sync', 'top']);
    await expectSame(tmp('copy.qcow2'));
    expect(await info(tmp('copy.qcow2'))).toMatchObject({ 'backing-filename': tmp('base'), 'backing-filename-format': 'qcow2' });
    expect(await own(tmp('copy.qcow2'))).toBe(await own(tmp('disk.qcow2')));
    await expectRefused(['mirror', tmp('disk.qcow2'), tmp('copy.raw'), '--sync', 'top'], "Backing file not supported for file format 'raw'");
    expect(existsSync(tmp('copy.raw'))).toBe(false);
  });

  test('top of an image that lies on nothing is all of it', async () => {
    await images();
    await quiesceOk(['mirror', tmp('base'), tmp('copy.raw'), '--sync', 'top']);
    await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', tmp('base'), tmp('copy.raw')]);
  });

  test("incremental empties QEMU's bitmap when the copy is safe, bitmap leaves it; what fails does too", async () => {
    const disk = await images();
    await runOk('qemu-img', ['bitmap', '--add', disk, 'b']);
    const copy = tmp('copy.qcow2');
    await expectRefused(['mirror', disk, copy, '--bitmap', 'b'], "sync mode 'incremental' copies only a part of the disk, into what holds the rest: there is no");
    await quiesceOk(['mirror', disk, copy]);
    await write(disk, 'write -P 4 1M 64k', 'write -P 4 12M 64k');
    await expectRefused(['mirror', disk, copy, '--bitmap', 'b'], 'is there already (--existing writes into it)');
    await expectRefused(['mirror', disk, copy, '--bitmap', 'none', '--existing'], "Dirty bitmap 'none' not found");
    await makeImage(tmp('small.qcow2'), '1M');
    await expectRefused(['mirror', disk, tmp('small.qcow2'), '--bitmap', 'b', '--existing'], 'different');
    const written = async (...args: string[]): Promise<unknown> => lastLine(await quiesceOk(['mirror', disk, copy, '--existing', '--json', '--bitmap', 'b', ...args]))['written'];
    expect(await written('--sync', 'bitmap', '--verify')).toBe(128 * KiB);
    await expectSame(copy);
    expect(await written('--sync', 'incremental')).toBe(128 * KiB);
    expect(await written()).toBe(0);
    await write(disk, 'write -P 9 15M 1k');
    expect(await written()).toBe(64 * KiB);
    await expectSame(copy);
    expect((await info(disk))['format-specific']).toMatchObject({ data: { bitmaps: [{ name: 'b', flags: ['auto'] }] } });
  });
});

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('live', () => {
  test.each([['--daemon', true], ['--qmp', false]] as const)('%s: top makes an overlay; none copies what is written until Ctrl-C', async (option, ours) => {
    const disk = await images();
    await quiesceOk(['mirror', disk, tmp('full.qcow2')]);
    await withDaemon(ours, async (end) => {
      const mirror = ['mirror', option, tmp('qmp'), 'disk'];
      await quiesceOk([...mirror, tmp('top.qcow2'), '--sync', 'top']);
      await expectSame(tmp('top.qcow2'));
      expect(await info(tmp('top.qcow2'))).toMatchObject({ 'backing-filename': tmp('base') });
      await expectRefused([...mirror, tmp('no.qcow2'), '--sync', 'none'], "sync mode 'none' copies only a part of the disk, into what holds the rest: there is no");
      const none = startQuiesce([...mirror, tmp('full.qcow2'), '--existing', '--sync', 'none', '--json']);
      await waitFor('it is ready', () => none.stdout().includes('BLOCK_JOB_READY'));
      await write(exported(), 'write -P 6 2M 3k', 'write -P 7 13M 128k');
      none.child.kill('SIGINT');
      const { code, stdout, stderr } = await none.done;
      expect([code, stderr]).toEqual([0, '']);
      expect(Number(lastLine(stdout)['written'])).toBeLessThan(512 * KiB);
      await expectSame(tmp('full.qcow2'));
      if (ours) {
        await quiesceOk([...mirror, tmp('moved.qcow2'), '--sync', 'top', '--pivot']);
        await write(exported(), 'write -P 8 14M 1k');
      }
      await end();
    });
    if (!ours) return;
    await write(disk, 'write -P 8 14M 1k');
    await expectSame(tmp('moved.qcow2'));
  });

  test('a daemon of ours brings a copy up to date by a bitmap that QEMU made, under writes', async () => {
    const disk = await images();
    await runOk('qemu-img', ['bitmap', '--add', disk, 'b']);
    await quiesceOk(['mirror', disk, tmp('copy.qcow2')]);
    await write(disk, 'write -P 4 1M 64k');
    await withDaemon(true, async (end) => {
      await expectRefused(['mirror', '--daemon', tmp('qmp'), 'disk', tmp('copy.qcow2'), '--existing', '--bitmap', 'none'], "Dirty bitmap 'none' not found");
      for (const [value, mode] of [[5, 'bitmap'], [6, 'incremental'], [7, 'incremental']] as const) {
        await write(exported(), `write -P ${value} ${value}M 64k`);
        const told = await quiesceOk(['mirror', '--daemon', tmp('qmp'), 'disk', tmp('copy.qcow2'), '--existing', '--verify', '--json', '--bitmap', 'b', '--sync', mode]);
        expect(lastLine(told)).toMatchObject({ bitmap: 'b', verified: true, written: { 5: 128, 6: 192, 7: 64 }[value] * KiB });
        await expectSame(tmp('copy.qcow2'));
      }
      await end();
    });
  });
});

test.each([
  [['--sync', 'bitmap'], '--sync bitmap needs --bitmap'],
  [['--sync', 'top', '--bitmap', 'b'], '--bitmap does not go with --sync top'],
  [['--qmp', 'sock', '--bitmap', 'b'], '--bitmap does not go with --qmp'],
  [['--sync', 'none'], '--sync none goes with --daemon or --qmp'],
  [['--sync', 'top', '--verify'], '--verify does not go with --sync top'],
  [['--sync', 'top', '--forecast'], '--sync does not go with --forecast'],
  [['--sync', 'some'], '--sync'],
] as const)('%j is refused', async (args, message) => {
  await expectRefused(['mirror', 'a', 'b', ...args], message, 2);
});
