import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { findOnPath } from '../../support/peers.js';
import { repository, run } from '../../support/run.js';

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly testResults: readonly { readonly assertionResults: readonly { readonly fullName: string }[] }[];
}

async function runExample(ci: string): Promise<Report> {
  const jest = join(repository, 'node_modules', 'jest', 'bin', 'jest.js');
  const args = ['--experimental-vm-modules', jest, '--json', '--testMatch', '**/test/support/peers-example.ts'];
  const { stdout } = await run(process.execPath, args, { env: { CI: ci, NODE_OPTIONS: '' }, cwd: repository });
  return JSON.parse(stdout) as Report;
}

test('tests that miss a program are skipped by name', async () => {
  const report = await runExample('');
  expect(report).toMatchObject({ numPassedTests: 0, numFailedTests: 0, numPendingTests: 1 });
  expect(report.testResults[0]!.assertionResults[0]!.fullName).toBe('with a program [skipped: needs no-such-program] it');
});

test('and fail in CI', async () => {
  expect(await runExample('true')).toMatchObject({ numPassedTests: 0, numFailedTests: 1, numPendingTests: 0 });
});

test('programs are found on PATH', () => {
  expect(findOnPath('sh')).toMatch(/\/sh$/);
  expect(findOnPath('no-such-program')).toBeUndefined();
});
