/**
 * A share of the seeds as one test file, so that the workers of a test run divide them. The simulator runs in a process
 * of its own: inside the test runner's sandbox it takes ten times as long.
 */
import { join } from 'node:path';
import { test } from '@jest/globals';
import { peers } from '../support/peers.js';
import { repository, runOk } from '../support/run.js';

const TIMEOUT_MS = 300_000;

async function simulate(...args: readonly string[]): Promise<void> {
  await runOk(process.execPath, [join(repository, 'test', 'support', 'run-ts.cjs'), 'test/sim/main.ts', ...args], { timeoutMs: TIMEOUT_MS });
}

export function crashSuite(from: number, seeds: number): void {
  test(`V-9: a power cut at any point leaves leaks at most, ${seeds} seeds from ${from} on`, async () => {
    await simulate('--from', String(from), '--seeds', String(seeds));
  }, TIMEOUT_MS + 10_000);

  peers('qemu-img', 'qemu-io')('QEMU', () => {
    test(`repairs and reads what a power cut left, every 40th seed from ${from} on`, async () => {
      await simulate('--from', String(from), '--seeds', String(seeds), '--every', '40', '--qemu');
    }, TIMEOUT_MS + 10_000);
  });
}
