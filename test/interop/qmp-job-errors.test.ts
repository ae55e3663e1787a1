/** Errors of disks below every kind of job, on each side, with each policy and errno: stopped, resumed, ignored and reported as by qemu-storage-daemon (trap J-12). */
import { expect, test } from '@jest/globals';
import { differences } from '../support/job-compare.js';
import { errorCells, FAILING, readHostOffsets } from '../support/job-errors.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();

peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('each policy does what it does in qemu-storage-daemon', () => {
  test.each(FAILING)('%s, where a %s fails', async (kind, request) => {
    expect(await differences(tmp, async (folder) => errorCells(folder, kind, request, await readHostOffsets(folder)))).toBe('');
  }, 120_000);
});
