/** `snapshot create --vm-state unix:` from a real machine, into an image it does not hold and into its own. */
import { existsSync, readdirSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { isThere } from '../support/listening.js';
import { expectRefused, leaksAtMost, makeImage, snapshotNames, startQuiesce, waitFor } from '../support/cli.js';
import { drive, hashOf, pattern, patternIn, ramOf, waitForState, withMachine, type RamMachine } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { run, runOk, type RunResult } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

/** What a user does: `stop; migrate unix:PATH`, while the command listens. */
async function migrateInto(machine: RamMachine, image: string, ...options: string[]): Promise<RunResult> {
  const command = startQuiesce(['snapshot', 'create', image, 'ram', '--vm-state', `unix:${tmp('socket')}`, ...options]);
  await waitFor('it listens', () => isThere(tmp('socket')));
  await machine.qmp.execute('stop');
  await machine.qmp.execute('migrate', { uri: `unix:${tmp('socket')}` });
  return command.done;
}

async function transferred({ qmp }: RamMachine): Promise<number> {
  const { ram } = await qmp.execute('query-migrate') as { ram?: { transferred: number } };
  return ram?.transferred ?? 0;
}

/** A new machine on the image starts from the snapshot, with the RAM that was saved. */
async function loadvmHasPattern(image: string, seed: number): Promise<void> {
  await withMachine(tmp('qmp2'), ['-S', ...drive(image), '-loadvm', 'ram'], async ({ qmp }) => {
    expect(await ramOf(qmp, tmp('saved'))).toBe(hashOf(pattern(seed)));
    await qmp.execute('cont');
    await waitForState(qmp, 'running');
  });
}

peers('qemu-system-x86_64', 'qemu-img', 'qemu-io')('the RAM state of a machine', () => {
  test.each(['64k', '4k', '1M'])('goes into an image that QEMU does not hold, with clusters of %s, and -loadvm starts from it', async (clusterSize) => {
    const [own, image] = [await makeImage(tmp('own.qcow2')), await makeImage(tmp('copy.qcow2'), '64M', '-o', `cluster_size=${clusterSize}`)];
    await withMachine(tmp('qmp'), [...drive(own), ...patternIn(tmp('pattern'), 1)], async (machine) => {
      expect(await migrateInto(machine, image)).toMatchObject({ code: 0, stderr: '' });
    });
    await runOk('qemu-img', ['check', '-q', image]);
    await loadvmHasPattern(image, 1);
  });

  test('goes into its own image when QEMU lets go of it, and not a byte before', async () => {
    const image = await makeImage(tmp('own.qcow2'));
    await withMachine(tmp('qmp'), [...drive(image), ...patternIn(tmp('pattern'), 2)], async (machine) => {
      await expectRefused(['snapshot', 'create', image, 'disk-only'], 'Failed to get "write" lock');
      expect((await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', image])).code).toBe(1);
      // a slow migration leaves time to look
      await machine.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 8 * 1024 * 1024 });
      const creating = migrateInto(machine, image);
      await waitFor('it is at work', async () => JSON.stringify(await machine.qmp.execute('query-migrate')).includes('"active"'));
      const before = await runOk('sha256sum', [image]);
      expect((await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', image])).stderr).toContain('lock');
      expect(JSON.stringify(await machine.qmp.execute('query-migrate'))).toContain('"active"');
      expect(await runOk('sha256sum', [image])).toBe(before);
      expect(await creating).toMatchObject({ code: 0, stderr: '' });
      expect(await snapshotNames(image)).toEqual(['ram']);
      await machine.qmp.execute('cont');
      await waitForState(machine.qmp, 'running');
    });
    expect(readdirSync(tmp()).filter((name) => name.startsWith('.'))).toEqual([]);
    await runOk('qemu-img', ['check', '-q', image]);
    await loadvmHasPattern(image, 2);
  });

  test('goes into all of its own images with --also', async () => {
    const [image, other] = [await makeImage(tmp('own.qcow2')), await makeImage(tmp('other.qcow2'))];
    await withMachine(tmp('qmp'), [...drive(image), ...drive(other), ...patternIn(tmp('pattern'), 5)], async (machine) => {
      expect(await migrateInto(machine, image, '--also', other)).toMatchObject({ code: 0, stderr: '' });
      await machine.qmp.execute('cont');
      await waitForState(machine.qmp, 'running');
    });
    expect([await snapshotNames(image), await snapshotNames(other)]).toEqual([['ram'], ['ram']]);
    for (const path of [image, other]) await leaksAtMost(path);
  });

  test('is refused before it flows where the tag exists, and replaces it with --replace', async () => {
    const image = await makeImage(tmp('own.qcow2'));
    await runOk('qemu-img', ['snapshot', '-c', 'ram', image]);
    await withMachine(tmp('qmp'), [...drive(image), ...patternIn(tmp('pattern'), 3)], async (machine) => {
      const early = startQuiesce(['snapshot', 'create', image, 'ram', '--vm-state', `unix:${tmp('socket')}`]);
      expect(await early.done).toMatchObject({ code: 1, stderr: expect.stringContaining("already has a snapshot 'ram'") });
      expect(existsSync(tmp('socket'))).toBe(false);
      expect(await migrateInto(machine, image, '--replace')).toMatchObject({ code: 0, stderr: '' });
      await machine.qmp.execute('cont');
      await waitForState(machine.qmp, 'running');
    });
    expect(await snapshotNames(image)).toEqual(['ram']);
    await leaksAtMost(image);
    await loadvmHasPattern(image, 3);
  });

  test('of a QEMU that was killed in the middle makes no snapshot', async () => {
    const image = await makeImage(tmp('copy.qcow2'));
    await withMachine(tmp('qmp'), patternIn(tmp('pattern'), 4), async (machine) => {
      await machine.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 4 * 1024 * 1024 });
      const creating = migrateInto(machine, image);
      await waitFor('a part has come', async () => await transferred(machine) > 1_000_000);
      await machine.end();
      const { code, stdout, stderr } = await creating;
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toMatch(/^quiesce: [^\n]*the QEMU migration stream ended after \d+ bytes [^\n]*it was cut off[^\n]*\n$/);
    });
    expect(await snapshotNames(image)).toEqual([]);
    await leaksAtMost(image);
  });
});
