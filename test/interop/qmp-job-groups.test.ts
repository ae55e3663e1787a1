/** Transactions of backups with individual and grouped completion: every end of one beside every end of the other, finalized unasked and by hand, as in qemu-storage-daemon; what the bitmaps keep is among what is compared. */
import { expect, test } from '@jest/globals';
import { differences } from '../support/job-compare.js';
import { groupCells } from '../support/job-groups.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('backups of one transaction end as in qemu-storage-daemon', () => {
  test.each([[true, true], [true, false], [false, true], [false, false]])('grouped %s, finalized unasked %s', async (grouped, autoFinalize) => {
    expect(await differences(tmp, (folder) => groupCells(folder, grouped, autoFinalize))).toBe('');
  }, 120_000);
});
