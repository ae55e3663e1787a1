/** A migration stream of a real QEMU that ends early makes no snapshot, wherever it was cut; whole, it makes one. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { expectRefused, leaksAtMost, makeImage, quiesceOk, snapshotNames } from '../support/cli.js';
import { patternIn, waitForState, withMachine } from '../support/machine-ram.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

/** What `migrate exec:cat` writes. */
async function streamOfQemu(): Promise<Buffer> {
  await withMachine(tmp('qmp'), ['-S', ...patternIn(tmp('pattern'), 1)], async ({ qmp }) => {
    await qmp.execute('migrate', { uri: `exec:cat > ${tmp('stream')}` });
    await waitForState(qmp, 'postmigrate');
  });
  return readFileSync(tmp('stream'));
}

peers('qemu-system-x86_64', 'qemu-img')('a migration stream', () => {
  test('that was cut off anywhere is refused, and the image keeps the snapshots that it had', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    await quiesceOk(['snapshot', 'create', image, 'before', '--vm-state', '-'], { input: 'opaque' });
    const stream = await streamOfQemu();
    const cuts = [4, 1000, 1024 * 1024, stream.byteLength / 2, stream.byteLength - 20_000, stream.byteLength - 1];
    for (const cut of cuts.map(Math.floor)) {
      writeFileSync(tmp('cut'), stream.subarray(0, cut));
      await expectRefused(['snapshot', 'create', image, 't', '--vm-state', tmp('cut')], `the QEMU migration stream ended after ${cut} bytes`);
      expect(await snapshotNames(image)).toEqual(['before']);
      await leaksAtMost(image);
    }
    writeFileSync(tmp('cut'), Buffer.concat([stream, Buffer.alloc(1)]));
    await expectRefused(['snapshot', 'create', image, 't', '--vm-state', tmp('cut')], 'the QEMU migration stream ended after');
    await quiesceOk(['snapshot', 'create', image, 't', '--vm-state', tmp('stream')]);
    expect(await snapshotNames(image)).toEqual(['before', 't']);
    await quiesceOk(['snapshot', 'extract', image, 't', '--vm-state', tmp('back')]);
    expect(readFileSync(tmp('back')).equals(stream)).toBe(true);
    await leaksAtMost(image);
  });

  test('of another program has no mark at its end, and is taken as it is', async () => {
    const image = await makeImage(tmp('disk.qcow2'));
    for (const [index, input] of ['x', 'QEV', 'QEVm and more', '\0\0\0\0'].entries()) {
      await quiesceOk(['snapshot', 'create', image, `t${index}`, '--vm-state', '-'], { input });
      expect(await quiesceOk(['snapshot', 'extract', image, `t${index}`, '--vm-state', '-'])).toBe(input);
    }
  });
});
