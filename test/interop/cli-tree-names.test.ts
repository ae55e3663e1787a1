/** Trees of nodes instead of file names, `json:{…}` and `driver=…`, in every command of ours that takes an image. */
import { copyFileSync, existsSync, readdirSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { expectRefused, makeImage, quiesceOk, snapshotNames, startQuiesce, waitFor } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

/** The ways to say the same image. */
const FORMS: Readonly<Record<string, (file: string, format?: string) => string>> = {
  'json:': (filename, driver = 'qcow2') => `json:${JSON.stringify({ driver, file: { driver: 'file', filename } })}`,
  'json: with dots': (filename, driver = 'qcow2') => `json:${JSON.stringify({ driver, 'file.filename': filename })}`,
  'driver=': (filename, driver = 'qcow2') => `driver=${driver},file.driver=file,file.filename=${filename}`,
  'file.filename=': (filename) => `file.filename=${filename}`,
  'blkdebug:': (filename) => `blkdebug::${filename}`,
};

const io = (file: string, ...commands: string[]): Promise<string> => runOk('qemu-io', [...commands.flatMap((command) => ['-c', command]), file]);

peers('qemu-img', 'qemu-io')('as the name of an image', () => {
  test('in all forms', async () => {
    const disk = await makeImage(tmp('disk.qcow2'), '4M');
    for (const name of Object.values(FORMS)) expect(JSON.parse(await quiesceOk(['image', 'info', '--json', name(disk)]))).toMatchObject({ format: 'qcow2', 'virtual-size': 4 << 20 });
  });

  test.each(['json:', 'driver=', 'blkdebug:'] as const)('%s in every command', async (form) => {
    const name = FORMS[form]!;
    const disk = await makeImage(tmp('disk.qcow2'), '4M');
    await io(disk, 'write -P 7 0 64k');
    const image = name(disk);
    expect(await quiesceOk(['image', 'check', image])).toContain('No errors');
    await quiesceOk(['image', 'resize', image, '8M']);
    await quiesceOk(['image', 'bitmap', '--add', image, 'b0']);
    await quiesceOk(['image', 'bitmap', '--remove', image, 'b0']);
    await quiesceOk(['snapshot', 'create', image, 'one']);
    expect(await quiesceOk(['snapshot', 'list', image])).toContain('one');
    expect(await snapshotNames(disk)).toEqual(['one']);
    await io(disk, 'write -P 8 0 64k');
    await quiesceOk(['snapshot', 'revert', image, 'one']);
    await quiesceOk(['snapshot', 'delete', image, 'one']);
    await quiesceOk(['nbd', 'copy', image, tmp('copy.raw')]);
    await quiesceOk(['mirror', image, tmp('mirror.raw')]);
    await quiesceOk(['backup', image, tmp('backup.qcow2')]);
    for (const made of ['copy.raw', 'mirror.raw', 'backup.qcow2']) expect(await runOk('qemu-img', ['compare', disk, tmp(made)])).toContain('identical');
    const served = startQuiesce(['nbd', 'serve', image, '--socket', tmp('s')]);
    await waitFor('it serves', () => existsSync(tmp('s')));
    expect(await runOk('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 7 0 64k', `nbd+unix:///?socket=${tmp('s')}`])).not.toContain('fail');
    expect((await served.done).code).toBe(0);
    // nothing is called as a tree is
    expect(readdirSync(tmp()).filter((found) => /[=:{]/.test(found))).toEqual([]);
  }, 120_000);

  test.each(['json:', 'driver='] as const)('%s as a target is what it says, whatever its name looks like', async (form) => {
    const name = FORMS[form]!;
    const source = await makeImage(tmp('source.qcow2'), '4M');
    await io(source, 'write -P 7 1M 64k');
    for (const verb of [['nbd', 'copy'], ['mirror'], ['backup']]) {
      const target = await makeImage(tmp('target.qcow2'), '4M');
      await quiesceOk([...verb, source, name(target)]);
      expect(await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', source, target])).toContain('identical');
      await runOk('qemu-img', ['check', '-q', target]);
      await expectRefused([...verb, source, name(tmp('nothing'))], 'No such file or directory');
    }
    expect(readdirSync(tmp()).toSorted()).toEqual(['source.qcow2', 'target.qcow2']);
  }, 120_000);

  test.each(['json:', 'driver='] as const)('%s in commit, stream and on disks of one set', async (form) => {
    const name = FORMS[form]!;
    const base = await makeImage(tmp('base.qcow2'), '4M');
    const top = await makeImage(tmp('top.qcow2'), '4M', '-b', base, '-F', 'qcow2');
    await io(top, 'write -P 7 1M 64k');
    copyFileSync(top, tmp('streamed.qcow2'));
    await quiesceOk(['commit', name(top)]);
    expect(await io(base, 'read -P 7 1M 64k')).not.toContain('fail');
    await quiesceOk(['stream', name(tmp('streamed.qcow2'))]);
    expect(JSON.parse(await runOk('qemu-img', ['info', '--output=json', tmp('streamed.qcow2')]))).not.toHaveProperty('backing-filename');
    await quiesceOk(['snapshot', 'create', name(base), 'set', '--also', name(tmp('streamed.qcow2'))]);
    for (const disk of [base, tmp('streamed.qcow2')]) expect(await snapshotNames(disk)).toEqual(['set']);
  }, 120_000);
});

test('a file of such a name has its folder told', async () => {
  writeFileSync(tmp('driver=raw'), Buffer.alloc(65_536, 1));
  expect(JSON.parse(await quiesceOk(['image', 'info', '--json', './driver=raw'], { cwd: tmp() }))).toMatchObject({ format: 'raw', 'virtual-size': 65_536 });
  await expectRefused(['image', 'info', 'driver=raw'], 'driver=raw');
});
