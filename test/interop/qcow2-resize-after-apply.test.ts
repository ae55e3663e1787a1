/** QEMU's loadvm and `snapshot -a` leave the VM state in the active table, above the disk. */
import { expect, test } from '@jest/globals';
import { createImage } from '../../src/index.js';
import { qemuFindsNothing, snapshotsOf, weFindNothing, withImage } from '../support/agree.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const KiB = 1024;

peers('qemu-img')('an image that QEMU reverted to a snapshot with VM state', () => {
  test('V-11: does not show that state when the disk grows over it', async () => {
    const path = tmp('image.qcow2');
    await createImage(path, { format: 'qcow2', size: 64 * KiB, clusterSize: 512 });
    await withImage(path, {}, async (node) => {
      await node.driver.vmState!.save(0, new Uint8Array(100 * KiB).fill(0x77));
      await snapshotsOf(node).create({ name: 's', vmStateSize: 100 * KiB, dateSeconds: 0, dateNanoseconds: 0 });
    });
    await runOk('qemu-img', ['snapshot', '-a', 's', path]);
    await withImage(path, {}, async (node) => {
      await node.drained(() => node.driver.resize!(300 * KiB));
      const disk = new Uint8Array(300 * KiB);
      await node.read(0, disk);
      expect(disk.every((byte) => byte === 0)).toBe(true);
    });
    await weFindNothing(path);
    await qemuFindsNothing(path);
  });
});
