/** The matrix of verbs and states for some kinds of job, as a test file of its own: the workers of a test run share them out. */
import { describe, expect, test } from '@jest/globals';
import { differences } from './job-compare.js';
import { cell, JOB_VERBS, statesOf, verbName, type JobKind } from './job-matrix.js';
import { peers } from './peers.js';
import { useTmp } from './tmp.js';

export function jobMatrixSuite(...kinds: readonly JobKind[]): void {
  const tmp = useTmp();
  peers('qemu-img', 'qemu-io', 'qemu-storage-daemon')('each verb in each state is answered as by qemu-storage-daemon, event by event', () => {
    for (const kind of kinds) {
      describe(kind, () => {
        test.each(statesOf(kind))('%s', async (state) => {
          expect(await differences(tmp, (folder) => JOB_VERBS.map((verb) => ({ name: verbName(verb), steps: cell(folder, kind, state, verb) })))).toBe('');
        }, 120_000);
      });
    }
  });
}
