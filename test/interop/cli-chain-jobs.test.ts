/** `quiesce commit` and `quiesce stream`: on files, and on the nodes of a storage daemon, ours or QEMU's. */
import { mkdirSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { makeChain } from '../support/chain-images.js';
import { expectRefused, lastLine, quiesceOk, startQuiesce } from '../support/cli.js';
import { findOnPath, peers } from '../support/peers.js';
import { kill, run, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { appears } from '../support/listening.js';

const tmp = useTmp();

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('commit and stream', () => {
  async function newChain(): Promise<{ readonly folder: string; readonly flat: string }> {
    const folder = tmp(`chain-${Math.floor(performance.now() * 1000)}`);
    mkdirSync(folder);
    await makeChain(folder, '2M');
    const flat = `${folder}/flat.raw`;
    await runOk('qemu-img', ['convert', '-O', 'raw', `${folder}/top.qcow2`, flat]);
    return { folder, flat };
  }

  async function expectDisk(image: string, flat: string): Promise<void> {
    expect(await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', flat, image])).toContain('identical');
    expect(await runOk('qemu-img', ['check', image])).toContain('No errors');
  }

  async function backingOf(image: string): Promise<string | undefined> {
    return (JSON.parse(await runOk('qemu-img', ['info', '-U', '--output=json', image])) as { readonly 'backing-filename'?: string })['backing-filename'];
  }

  test('commit merges an overlay into the image below it, or further down into a smaller one', async () => {
    const { folder, flat } = await newChain();
    expect(await quiesceOk(['commit', `${folder}/top.qcow2`])).toBe(`committed '${folder}/top.qcow2' into '${folder}/mid.qcow2'\n`);
    await expectDisk(`${folder}/mid.qcow2`, flat);
    await expectDisk(`${folder}/top.qcow2`, flat);
    const told = lastLine(await quiesceOk(['commit', '--json', `${folder}/top.qcow2`, '--base', `${folder}/base.qcow2`]));
    expect(told).toMatchObject({ image: `${folder}/top.qcow2`, base: `${folder}/base.qcow2`, bytes: 4 * 2 ** 20 });
    await expectDisk(`${folder}/base.qcow2`, flat);
  });

  test('stream makes an image stand on a base, named as it named its own, and then alone', async () => {
    const { folder, flat } = await newChain();
    for (const name of ['mid', 'top']) await runOk('qemu-img', ['rebase', '-u', '-F', 'qcow2', '-b', name === 'mid' ? 'base.qcow2' : 'mid.qcow2', `${folder}/${name}.qcow2`]);
    await quiesceOk(['stream', `${folder}/top.qcow2`, '-b', `${folder}/base.qcow2`]);
    expect(await backingOf(`${folder}/top.qcow2`)).toBe('base.qcow2');
    await expectDisk(`${folder}/top.qcow2`, flat);
    expect(await quiesceOk(['stream', `${folder}/top.qcow2`])).toContain('stands alone now');
    expect(await backingOf(`${folder}/top.qcow2`)).toBeUndefined();
    await expectDisk(`${folder}/top.qcow2`, flat);
  });

  test('what cannot be done is said, and nothing is changed', async () => {
    const { folder, flat } = await newChain();
    await expectRefused(['commit', `${folder}/base.qcow2`], 'has no backing file to commit into');
    await expectRefused(['stream', `${folder}/top.qcow2`, '--base', 'nowhere.qcow2'], "'nowhere.qcow2' is not in the backing chain of");
    await expectRefused(['commit', '--backing', 'deny', `${folder}/top.qcow2`], 'backing files are denied');
    await expectDisk(`${folder}/top.qcow2`, flat);
  });

  test.each(['commit', 'stream'])('an interrupted %s leaves the disk as it was', async (verb) => {
    const { folder, flat } = await newChain();
    const running = startQuiesce([verb, `${folder}/top.qcow2`, '--base', `${folder}/base.qcow2`, '--speed', '1']);
    // the first piece is copied at once, the next one in years
    const changing = verb === 'commit' ? 'base' : 'top';
    const copied = async (): Promise<boolean> => (await run('qemu-img', ['map', '-U', '--output=json', `${folder}/${changing}.qcow2`])).stdout.includes('"start": 1048576, "length": 1048576, "depth": 0');
    for (let attempt = 0; attempt < 20 && !(await copied()); attempt++) await new Promise((resolve) => { setTimeout(resolve, 50); });
    running.child.kill('SIGINT');
    expect(await running.done).toMatchObject({ code: 130, stdout: '' });
    await expectDisk(`${folder}/top.qcow2`, flat);
    await runOk('qemu-img', ['check', `${folder}/base.qcow2`]);
  });

  test.each([['of QEMU', ''], ['of ours', storageDaemonLauncher]])('on the nodes of a daemon %s', async (_whose, ours) => {
    const { folder, flat } = await newChain();
    const socket = `${folder}/qmp.sock`;
    const child = start(ours === '' ? findOnPath('qemu-storage-daemon')! : ours, [
      ...['base', 'mid', 'top'].flatMap((name, index) => ['--blockdev',
        `qcow2,node-name=${name},file.driver=file,file.filename=${folder}/${name}.qcow2,read-only=${index < 2 ? 'on' : 'off'}${index === 0 ? '' : `,backing=${index === 1 ? 'base' : 'mid'}`}`]),
      '--chardev', `socket,id=m,path=${socket},server=on,wait=off`, '--monitor', 'chardev=m',
    ]);
    try {
      await appears(socket);
      expect(await quiesceOk(['stream', '--daemon', socket, 'top', '--base', 'base'])).toContain("'base'");
      expect(await backingOf(`${folder}/top.qcow2`)).toBe(`${folder}/base.qcow2`);
      await quiesceOk(['commit', '--daemon', socket, 'top']);
      await expectRefused(['stream', '--daemon', socket, 'none'], "Cannot find device='none' nor node-name='none'");
    } finally {
      await kill(child, 'SIGTERM');
    }
    await expectDisk(`${folder}/base.qcow2`, flat);
  });
});
