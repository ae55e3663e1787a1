/** Ctrl-C of a command whose job a daemon runs, ours or QEMU's: the job is gone, the daemon goes on, and the disk is what it was. */
import { expect, test } from '@jest/globals';
import { makeChain } from '../support/chain-images.js';
import { makeImage, monitorOf, startQuiesce, waitFor } from '../support/cli.js';
import { findOnPath, peers } from '../support/peers.js';
import { kill, runOk, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const COMMANDS = [['commit', 'top', '--base', 'base'], ['stream', 'top', '--base', 'base'], ['backup', 'top', 'copy'], ['mirror', 'top', 'copy']];
const CASES = COMMANDS.flatMap((words) => [['ours', words], ["QEMU's", words]] as const);

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('Ctrl-C', () => {
  test.each(CASES)('a daemon of %s: %j', async (whose, words) => {
    await makeChain(tmp(), '2M');
    await runOk('qemu-img', ['convert', '-O', 'raw', tmp('top.qcow2'), tmp('flat.raw')]);
    await makeImage(tmp('copy.qcow2'), '4M');
    const child = start(whose === 'ours' ? storageDaemonLauncher : findOnPath('qemu-storage-daemon')!, [
      ...['base', 'mid', 'top'].flatMap((name, index) => ['--blockdev',
        `qcow2,node-name=${name},file.driver=file,file.filename=${tmp(`${name}.qcow2`)},read-only=${index < 2 ? 'on' : 'off'}${index === 0 ? '' : `,backing=${index === 1 ? 'base' : 'mid'}`}`]),
      '--blockdev', `qcow2,node-name=copy,file.driver=file,file.filename=${tmp('copy.qcow2')}`,
      ...['qmp', 'own'].flatMap((name) => ['--chardev', `socket,id=${name},path=${tmp(name)},server=on,wait=off`, '--monitor', `chardev=${name}`]),
    ]);
    try {
      const qmp = await monitorOf(tmp('own'));
      const running = startQuiesce([...words, '--daemon', tmp('qmp'), '--speed', '1']);
      await waitFor('it runs', async () => (await qmp.execute('query-jobs') as { status: string }[])[0]?.status === 'running');
      running.child.kill('SIGINT');
      expect(await running.done).toMatchObject({ code: 130, stdout: '', stderr: 'quiesce: interrupted by SIGINT\n' });
      expect(await qmp.execute('query-jobs')).toEqual([]);
      qmp.close();
    } finally {
      await kill(child, 'SIGTERM');
    }
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', tmp('flat.raw'), tmp('top.qcow2')]);
    for (const name of ['base', 'mid', 'top', 'copy']) await runOk('qemu-img', ['check', '-q', tmp(`${name}.qcow2`)]);
  });
});
