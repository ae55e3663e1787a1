import { join } from 'node:path';
import { test } from '@jest/globals';
import { repository, runOk } from '../support/run.js';

const TIMEOUT_MS = 300_000;

/** In a process of its own, as the crash simulator. */
export function faultsSuite(setting: string): void {
  test(`V-1: every I/O fails once with EIO and once with ENOSPC: ${setting}`, async () => {
    const runner = join(repository, 'test', 'support', 'run-ts.cjs');
    await runOk(process.execPath, [runner, 'test/sim/faults-main.ts', setting], { timeoutMs: TIMEOUT_MS });
  }, TIMEOUT_MS + 10_000);
}
