/** blockdev-del of a node that cannot bring its tables to the disk: the node is gone, and only who reads the errors hears of it. */
import type { ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { afterEach, expect, test } from '@jest/globals';
import { NbdClient, QmpClient } from '../../src/index.js';
import { leaksAtMost, makeImage, waitFor } from '../support/cli.js';
import { peers } from '../support/peers.js';
import { kill, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const daemons: ChildProcess[] = [];
afterEach(async () => {
  for (const child of daemons.splice(0)) await kill(child);
});

peers('qemu-storage-daemon', 'qemu-img')('blockdev-del of a node whose close fails', () => {
  test.each([['qemu-storage-daemon'], [storageDaemonLauncher]])('%s: it succeeds, and tells of the failure on standard error', async (program) => {
    const image = await makeImage(tmp('disk.qcow2'), '8M');
    writeFileSync(tmp('rules'), ['l2_update', 'refblock_update_part'].map((event) => `[inject-error]\nevent = "${event}"\niotype = "write"\nerrno = "28"\nonce = "off"\n`).join(''));
    const child = start(program, [
      '--chardev', `socket,id=c,path=${tmp('qmp')},server=on,wait=off`, '--monitor', 'c', '--nbd-server', `addr.type=unix,addr.path=${tmp('s')}`,
      '--blockdev', `driver=qcow2,node-name=n,file.driver=blkdebug,file.config=${tmp('rules')},file.image.driver=file,file.image.filename=${image}`,
      '--export', 'nbd,id=e,node-name=n,writable=on',
    ]);
    daemons.push(child);
    let errors = '';
    child.stderr!.on('data', (data: Buffer) => { errors += data.toString(); });
    await waitFor('it is written to', () => NbdClient.open({ address: { type: 'unix', path: tmp('s') }, exportName: 'n' }).then(async (client) => {
      await client.write(0, new Uint8Array(65_536).fill(1)).catch(() => {}); // QEMU writes refcounts at once
      await client.close();
      return true;
    }, () => false));
    const qmp = await QmpClient.connect(tmp('qmp'));
    await qmp.execute('block-export-del', { id: 'e', mode: 'hard' });
    await waitFor('the export is gone', async () => (await qmp.execute('query-block-exports') as unknown[]).length === 0);
    expect(await qmp.execute('blockdev-del', { 'node-name': 'n' })).toEqual({});
    expect(await qmp.execute('query-named-block-nodes')).toEqual([]);
    await expect(qmp.execute('blockdev-del', { 'node-name': 'n' })).rejects.toThrow("Failed to find node with node-name='n'");
    qmp.close();
    await waitFor('it tells', () => /^[^\n]*Failed to [^\n]*: No space left on device\n/m.test(errors));
    await leaksAtMost(image);
  });
});
