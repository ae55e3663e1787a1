/** A VM state that QEMU's own savevm wrote, and one of ours, start a machine that waits with -incoming. */
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { machineStatus } from '../../src/index.js';
import { makeImage, quiesceOk, snapshotNames, startQuiesce, waitFor } from '../support/cli.js';
import { drive, hashOf, monitor, pattern, patternIn, quit, ramOf, waitForState, withMachine, type RamMachine } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

/** An image with a snapshot `saved`: the pattern in RAM, and 0x11 at the start of the disk (0x22 in the active one). */
async function savedByQemu(seed: number): Promise<string> {
  const image = await makeImage(tmp('disk.qcow2'));
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x11 0 1M', image]);
  await withMachine(tmp('qmp'), ['-S', ...drive(image), ...patternIn(tmp('pattern'), seed)], async (machine) => {
    await monitor(machine.qmp, 'savevm saved');
    await quit(machine);
  });
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x22 0 1M', image]);
  return image;
}

async function startsWith(image: string, byte: number): Promise<void> {
  expect(await runOk('qemu-io', ['-r', '-U', '-f', 'qcow2', '-c', `read -P ${byte} 0 1M`, image])).not.toContain('verification failed');
}

/** It took the whole state, its RAM is the pattern, and it runs. */
async function cameIn({ qmp }: RamMachine, seed: number): Promise<void> {
  await waitForState(qmp, 'paused', 'prelaunch');
  expect(await ramOf(qmp, tmp('incoming-ram'))).toBe(hashOf(pattern(seed)));
  await qmp.execute('cont');
  await waitForState(qmp, 'running');
}

peers('qemu-system-x86_64', 'qemu-img', 'qemu-io')('a machine that waits with -incoming', () => {
  test('takes the state of savevm from a file that extract wrote, and the image is untouched', async () => {
    const image = await savedByQemu(1);
    const before = hashOf(readFileSync(image));
    expect(await quiesceOk(['snapshot', 'extract', image, 'saved', '--vm-state', tmp('ram')])).toMatch(/^\S+ MiB of RAM state of 'saved' went to /);
    expect(hashOf(readFileSync(image))).toBe(before);
    await withMachine(tmp('qmp'), ['-S', ...drive(image), '-incoming', `exec:cat ${tmp('ram')}`], (machine) => cameIn(machine, 1));
  });

  test('takes it from extract over a unix socket, while another machine runs on the image', async () => {
    const image = await savedByQemu(2);
    const copy = await makeImage(tmp('copy.qcow2'));
    await withMachine(tmp('qmp'), drive(image), async () => {
      await withMachine(tmp('qmp2'), ['-S', ...drive(copy), '-incoming', `unix:${tmp('in')}`], async (waiting) => {
        await waitFor('it listens', () => existsSync(tmp('in')));
        await quiesceOk(['snapshot', 'extract', '-U', image, 'saved', '--vm-state', `unix:${tmp('in')}`]);
        await cameIn(waiting, 2);
      });
    });
  });

  test('on the very image takes it from load: the disk is reverted, and free when the last byte arrives', async () => {
    const image = await savedByQemu(3);
    await startsWith(image, 0x22);
    await withMachine(tmp('qmp'), ['-S', ...drive(image), '-incoming', `unix:${tmp('in')}`], async (machine) => {
      await waitFor('it listens', () => existsSync(tmp('in')));
      await quiesceOk(['snapshot', 'load', image, 'saved', '--vm-state', `unix:${tmp('in')}`]);
      await cameIn(machine, 3);
      expect((await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', image])).stderr).toContain('lock');
    });
    await startsWith(image, 0x11);
    await runOk('qemu-img', ['check', '-q', image]);
  });

  test('goes round: QEMU to us, back by load, saved by QMP, and loaded again by QEMU', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    await withMachine(tmp('qmp'), [...drive(image), ...patternIn(tmp('pattern'), 4)], () => quiesceOk(['snapshot', 'create', image, 'one', '--vm-state', `qmp:${tmp('qmp')}`]));
    await withMachine(tmp('qmp'), [...drive(image), '-incoming', `unix:${tmp('in')}`], async (machine) => {
      const loading = startQuiesce(['snapshot', 'load', image, 'one', '--vm-state', `unix:${tmp('in')}`]);
      expect(await loading.done).toMatchObject({ code: 0, stderr: '' });
      await waitForState(machine.qmp, 'running', 'paused');
      if (!(await machineStatus(machine.qmp)).running) await machine.qmp.execute('cont');
      await quiesceOk(['snapshot', 'create', image, 'two', '--vm-state', `qmp:${tmp('qmp')}`]);
      await monitor(machine.qmp, 'savevm three');
      await quit(machine);
    });
    expect(await snapshotNames(image)).toEqual(['one', 'two', 'three']);
    for (const tag of ['two', 'three']) {
      await withMachine(tmp('qmp'), ['-S', ...drive(image), '-loadvm', tag], async ({ qmp }) => {
        expect(await ramOf(qmp, tmp('back'))).toBe(hashOf(pattern(4)));
      });
    }
    await runOk('qemu-img', ['check', '-q', image]);
  });
});
