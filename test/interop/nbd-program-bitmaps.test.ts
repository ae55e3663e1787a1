/** `-B`: what quiesce-nbd exports of an image's dirty bitmaps, and what it refuses, is what qemu-nbd does. */
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { disappears } from '../support/programs.js';
import { nbdLauncher, run, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

async function exported(program: string, ...args: readonly string[]): Promise<unknown> {
  const { code, stderr } = await run(program, ['--fork', '--pid-file', tmp('pid'), '-t', '-k', tmp('s'), ...args, tmp('disk')]);
  if (code !== 0) return stderr.replaceAll('quiesce-nbd', 'qemu-nbd');
  const pid = Number(readFileSync(tmp('pid'), 'utf8'));
  try {
    return await runOk('nbdinfo', ['--map=qemu:dirty-bitmap:b0', `nbd+unix:///?socket=${tmp('s')}`]);
  } finally {
    process.kill(pid, 'SIGTERM');
    await disappears(`/proc/${pid}`);
  }
}

peers('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo')('quiesce-nbd -B', () => {
  test('shows the bitmap as qemu-nbd does, and refuses the same', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp('disk'), '4M']);
    await runOk('qemu-img', ['bitmap', '--add', tmp('disk'), 'b0']);
    await runOk('qemu-img', ['bitmap', '--add', '--disable', tmp('disk'), 'b1']);
    await runOk('qemu-io', ['-c', 'write 1M 64k', '-c', 'write 3M 128k', tmp('disk')]);
    for (const args of [['-B', 'b0'], ['-r', '-B', 'b0', '-B', 'b1'], ['-B', 'none'], ['-B', 'b0', '-B', 'b0']]) {
      const theirs = await exported('qemu-nbd', ...args);
      await runOk('rm', ['-f', tmp('s')]);
      expect({ args, told: await exported(nbdLauncher, ...args) }).toEqual({ args, told: theirs });
      if (args[0] === '-B' && args.length === 2 && args[1] === 'b0') expect(theirs).toMatch(/1048576 +65536 +1 +dirty/);
    }
  });
});
