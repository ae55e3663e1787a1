/** A machine driven over QMP runs on where there is no room, where it is killed itself, and after a run that was killed. */
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { watch } from 'node:fs/promises';
import { afterEach, expect, test } from '@jest/globals';
import { machineStatus } from '../../src/index.js';
import { expectRefused, leaksAtMost, makeImage, oneLineError, snapshotNames, startQuiesce, waitFor } from '../support/cli.js';
import { drive, hashOf, pattern, patternIn, ramOf, withMachine, type RamMachine } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { kill, launcher, quiesce, run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const mounts: string[] = [];
// before the hook that removes the directory
afterEach(async () => { for (const mount of mounts.splice(0)) await runOk('umount', [mount]); });
const tmp = useTmp();

const create = (image: string, tag: string): string[] => ['snapshot', 'create', image, tag, '--vm-state', `qmp:${tmp('qmp')}`];

async function runsWithItsImage({ qmp }: RamMachine, image: string): Promise<void> {
  expect(await machineStatus(qmp)).toEqual({ state: 'running', running: true });
  expect((await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', image])).stderr).toContain('Failed to get "write" lock');
}

/** Runs a command that can make no file larger than this. */
function limited(kib: number, args: readonly string[]): ReturnType<typeof run> {
  return run('bash', ['-c', `ulimit -f ${kib}; trap "" XFSZ; exec "$@"`, 'bash', launcher, ...args]);
}

peers('qemu-system-x86_64', 'qemu-img', 'qemu-io')('a machine driven over QMP', () => {
  test('runs on where the spool finds no room, and where the image finds none after QEMU has let go of it', async () => {
    const image = await makeImage(tmp('a.qcow2'));
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q 0 40M', image]);
    await withMachine(tmp('qmp'), [...drive(image), ...patternIn(tmp('pattern'), 1)], async (machine) => {
      expect(oneLineError(await limited(4096, create(image, 't')))).toMatch(/could not write the spool file in '\S+': File too large$/);
      await runsWithItsImage(machine, image);
      expect(oneLineError(await limited(20_000, create(image, 't')))).toMatch(/a\.qcow2'.*: File too large$/);
      await runsWithItsImage(machine, image);
      expect(await quiesce(create(image, 'after'))).toMatchObject({ code: 0, stderr: '' });
    });
    expect(await snapshotNames(image)).toEqual(['after']);
    await leaksAtMost(image);
  });

  test('runs on where the file system of its image is full or takes no files', async () => {
    const directory = tmp('small');
    mkdirSync(directory);
    // where nothing can be mounted, the limits above have to do
    if ((await run('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'none', directory])).code !== 0) return;
    mounts.push(directory);
    const image = await makeImage(`${directory}/a.qcow2`);
    await withMachine(tmp('qmp'), [...drive(image), ...patternIn(tmp('pattern'), 2)], async (machine) => {
      expect(oneLineError(await quiesce(create(image, 't')))).toMatch(/No space left on device$/);
      await runsWithItsImage(machine, image);
      await runOk('mount', ['-o', 'remount,ro', directory]).catch(() => undefined);
      if ((await run('touch', [`${directory}/new`])).code !== 0) await expectRefused(create(image, 't'), /Read-only file system$/);
      await runsWithItsImage(machine, image);
    });
    expect(await snapshotNames(image)).toEqual([]);
  });

  test('that is killed in the middle leaves no snapshot, and one line says what became of it', async () => {
    const image = await makeImage(tmp('a.qcow2'));
    await withMachine(tmp('qmp'), [...drive(image), ...patternIn(tmp('pattern'), 3)], async (machine) => {
      const command = startQuiesce(create(image, 't'));
      await waitFor('it is stopped', async () => !(await machineStatus(machine.qmp)).running);
      await machine.end();
      expect(oneLineError(await command.done)).toContain(tmp('qmp'));
    });
    expect(await snapshotNames(image)).toEqual([]);
    expect(readdirSync(tmp()).filter((name) => name.startsWith('.'))).toEqual([]);
    await leaksAtMost(image);
  });

  test('whose half-made set a killed run left is snapshotted by the next one under the same name', async () => {
    const [a, b] = [await makeImage(tmp('a.qcow2')), await makeImage(tmp('b.qcow2'))];
    const disks = [...drive(a), ...drive(b)];
    await withMachine(tmp('qmp'), [...disks, ...patternIn(tmp('pattern'), 4)], async (machine) => {
      await killHalfMade(machine, a);
      await expectRefused(create(a, 't'), 'was left stopped');
      await machine.qmp.execute('cont');
      const { code, stderr } = await quiesce(create(a, 't'));
      expect([code, stderr]).toEqual([0, expect.stringMatching(/^quiesce: warning: snapshot 't' of an interrupted run was half made: [^\n]+\n$/)]);
      await runsWithItsImage(machine, a);
    });
    for (const image of [a, b]) {
      expect(await snapshotNames(image)).toEqual(['t']);
      await leaksAtMost(image);
    }
    await withMachine(tmp('qmp2'), ['-S', ...disks, '-loadvm', 't'], async ({ qmp }) => {
      expect(await ramOf(qmp, tmp('saved'))).toBe(hashOf(pattern(4)));
    });
  });
});

/** Kills runs of `create` until one leaves its note behind. */
async function killHalfMade(machine: RamMachine, image: string): Promise<void> {
  const note = tmp('.a.qcow2.quiesce-set');
  for (let attempt = 0; attempt < 20; attempt++) {
    const command = startQuiesce([...create(image, 't'), '--replace']);
    await Promise.race([noteAppears(), command.done]);
    await kill(command.child);
    await command.done;
    if (existsSync(note)) return;
    await machine.qmp.execute('cont');
  }
  throw new Error('no run could be killed at the right moment');
}

async function noteAppears(): Promise<void> {
  for await (const { filename } of watch(tmp())) if (filename === '.a.qcow2.quiesce-set') return;
}
