/** `quiesce backup`: chains of full and incremental backups of files that qemu-img restores, and of the nodes of a daemon, ours or QEMU's. */
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { expectRefused, lastLine, quiesceOk, sleep, startQuiesce, waitFor } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { kill, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { appears } from '../support/listening.js';

const tmp = useTmp();

async function makeDisk(): Promise<string> {
  const disk = tmp('disk.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', disk, '8M']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 1 0 3M', '-c', 'write -q -P 2 7M 100k', disk]);
  return disk;
}

async function expectSame(a: string, b: string): Promise<void> {
  expect(await runOk('qemu-img', ['compare', '-U', a, b])).toContain('identical');
  expect(await runOk('qemu-img', ['check', b])).toContain('No errors');
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('backup', () => {
  test('a full backup and three incremental ones, each of which qemu-img reads as the disk was', async () => {
    const disk = await makeDisk();
    await runOk('qemu-img', ['bitmap', '--add', disk, 'daily']);
    const told = lastLine(await quiesceOk(['backup', '--json', disk, tmp('0.qcow2'), '--sync', 'full', '--bitmap', 'daily']));
    expect(told).toMatchObject({ source: disk, target: tmp('0.qcow2'), bitmap: 'daily', processed: 8 * 2 ** 20 });
    await expectSame(disk, tmp('0.qcow2'));
    for (let day = 1; day <= 3; day++) {
      await runOk('qemu-io', ['-f', 'qcow2', '-c', `write -q -P ${day + 10} ${day}M 70000`, '-c', `write -q -z ${6 + day / 8}M 64k`, '-c', `discard -q 0 ${day * 64}k`, disk]);
      await runOk('qemu-img', ['convert', '-O', 'raw', disk, tmp(`${day}.raw`)]);
      const made = lastLine(await quiesceOk(['backup', '--json', disk, tmp(`${day}.qcow2`), '--bitmap', 'daily', '--previous', tmp(`${day - 1}.qcow2`)]));
      expect(made['processed']).toBeLessThan(2 ** 20);
    }
    for (let day = 1; day <= 3; day++) await expectSame(tmp(`${day}.raw`), tmp(`${day}.qcow2`));
    await expectSame(disk, tmp('3.qcow2'));
  });

  test('what fails or is refused leaves no file, and the bitmap as it was', async () => {
    const disk = await makeDisk();
    await runOk('qemu-img', ['bitmap', '--add', disk, 'b']);
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 3 1M 64k', disk]);
    await expectRefused(['backup', disk, disk], 'is there already');
    await expectRefused(['backup', disk, tmp('t.qcow2'), '--bitmap', 'none'], "Bitmap 'none' could not be found");
    await expectRefused(['backup', disk, tmp('t.qcow2'), '--sync', 'incremental'], 'must provide a valid bitmap name');
    await expectRefused(['backup', disk, tmp('no/t.qcow2'), '--bitmap', 'b'], 'No such file or directory');
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('small.qcow2'), '1M']);
    await expectRefused(['backup', disk, tmp('small.qcow2'), '--existing', '--bitmap', 'b'], 'different sizes');
    expect(existsSync(tmp('t.qcow2'))).toBe(false);
    const made = lastLine(await quiesceOk(['backup', '--json', disk, tmp('t.qcow2'), '--bitmap', 'b']));
    expect(made).toMatchObject({ processed: 65536 });
  });

  test('a disk that ends within a sector, into a new file and into one full of other data: the rest of the sector is zeros', async () => {
    await runOk('truncate', ['-s', '1000001', tmp('odd.raw')]);
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -q -P 7 100k 800k', tmp('odd.raw')]);
    const sameSectors = async (): Promise<void> => {
      const [odd, copy] = [readFileSync(tmp('odd.raw')), readFileSync(tmp('copy.raw'))];
      expect(copy.byteLength).toBe(1_000_448);
      expect(copy.subarray(0, odd.byteLength).equals(odd)).toBe(true);
      expect(copy.subarray(odd.byteLength).every((byte) => byte === 0)).toBe(true);
    };
    await quiesceOk(['backup', tmp('odd.raw'), '-f', 'raw', tmp('copy.raw'), '-O', 'raw']);
    await sameSectors();
    await runOk('dd', ['if=/dev/urandom', `of=${tmp('copy.raw')}`, 'bs=1000448', 'count=1', 'conv=notrunc', 'status=none']);
    await quiesceOk(['backup', tmp('odd.raw'), '-f', 'raw', tmp('copy.raw'), '-O', 'raw', '--existing']);
    await sameSectors();
  });

  test('an interrupted backup leaves no file, and the bitmap as it was', async () => {
    const disk = await makeDisk();
    await runOk('qemu-img', ['bitmap', '--add', disk, 'b']);
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 3 0 4M', disk]);
    const running = startQuiesce(['backup', disk, tmp('t.qcow2'), '--bitmap', 'b', '--speed', '1']);
    await waitFor('the target', () => existsSync(tmp('t.qcow2')));
    await sleep(500);
    running.child.kill('SIGINT');
    expect(await running.done).toMatchObject({ code: 130, stdout: '' });
    expect(existsSync(tmp('t.qcow2'))).toBe(false);
    const made = lastLine(await quiesceOk(['backup', '--json', disk, tmp('t.qcow2'), '--bitmap', 'b']));
    expect(made).toMatchObject({ processed: 4 * 2 ** 20 });
  });

  /** The disk and the target as nodes of a daemon, for as long as the work takes. */
  async function withDaemon(daemon: string, disk: string, target: string, work: () => Promise<void>): Promise<void> {
    const options = [...[[disk, 'disk'], [target, 'copy']].flatMap(
      ([filename, name]) => ['--blockdev', JSON.stringify({ driver: 'qcow2', 'node-name': name, file: { driver: 'file', filename } })]),
    '--chardev', `socket,id=m,path=${tmp('qmp')},server=on,wait=off`, '--monitor', 'chardev=m'];
    rmSync(tmp('qmp'), { force: true });
    const child = daemon === 'ours' ? start(process.execPath, [storageDaemonLauncher, ...options]) : start('qemu-storage-daemon', options);
    try {
      await appears(tmp('qmp'));
      await work();
      const ended = new Promise((resolve) => { child.once('exit', resolve); });
      child.kill('SIGTERM');
      await ended;
    } finally {
      await kill(child);
    }
  }

  test('one chain, made in turns by files, by our daemon and by that of QEMU', async () => {
    const disk = await makeDisk();
    await runOk('qemu-img', ['bitmap', '--add', disk, 'daily']);
    await quiesceOk(['backup', disk, tmp('0.qcow2'), '--sync', 'full', '--bitmap', 'daily']);
    for (const [index, maker] of ["QEMU's", 'ours', 'files', "QEMU's", 'ours'].entries()) {
      const day = index + 1;
      await runOk('qemu-io', ['-f', 'qcow2', '-c', `write -q -P ${day + 20} ${day}M 70000`, '-c', `discard -q ${day * 128}k 64k`, disk]);
      await runOk('qemu-img', ['convert', '-O', 'raw', disk, tmp(`${day}.raw`)]);
      const target = tmp(`${day}.qcow2`);
      if (maker === 'files') {
        await quiesceOk(['backup', disk, target, '--bitmap', 'daily', '--previous', tmp(`${day - 1}.qcow2`)]);
        continue;
      }
      await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', tmp(`${day - 1}.qcow2`), '-F', 'qcow2', target]);
      await withDaemon(maker, disk, target, async () => { await quiesceOk(['backup', '--daemon', tmp('qmp'), 'disk', 'copy', '--bitmap', 'daily']); });
    }
    for (let day = 1; day <= 5; day++) {
      await expectSame(tmp(`${day}.raw`), tmp(`${day}.qcow2`));
      // no more than what was written since the day before
      expect(statSync(tmp(`${day}.qcow2`)).blocks * 512).toBeLessThan(2 ** 20);
    }
  });

  test('what our daemon copied is on the disk when the command ends', async () => {
    const disk = await makeDisk();
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('target.qcow2'), '8M']);
    const child = start(process.execPath, [storageDaemonLauncher, ...[[disk, 'disk'], [tmp('target.qcow2'), 'copy']].flatMap(
      ([filename, name]) => ['--blockdev', JSON.stringify({ driver: 'qcow2', 'node-name': name, file: { driver: 'file', filename } })]),
    '--chardev', `socket,id=m,path=${tmp('qmp')},server=on,wait=off`, '--monitor', 'chardev=m']);
    try {
      await appears(tmp('qmp'));
      expect(await quiesceOk(['backup', '--daemon', tmp('qmp'), 'disk', 'copy'])).toBe("backed up 'disk' into 'copy'\n");
    } finally {
      await kill(child); // without a word
    }
    await expectSame(disk, tmp('target.qcow2'));
  });
});
