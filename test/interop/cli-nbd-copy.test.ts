/** `quiesce nbd copy`: between files and the servers of others, as qemu-img compares them. */
import { existsSync, statSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { expectRefused, makeImage, quiesceOk } from '../support/cli.js';
import { qemuNbdArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const MiB = 1 << 20;

peers('qemu-img', 'qemu-io', 'qemu-nbd')('with qemu-nbd', () => {
  const startPeer = useNbdPeers();

  async function makeSource(): Promise<string> {
    const image = await makeImage(tmp('source.qcow2'), '64M');
    await runOk('qemu-io', ['-c', 'write -P 1 1M 3M', '-c', 'write -P 2 40M 100k', '-c', 'write -z 50M 1M', image]);
    return image;
  }

  async function expectSame(one: string, other: string): Promise<void> {
    expect(await runOk('qemu-img', ['compare', '-U', one, other])).toContain('Images are identical');
  }

  test('an export into a new qcow2 file, that into a raw file, each sparse', async () => {
    const source = await makeSource();
    const { socket } = await startPeer('qemu-nbd', ['-f', 'qcow2', '-r', '-t', '-e', '8', '-x', 'disk', '-k', tmp('s'), source], tmp('s'));
    const summary = JSON.parse(await quiesceOk(['nbd', 'copy', '--json', `nbd+unix:///disk?socket=${socket}`, tmp('made.qcow2')])) as unknown;
    expect(summary).toMatchObject({ bytes: 64 * MiB, copied: expect.any(Number), zeroed: expect.any(Number), target: tmp('made.qcow2') });
    await runOk('qemu-img', ['check', '-q', '-f', 'qcow2', tmp('made.qcow2')]);
    await expectSame(source, tmp('made.qcow2'));
    expect(statSync(tmp('made.qcow2')).size).toBeLessThan(6 * MiB);
    expect(await quiesceOk(['nbd', 'copy', tmp('made.qcow2'), tmp('made.raw')])).toContain('copied 64 MiB: ');
    await expectSame(source, tmp('made.raw'));
    expect(statSync(tmp('made.raw')).blocks * 512).toBeLessThan(6 * MiB);
  });

  test('into an export, over what was there', async () => {
    const source = await makeSource();
    await runOk('qemu-img', ['create', '-q', '-f', 'raw', tmp('target.raw'), '64M']);
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 9 0 64M', tmp('target.raw')]);
    const { socket, stop } = await startPeer('qemu-nbd', qemuNbdArgs(tmp('s'), tmp('target.raw')), tmp('s'));
    await quiesceOk(['nbd', 'copy', '--connections', '2', '--requests', '4', '--request-size', '256K', source, `nbd+unix:///?socket=${socket}`]);
    await stop();
    await expectSame(source, tmp('target.raw'));
  });

  test('a target that is too small is refused and left as it was', async () => {
    const source = await makeSource();
    await runOk('qemu-img', ['create', '-q', '-f', 'raw', tmp('small.raw'), '1M']);
    const { socket } = await startPeer('qemu-nbd', qemuNbdArgs(tmp('s'), tmp('small.raw')), tmp('s'));
    await expectRefused(['nbd', 'copy', source, `nbd+unix:///?socket=${socket}`], `${MiB} bytes, too few for the ${64 * MiB} bytes`);
    await makeImage(tmp('small.qcow2'), '1M');
    await expectRefused(['nbd', 'copy', '-n', source, tmp('small.qcow2')], 'too few');
    expect(await runOk('qemu-img', ['info', tmp('small.qcow2')])).toContain('virtual size: 1 MiB');
  });

  test('with --existing a file that is there is written into', async () => {
    const source = await makeSource();
    await makeImage(tmp('there.qcow2'), '64M');
    await runOk('qemu-io', ['-c', 'write -P 9 0 64M', tmp('there.qcow2')]);
    await runOk('qemu-img', ['snapshot', '-c', 'before', tmp('there.qcow2')]);
    await quiesceOk(['nbd', 'copy', '--existing', source, tmp('there.qcow2')]);
    await expectSame(source, tmp('there.qcow2'));
    expect(await runOk('qemu-img', ['snapshot', '-l', tmp('there.qcow2')])).toContain('before');
  });

  test('a compressed image, into an export and from one export into another', async () => {
    const source = await makeSource();
    await runOk('qemu-img', ['convert', '-c', '-O', 'qcow2', source, tmp('small.qcow2')]);
    for (const name of ['t1', 't2']) {
      await makeImage(tmp(`${name}.qcow2`), '64M');
      await startPeer('qemu-nbd', ['-f', 'qcow2', '-t', '-e', '8', '-k', tmp(name), tmp(`${name}.qcow2`)], tmp(name));
    }
    await quiesceOk(['nbd', 'copy', tmp('small.qcow2'), `nbd+unix:///?socket=${tmp('t1')}`]);
    await quiesceOk(['nbd', 'copy', `nbd+unix:///?socket=${tmp('t1')}`, `nbd+unix:///?socket=${tmp('t2')}`]);
    for (const name of ['t1', 't2']) expect(await runOk('qemu-img', ['compare', '-U', source, tmp(`${name}.qcow2`)])).toContain('identical');
  });

  test('an image is not copied onto itself', async () => {
    const source = await makeSource();
    await expectRefused(['nbd', 'copy', source, tmp('./source.qcow2')], 'are the same image');
    await runOk('ln', [source, tmp('link.qcow2')]);
    await expectRefused(['nbd', 'copy', source, tmp('link.qcow2')], 'are the same image');
    await runOk('qemu-io', ['-r', '-c', 'read -P 1 1M 3M', source]);
  });
});

test('what was begun and failed is not left behind', async () => {
  await expectRefused(['nbd', 'copy', tmp('none.qcow2'), tmp('new.qcow2')], /none\.qcow2/);
  expect(existsSync(tmp('new.qcow2'))).toBe(false);
});
