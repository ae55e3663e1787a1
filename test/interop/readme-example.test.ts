/** The programs that README shows run as they stand there, against the package as it is installed, and QEMU finds what they promise. */
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { QmpClient } from '../../src/index.js';
import { MiB, snapshotNames } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { randomBytes } from '../support/random-bytes.js';
import { kill, repository, run, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';
import { appears } from '../support/listening.js';

const tmp = useTmp();
const programs = [...readFileSync(join(repository, 'README.md'), 'utf8').matchAll(/^```js\n(.*?)^```$/gms)].map((match) => match[1]!);

async function runProgram(code: string): Promise<string> {
  mkdirSync(tmp('node_modules'), { recursive: true });
  symlinkSync(repository, tmp('node_modules/quiesce'));
  writeFileSync(tmp('program.mjs'), code);
  const { code: exit, stdout, stderr } = await run(process.execPath, ['program.mjs'], { cwd: tmp(), timeoutMs: 60_000 });
  expect([exit, stderr]).toEqual([0, '']);
  return stdout;
}

function compare(one: string, other: string): Promise<string> {
  return runOk('qemu-img', ['compare', '-U', '-f', 'qcow2', '-F', 'qcow2', tmp(one), tmp(other)]);
}

test('README shows an image, and jobs', () => {
  expect(programs.map((code) => [code.includes('createImage('), code.includes('mirrorOverQmp(')])).toEqual([[true, false], [false, true]]);
});

peers('qemu-img', 'qemu-io')('what README shows', () => {
  test('of images', async () => {
    writeFileSync(tmp('ram.bin'), randomBytes(MiB, 1));
    await runProgram(programs[0]!);
    expect(await snapshotNames(tmp('disk.qcow2'))).toEqual(['one']);
    await runOk('qemu-io', ['-r', '-f', 'qcow2', '-c', 'read -v 4096 16', tmp('disk.qcow2')]).then((out) => expect(out).toContain('hello'));
    await runOk('qemu-img', ['check', '-q', tmp('disk.qcow2')]);
  });

  test('of jobs', async () => {
    for (const name of ['disk', 'base', 'live']) {
      await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp(`${name}.qcow2`), '8M']);
      await runOk('qemu-io', ['-f', 'qcow2', '-c', `write -q -P ${name.length} 1M 3M`, tmp(`${name}.qcow2`)]);
    }
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', tmp('base.qcow2'), '-F', 'qcow2', tmp('overlay.qcow2')]);
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 77 2M 1M', tmp('overlay.qcow2')]);
    await runOk('qemu-img', ['convert', '-O', 'qcow2', tmp('overlay.qcow2'), tmp('flat.qcow2')]);
    const daemon = start(storageDaemonLauncher, [
      '--blockdev', `qcow2,node-name=disk0,file.driver=file,file.filename=${tmp('live.qcow2')}`, '--chardev', `socket,id=m,path=${tmp('qmp.sock')},server=on,wait=off`, '--monitor', 'chardev=m',
      '--nbd-server', `addr.type=unix,addr.path=${tmp('nbd')}`, '--export', 'nbd,id=e,node-name=disk0,name=d,writable=on',
    ]);
    try {
      await appears(tmp('qmp.sock'));
      expect(await runProgram(programs[1]!)).toMatch(/^\d+ of \d+ bytes$/m);
      // users of the node go on with the copy
      await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 99 6M 64k', `nbd+unix:///d?socket=${tmp('nbd')}`]);
      const qmp = await QmpClient.connect(tmp('qmp.sock'));
      await qmp.execute('quit');
      qmp.close();
    } finally {
      await kill(daemon, 'SIGTERM');
    }
    await compare('disk.qcow2', 'monday.qcow2');
    await compare('disk.qcow2', 'copy.qcow2');
    await compare('flat.qcow2', 'overlay.qcow2');
    expect(await runOk('qemu-img', ['info', tmp('overlay.qcow2')])).not.toContain('backing file');
    await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 99 6M 64k', tmp('live.qcow2')]);
    await compare('live.qcow2', 'moved.qcow2');
  });
});
