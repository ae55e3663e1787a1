/** `quiesce mirror --sync top` of a disk that another process has open: the overlay lies on what that process has below its image, whatever the source is called and filtered by. */
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { makeImage, oneLineError, quiesceOk } from '../support/cli.js';
import { appears } from '../support/listening.js';
import { peers } from '../support/peers.js';
import { kill, quiesce, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const DAEMONS = [['--daemon', storageDaemonLauncher], ['--qmp', 'qemu-storage-daemon']] as const;

/** Image `disk.qcow2` over `base` in a directory of its own, and another `base` where the command runs. */
async function images(name: (file: string) => string): Promise<void> {
  for (const [directory, pattern] of [['peer', 1], ['here', 2]] as const) {
    rmSync(tmp(directory), { recursive: true, force: true });
    mkdirSync(tmp(directory));
    const base = await makeImage(join(tmp(directory), 'base'), '4M');
    await runOk('qemu-io', ['-f', 'qcow2', '-c', `write -q -P ${pattern} 0 1M`, base]);
  }
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', name('base'), 'disk.qcow2', '4M'], { cwd: tmp('peer') });
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 3 2M 64k', join(tmp('peer'), 'disk.qcow2')]);
}

async function withDisk(program: string, filename: string, work: () => Promise<void>): Promise<void> {
  const nodes = [
    { driver: 'qcow2', 'node-name': 'disk', file: { driver: 'file', filename } },
    { driver: 'throttle', 'node-name': 'slow', 'throttle-group': 'g', file: 'disk' },
    { driver: 'copy-on-read', 'node-name': 'filtered', file: 'slow' },
  ];
  rmSync(tmp('qmp'), { force: true });
  const child = start(program, [
    '--object', 'throttle-group,id=g', ...nodes.flatMap((node) => ['--blockdev', JSON.stringify(node)]),
    '--chardev', `socket,id=m,path=${tmp('qmp')},server=on,wait=off`, '--monitor', 'chardev=m',
  ], { cwd: tmp('peer') });
  try {
    await appears(tmp('qmp'));
    await work();
  } finally {
    await kill(child);
  }
}

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('live', () => {
  test.each(DAEMONS)('%s: relative names are not followed from elsewhere: refused, and nothing is made', async (option, program) => {
    await images((file) => file);
    await withDisk(program, 'disk.qcow2', async () => {
      for (const source of ['disk', 'filtered']) {
        const refused = await quiesce(['mirror', option, tmp('qmp'), source, 'copy.qcow2', '--sync', 'top'], { cwd: tmp('here') });
        expect(oneLineError(refused)).toContain(`the image below '${source}' is 'base' to the process that has it open`);
      }
      expect(readdirSync(tmp('here'))).toEqual(['base']);
      // with what is below it made known, by hand
      const copy = await makeImage(tmp('copy.qcow2'), '4M', '-F', 'qcow2', '-b', join(tmp('peer'), 'base'));
      await quiesceOk(['mirror', option, tmp('qmp'), 'filtered', copy, '--sync', 'top', '--existing'], { cwd: tmp('here') });
      await runOk('qemu-img', ['compare', '-U', '-f', 'qcow2', '-F', 'qcow2', join(tmp('peer'), 'disk.qcow2'), copy]);
    });
  });

  test.each(DAEMONS)('%s: of a filter, the overlay lies on what is below the image, not on the image', async (option, program) => {
    await images((file) => join(tmp('peer'), file));
    const disk = join(tmp('peer'), 'disk.qcow2');
    await withDisk(program, disk, async () => {
      await quiesceOk(['mirror', option, tmp('qmp'), 'filtered', 'copy.qcow2', '--sync', 'top'], { cwd: tmp('here') });
    });
    const copy = join(tmp('here'), 'copy.qcow2');
    expect(JSON.parse(await runOk('qemu-img', ['info', '--output=json', copy]))).toMatchObject({ 'backing-filename': join(tmp('peer'), 'base'), 'backing-filename-format': 'qcow2' });
    await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', disk, copy]);
    await runOk('qemu-img', ['check', '-q', copy]);
  });
});
