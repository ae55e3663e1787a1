/**
 * Block jobs under random guests, for a minute altogether; `QUIESCE_MODEL_SECONDS=7200` makes it two hours, and
 * `QUIESCE_MODEL_FROM=S` begins at another seed. It runs in a process of its own, as the crash simulator does.
 */
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { MODEL_KINDS } from '../support/job-model.js';
import { repository, runOk } from '../support/run.js';

const SECONDS = Number(process.env['QUIESCE_MODEL_SECONDS'] ?? 60);
const FROM = process.env['QUIESCE_MODEL_FROM'] ?? '1';
const TIMEOUT_MS = SECONDS * 1000 + 240_000;

test.each(MODEL_KINDS)('%s: guests read what they wrote, copies are equal, instants are kept', async (kind) => {
  const told = await runOk(process.execPath, [
    join(repository, 'test', 'support', 'run-ts.cjs'), 'test/sim/jobs-main.ts', 'models', '--kind', kind, '--from', FROM, '--seconds', String(SECONDS / MODEL_KINDS.length),
  ], { timeoutMs: TIMEOUT_MS });
  expect(told).toMatch(/completed \d+/);
}, TIMEOUT_MS + 10_000);
