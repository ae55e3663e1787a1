/** Beside a machine that runs on the image: list, info and extract with -U; everything else is refused by its lock. */
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { expectRefused, isLocked, makeImage, MiB, quiesceOk, startQuiesce, waitFor } from '../support/cli.js';
import { drive, withMachine } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { kill, run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const STATE = randomBytes(2 * MiB, 1);

async function imageWithState(): Promise<string> {
  const image = await makeImage(tmp('disk.qcow2'));
  await quiesceOk(['snapshot', 'create', image, 't', '--vm-state', '-'], { input: STATE });
  return image;
}

function lockError(image: string, lock: string): string {
  return `Could not open '${image}': Failed to get ${lock} lock (Is another process using the image [${image}]?)`;
}

peers('qemu-system-x86_64', 'qemu-img', 'qemu-io')('an image in use', () => {
  test('by a machine is listed, described and read with -U only, and changed not at all', async () => {
    const image = await imageWithState();
    await withMachine(tmp('qmp'), drive(image), async () => {
      const listed = JSON.parse(await quiesceOk(['snapshot', 'list', '-U', '--json', image])) as unknown;
      const { snapshots } = JSON.parse(await runOk('qemu-img', ['info', '-U', '--output=json', image])) as { snapshots: unknown };
      expect(listed).toEqual(snapshots);
      expect(await quiesceOk(['snapshot', 'list', '-U', image])).toMatch(/^ID +TAG +VM SIZE +DATE +VM CLOCK +ICOUNT\n1 +t +2 MiB +\S+ \S+ +00:00:00\.000\n$/);
      await quiesceOk(['snapshot', 'extract', '-U', image, 't', '--vm-state', tmp('ram')]);
      expect(readFileSync(tmp('ram')).equals(STATE)).toBe(true);
      const reading = lockError(image, 'shared "write"');
      await expectRefused(['snapshot', 'list', image], reading);
      await expectRefused(['snapshot', 'extract', image, 't', '--vm-state', tmp('other')], reading);
      const writing = lockError(image, '"write"');
      for (const verb of ['create', 'revert', 'delete']) await expectRefused(['snapshot', verb, image, 't'], writing);
      await expectRefused(['snapshot', 'create', image, 'new', '--vm-state', tmp('ram')], writing);
      await expectRefused(['snapshot', 'load', image, 't', '--vm-state', tmp('other')], writing);
      expect(existsSync(tmp('other'))).toBe(false);
    });
    await runOk('qemu-img', ['check', '-q', image]);
  });

  test('by us is not opened by QEMU until we are done', async () => {
    const image = await imageWithState();
    const command = startQuiesce(['snapshot', 'create', image, 'slow', '--vm-state', '-']);
    await waitFor('it holds the image', () => isLocked(image));
    expect((await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', image])).stderr).toContain('Failed to get "write" lock');
    expect((await run('qemu-system-x86_64', ['-machine', 'none', '-display', 'none', '-nodefaults', '-blockdev', `qcow2,node-name=d,file.driver=file,file.filename=${image}`])).stderr).toContain('lock');
    await expectRefused(['snapshot', 'create', image, 'other'], lockError(image, '"write"'));
    command.child.stdin!.end('opaque state');
    expect(await command.done).toMatchObject({ code: 0 });
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', image]);
  });

  test('by a reader is not changed by us', async () => {
    const image = await imageWithState();
    await runOk('mkfifo', [tmp('fifo')]);
    const reader = startQuiesce(['snapshot', 'extract', image, 't', '--vm-state', tmp('fifo')]);
    await waitFor('it holds the image', () => isLocked(image));
    expect((await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', image])).stderr).toContain('Failed to get "write" lock');
    await expectRefused(['snapshot', 'delete', image, 't'], lockError(image, '"write"'));
    await kill(reader.child);
    await quiesceOk(['snapshot', 'delete', image, 't']);
  });
});
