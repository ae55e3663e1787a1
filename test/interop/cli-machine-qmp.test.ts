/** `snapshot create --vm-state qmp:` on a running machine with its own images: the guest runs again, however it ends. */
import { readdirSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { machineStatus } from '../../src/index.js';
import { expectRefused, leaksAtMost, makeImage, quiesceOk, snapshotNames, startQuiesce, waitFor } from '../support/cli.js';
import { drive, hashOf, pattern, patternIn, ramOf, waitForState, withMachine, type RamMachine } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { kill, quiesce, run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

function create(image: string, tag: string): string[] {
  return ['snapshot', 'create', image, tag, '--vm-state', `qmp:${tmp('qmp')}`];
}

/** It runs, holds the lock of its image again, and nothing of ours is left in it or beside the image. */
async function runsOn({ qmp }: RamMachine, image: string): Promise<void> {
  expect(await machineStatus(qmp)).toEqual({ state: 'running', running: true });
  expect((await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', image])).stderr).toContain('Failed to get "write" lock');
  expect(JSON.stringify(await qmp.execute('qom-list', { path: '/objects' }))).not.toContain('quiesce');
  expect(readdirSync(tmp()).filter((name) => name.startsWith('.'))).toEqual([]);
}

peers('qemu-system-x86_64', 'qemu-img', 'qemu-io')('a machine driven over QMP', () => {
  test('is snapshotted with every writable disk, again and again, and runs again; -loadvm starts from each', async () => {
    const [a, b, readOnly] = [await makeImage(tmp('a.qcow2')), await makeImage(tmp('b.qcow2'), '16M'), await makeImage(tmp('ro.qcow2'), '16M')];
    const disks = [...drive(a), ...drive(b)];
    await withMachine(tmp('qmp'), [...disks, ...drive(readOnly, 'format=qcow2,if=virtio,readonly=on'), ...patternIn(tmp('pattern'), 1)], async (machine) => {
      expect(await quiesceOk(create(a, 'one'))).toMatch(/^snapshot 'one' of '\S+a\.qcow2' is durable \(id 1, \S+ MiB of RAM state\)\nsnapshot 'one' of '\S+b\.qcow2' is durable \(id 1\)\n$/);
      await runsOn(machine, a);
      expect(JSON.parse(await quiesceOk([...create(a, 'two'), '--json', '--also', b]))).toMatchObject({ images: [{ filename: a, name: 'two' }, { filename: b, name: 'two' }] });
      await runsOn(machine, a);
      await quiesceOk([...create(a, 'one'), '--replace']);
      await runsOn(machine, b);
    });
    for (const image of [a, b]) {
      expect(await snapshotNames(image)).toEqual(['two', 'one']);
      await runOk('qemu-img', ['check', '-q', image]);
    }
    expect(await snapshotNames(readOnly)).toEqual([]);
    for (const tag of ['one', 'two']) {
      await withMachine(tmp('qmp2'), ['-S', ...disks, ...drive(readOnly, 'format=qcow2,if=virtio,readonly=on'), '-loadvm', tag], async ({ qmp }) => {
        expect(await ramOf(qmp, tmp('saved'))).toBe(hashOf(pattern(1)));
      });
    }
  });

  test('that was paused stays paused', async () => {
    const image = await makeImage(tmp('a.qcow2'));
    await withMachine(tmp('qmp'), [...drive(image)], async ({ qmp }) => {
      await qmp.execute('stop');
      await quiesceOk(create(image, 't'));
      expect(await machineStatus(qmp)).toMatchObject({ running: false });
      expect(await snapshotNames(image)).toEqual(['t']);
      await qmp.execute('cont');
      await waitForState(qmp, 'running');
    });
  });

  test('with a raw disk is refused by its name, and was never stopped', async () => {
    const image = await makeImage(tmp('a.qcow2'));
    await runOk('truncate', ['-s', '1M', tmp('data.raw')]);
    await withMachine(tmp('qmp'), [...drive(image), ...drive(tmp('data.raw'), 'format=raw,if=none,id=data'), '-device', 'virtio-blk,drive=data'], async (machine) => {
      await expectRefused(create(image, 't'), new RegExp(`expected qcow2 files: 'data' \\(raw, ${tmp('data.raw')}\\)$`));
      await runsOn(machine, image);
    });
    expect(await snapshotNames(image)).toEqual([]);
  });

  test('runs on where the tag exists, the name is bad, there is no room, or an image is not its own and in use', async () => {
    const image = await makeImage(tmp('a.qcow2'));
    await runOk('qemu-img', ['snapshot', '-c', 'taken', image]);
    await withMachine(tmp('qmp'), [...drive(image)], async (machine) => {
      await expectRefused(create(image, 'taken'), `'${image}' already has a snapshot 'taken'`);
      await expectRefused(create(image, 'x'.repeat(256)), /takes snapshot names of 1 to 255 bytes without NUL, got "x+…" \(256 bytes\)$/);
      await expectRefused([...create(image, 't'), '--also', tmp('missing.qcow2')], 'No such file or directory');
      await expectRefused([...create(image, 't'), '--chunk-size', '64M', '--depth', '64'], 'of memory, more than');
      await runsOn(machine, image);
    });
    expect(await snapshotNames(image)).toEqual(['taken']);
    await runOk('qemu-img', ['check', '-q', image]);
  });

  test('runs on after Ctrl-C in the middle of the migration', async () => {
    const image = await makeImage(tmp('a.qcow2'));
    await withMachine(tmp('qmp'), [...drive(image), ...patternIn(tmp('pattern'), 5)], async (machine) => {
      const command = startQuiesce(create(image, 't'));
      await waitForState(machine.qmp, 'paused', 'finish-migrate', 'postmigrate');
      command.child.kill('SIGINT');
      const { code, stderr } = await command.done;
      // it may have been too late
      if (code !== 0) expect([code, stderr]).toEqual([130, expect.stringMatching(/^quiesce: [^\n]+\n$/)]);
      await runsOn(machine, image);
    });
    await leaksAtMost(image);
  });

  test('that a killed run left stopped is named by the next one', async () => {
    const image = await makeImage(tmp('a.qcow2'));
    await withMachine(tmp('qmp'), [...drive(image), ...patternIn(tmp('pattern'), 6)], async (machine) => {
      const command = startQuiesce(create(image, 't'));
      await waitFor('our mark is in it', async () => JSON.stringify(await machine.qmp.execute('qom-list', { path: '/objects' })).includes('quiesce'));
      await kill(command.child);
      await waitFor('it has settled', async () => ['paused', 'postmigrate', 'running'].includes((await machineStatus(machine.qmp)).state));
      if ((await machineStatus(machine.qmp)).running) await machine.qmp.execute('stop');
      await expectRefused(create(image, 't'), `the machine at '${tmp('qmp')}' was left stopped`);
      await machine.qmp.execute('cont');
      expect(await quiesce(create(image, 'next'))).toMatchObject({ code: 0, stderr: '' });
      await runsOn(machine, image);
    });
    expect(await snapshotNames(image)).toEqual(['next']);
    await leaksAtMost(image);
  });
});
