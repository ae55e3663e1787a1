/** Power cuts during each kind of job under guests that write and flush: in the copy, in the change of places, in the moment in which it tells that it is ready or done. */
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { repository, runOk } from '../support/run.js';
import { CUT_KINDS } from './job-cuts.js';

const SEEDS = process.env['QUIESCE_CUT_SEEDS'] ?? '15';
const TIMEOUT_MS = 300_000;

test.each(CUT_KINDS)('%s: what guests flushed is there, images are leaky at worst, what the job told is true', async (kind) => {
  const told = await runOk(process.execPath, [
    join(repository, 'test', 'support', 'run-ts.cjs'), 'test/sim/jobs-main.ts', 'cuts', '--kind', kind, '--seeds', SEEDS, '--seconds', '100000',
  ], { timeoutMs: TIMEOUT_MS });
  expect(told).toMatch(/: cut.* \d+/);
}, TIMEOUT_MS + 10_000);
