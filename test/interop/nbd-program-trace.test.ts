/** `--trace`: the lines that qemu-nbd logs of a write, from us. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { whileRunning } from '../support/programs.js';
import { nbdLauncher, runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

/** Events of three writes: into a new cluster, in place, and into another one; places and names of requests differ. */
async function logged(program: string, name: string, ...trace: string[]): Promise<string[]> {
  const [socket, log] = [tmp(`${name}.socket`), tmp(`${name}.log`)];
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', tmp(name), '4M']);
  await whileRunning(program, [...trace, '-T', `file=${log}`, '-k', socket, tmp(name)], socket, async () => {
    await runOk('qemu-io', ['-f', 'raw', ...['write 0 64k', 'write 4k 4k', 'write 128k 8k'].flatMap((command) => ['-c', command]), `nbd+unix:///?socket=${socket}`]);
  });
  return readFileSync(log, 'utf8').trim().split('\n').map((line) => line.replaceAll(/(co|bs) 0x[\da-f]+/g, '$1 *'));
}

peers('qemu-nbd', 'qemu-img', 'qemu-io')('quiesce-nbd --trace', () => {
  test('logs what qemu-nbd does', async () => {
    writeFileSync(tmp('events'), 'qcow2_writev_*\n# all but one\n-qcow2_writev_data\n');
    const choice = ['-T', 'enable=bdrv_co_pwritev', '-T', '-bdrv_*', '-T', `events=${tmp('events')}`];
    const [theirs, ours] = [await logged('qemu-nbd', 'theirs', ...choice), await logged(nbdLauncher, 'ours', ...choice)];
    expect(ours).toEqual(theirs);
    expect(ours[0]).toBe('qcow2_writev_start_req co * offset 0x0 bytes 65536');
    expect(ours.length).toBeGreaterThan(10);
  }, 60_000);

  test('lists the events that there are', async () => {
    const [listed, also] = [await runOk(nbdLauncher, ['-T', 'help']), await runOk(nbdLauncher, ['--trace', 'enable=?'])];
    expect(listed).toBe(also);
    expect(listed.split('\n')).toContain('qcow2_writev_start_req');
    const known = new Set((await runOk('qemu-nbd', ['-T', 'help'])).split('\n').map((name) => name.trim()));
    // the founding article has these from another version of QEMU
    expect(listed.trim().split('\n').filter((name) => !known.has(name))).toEqual(['bdrv_co_preadv', 'bdrv_co_pwritev', 'qcow2_snapshot_create_finish']);
  });
});
