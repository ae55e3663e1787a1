import { join } from 'node:path';
import { test } from '@jest/globals';
import { repository, runOk } from '../support/run.js';

const TIMEOUT_MS = 300_000;

test('damaged images give typed errors, take less than 256 MiB and do not hang', async () => {
  const runner = join(repository, 'test', 'support', 'run-ts.cjs');
  await runOk(process.execPath, [runner, 'test/fuzz/main.ts', '--seeds', '250'], { timeoutMs: TIMEOUT_MS });
}, TIMEOUT_MS + 10_000);
