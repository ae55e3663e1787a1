/** Ctrl-C and SIGTERM: the image is as before, nothing lies about, and the exit code is the shell's. */
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { connect } from 'node:net';
import { expect, test } from '@jest/globals';
import { isThere } from '../support/listening.js';
import { leaksAtMost, makeImage, MiB, quiesceOk, sleep, snapshotNames, startQuiesce, waitFor, type RunningCommand } from '../support/cli.js';
import { drive, withMachine } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { runOk, type RunResult } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const SIGNALS = [['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129]] as const;

/** The command ends with the signal's code and one line, and leaves only the files that were there. */
async function endsBy(command: RunningCommand, signal: NodeJS.Signals, code: number): Promise<RunResult> {
  const files = readdirSync(tmp()).filter((name) => name !== 'socket' && !name.startsWith('.')).toSorted();
  command.child.kill(signal);
  const result = await command.done;
  expect(result).toMatchObject({ code, stdout: '' });
  expect(result.stderr).toMatch(/^quiesce: [^\n]+\n$/);
  expect(readdirSync(tmp()).toSorted()).toEqual(files);
  return result;
}

peers('qemu-img', 'qemu-io')('a signal', () => {
  test.each(SIGNALS)('%s in the middle of snapshot create ends it with %d', async (signal, code) => {
    const image = await makeImage(tmp('disk.qcow2'));
    await quiesceOk(['snapshot', 'create', image, 'before']);
    const command = startQuiesce(['snapshot', 'create', image, 't', '--vm-state', '-']);
    command.child.stdin!.write(randomBytes(9 * MiB, 1));
    await waitFor('RAM state is written', async () => Number(await runOk('stat', ['-c', '%s', image])) > 4 * MiB);
    await endsBy(command, signal, code);
    expect(await snapshotNames(image)).toEqual(['before']);
    await leaksAtMost(image);
  });

  test('while snapshot create waits for a connection removes the socket', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    const command = startQuiesce(['snapshot', 'create', image, 't', '--vm-state', `unix:${tmp('socket')}`]);
    await waitFor('it listens', () => isThere(tmp('socket')));
    await sleep(50);
    const { stderr } = await endsBy(command, 'SIGINT', 130);
    expect(stderr).toContain('waiting for a connection');
    await runOk('qemu-img', ['check', '-q', image]);
  });

  test('while a spool fills leaves none, and the machine keeps its image', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    await withMachine(tmp('qmp'), ['-S', ...drive(image)], async () => {
      const command = startQuiesce(['snapshot', 'create', image, 't', '--vm-state', `unix:${tmp('socket')}`]);
      await waitFor('it listens', () => isThere(tmp('socket')));
      const sender = connect(tmp('socket'));
      sender.on('error', () => undefined);
      sender.write(randomBytes(3 * MiB, 2));
      await waitFor('it has taken the connection', () => !existsSync(tmp('socket')));
      await sleep(100);
      await endsBy(command, 'SIGINT', 130);
      sender.destroy();
    });
    expect(await snapshotNames(image)).toEqual([]);
    await runOk('qemu-img', ['check', '-q', image]);
  });

  test.each(SIGNALS)('%s in the middle of snapshot load leaves the disk as it was and no half a file', async (signal, code) => {
    const image = await makeImage(tmp('disk.qcow2'));
    writeFileSync(tmp('ram'), randomBytes(12 * MiB, 3));
    await quiesceOk(['snapshot', 'create', image, 't', '--vm-state', tmp('ram')]);
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x22 0 1M', image]);
    await runOk('mkfifo', [tmp('fifo')]);
    // a reader that takes a little and then stops
    const command = startQuiesce(['snapshot', 'load', image, 't', '--vm-state', tmp('fifo')]);
    const reader = await open(tmp('fifo'), 'r');
    await reader.read(Buffer.alloc(MiB), 0, MiB);
    await endsBy(command, signal, code);
    await reader.close();
    expect(await runOk('qemu-io', ['-r', '-f', 'qcow2', '-c', 'read -P 0x22 0 1M', image])).not.toContain('verification failed');
    await runOk('qemu-img', ['check', '-q', image]);
  });

  test('while a file is loaded leaves the old one', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    await runOk('truncate', ['-s', '400M', tmp('ram')]);
    await quiesceOk(['snapshot', 'create', image, 't', '--vm-state', tmp('ram'), '--cache', 'unsafe']);
    writeFileSync(tmp('out'), 'old');
    const command = startQuiesce(['snapshot', 'extract', image, 't', '--vm-state', tmp('out')]);
    await waitFor('it writes', () => readdirSync(tmp()).some((name) => name.startsWith('.out.')));
    await endsBy(command, 'SIGINT', 130);
    expect(await runOk('cat', [tmp('out')])).toBe('old');
  });
});
