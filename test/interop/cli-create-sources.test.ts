/** `snapshot create`: RAM state from each kind of source comes back byte for byte, and QEMU finds the image sound. */
import { once } from 'node:events';
import { createWriteStream, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { expect, test } from '@jest/globals';
import { isThere } from '../support/listening.js';
import { expectRefused, leaksAtMost, makeImage, MiB, quiesceOk, snapshotNames, sleep, startQuiesce, waitFor } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { launcher, quiesce, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const STATE = randomBytes(5 * MiB + 12_345, 7);

async function expectState(image: string, tag: string): Promise<void> {
  await quiesceOk(['snapshot', 'extract', image, tag, '--vm-state', tmp('back')]);
  expect(readFileSync(tmp('back')).equals(STATE)).toBe(true);
  await runOk('qemu-img', ['check', '-q', '-f', 'qcow2', image]);
}

async function sendTo(socket: string, data: Uint8Array): Promise<void> {
  const stream = connect(socket);
  stream.end(data);
  stream.resume();
  await once(stream, 'close');
}

peers('qemu-img')('snapshot create takes RAM state', () => {
  test('from a file, with any chunk size, depth and cache mode', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    writeFileSync(tmp('ram'), STATE);
    const variants = [[], ['--chunk-size', '64K', '--depth', '1'], ['--chunk-size', '3M', '--depth', '3'], ['--cache', 'writeback'], ['--cache', 'directsync'], ['--cache', 'unsafe']];
    for (const [index, options] of variants.entries()) {
      const said = await quiesceOk(['snapshot', 'create', image, `t${index}`, '--vm-state', tmp('ram'), ...options]);
      expect(said).toBe(`snapshot 't${index}' of '${image}' is durable (id ${index + 1}, 5.01 MiB of RAM state)\n`);
      await expectState(image, `t${index}`);
    }
  });

  test('from standard input: a pipe, and a file read from where it stands', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    await quiesceOk(['snapshot', 'create', image, 'pipe', '--vm-state', '-'], { input: STATE });
    await expectState(image, 'pipe');
    writeFileSync(tmp('ram'), Buffer.concat([Buffer.alloc(1000), STATE]));
    await runOk('sh', ['-c', `{ head -c 1000 >/dev/null; exec "$0" snapshot create "$1" file --vm-state -; } < "$2"`, launcher, image, tmp('ram')]);
    await expectState(image, 'file');
  });

  test('from a FIFO whose writer comes later and pauses', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    await runOk('mkfifo', [tmp('fifo')]);
    const command = startQuiesce(['snapshot', 'create', image, 't', '--vm-state', tmp('fifo')]);
    await sleep(400);
    const writer = createWriteStream(tmp('fifo'));
    writer.write(STATE.subarray(0, 100_000));
    await sleep(200);
    writer.end(STATE.subarray(100_000));
    expect(await command.done).toMatchObject({ code: 0, stderr: '' });
    await expectState(image, 't');
  });

  test('from whoever connects to unix:PATH, whose name is gone then', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    const command = startQuiesce(['snapshot', 'create', image, 't', '--vm-state', `unix:${tmp('socket')}`]);
    await waitFor('it listens', () => isThere(tmp('socket')));
    await sendTo(tmp('socket'), STATE);
    expect(await command.done).toMatchObject({ code: 0, stderr: '' });
    expect(existsSync(tmp('socket'))).toBe(false);
    await expectState(image, 't');
  });

  test('with the clock and instruction count that were given, as QEMU lists them', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    const said = await quiesceOk(['snapshot', 'create', image, 't', '--vm-state', '-', '--vm-clock', '3723000000001', '--icount', '42', '--json'], { input: STATE });
    const { snapshots } = JSON.parse(await runOk('qemu-img', ['info', '--output=json', image])) as { snapshots: unknown[] };
    expect(snapshots).toMatchObject([{ name: 't', 'vm-state-size': STATE.byteLength, 'vm-clock-sec': 3723, 'vm-clock-nsec': 1, icount: 42 }]);
    expect(JSON.parse(said)).toEqual({ 'vm-state-size': STATE.byteLength, images: [{ filename: image, ...snapshots[0] as object }] });
  });

  test('but not an empty one, nor one that is the image itself', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    writeFileSync(tmp('empty'), '');
    await expectRefused(['snapshot', 'create', image, 't', '--vm-state', tmp('empty')], `'${tmp('empty')}' delivered no VM state`);
    await expectRefused(['snapshot', 'create', image, 't', '--vm-state', '/dev/null'], "'/dev/null' delivered no VM state");
    await expectRefused(['snapshot', 'create', image, 't', '--vm-state', image], 'is the image');
    const nothing = startQuiesce(['snapshot', 'create', image, 't', '--vm-state', `unix:${tmp('socket')}`]);
    await waitFor('it listens', () => isThere(tmp('socket')));
    await sendTo(tmp('socket'), Buffer.alloc(0));
    expect(await nothing.done).toMatchObject({ code: 1, stderr: expect.stringContaining('delivered no VM state') });
    expect(await snapshotNames(image)).toEqual([]);
    await leaksAtMost(image);
  });

  test('and without one it is a snapshot of the disk alone', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    expect(await quiesce(['snapshot', 'create', image, 't'])).toMatchObject({ code: 0, stdout: `snapshot 't' of '${image}' is durable (id 1)\n`, stderr: '' });
    await expectRefused(['snapshot', 'load', image, 't', '--vm-state', tmp('ram')], "snapshot 't' of");
    expect(existsSync(tmp('ram'))).toBe(false);
  });
});
