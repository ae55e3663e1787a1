/** `--object` on the command line of the daemon: help and refusals as qemu-storage-daemon prints them. */
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { repository, run } from '../support/run.js';

const ours = join(repository, 'cli', 'quiesce-storage-daemon');

peers('qemu-storage-daemon')('as qemu-storage-daemon', () => {
  test.each([
    ['help'], ['secret,help'], ['throttle-group,help'], ['tls-creds-x509,help'], ['nope,help'], ['secret,id=s'], ['secret,id=s,data=a,format=x'],
    ['throttle-group,id=t,limits.iops-total=1,limits.iops-read=1'], ['{"qom-type":"iothread","id":1}'],
  ])('--object %s', async (text) => {
    const told = await run('qemu-storage-daemon', ['--object', text]);
    const { code, stdout, stderr } = await run(ours, ['--object', text]);
    expect({ code, stdout, stderr: stderr.replace('quiesce-storage-daemon', 'qemu-storage-daemon') }).toEqual({ code: told.code, stdout: told.stdout, stderr: told.stderr });
  });
});
