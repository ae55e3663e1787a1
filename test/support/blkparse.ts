/** blkparse and `quiesce trace parse` side by side. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from '@jest/globals';
import { quiesce, repository, run, type RunResult } from './run.js';

export const captures = join(repository, 'fixtures', 'trace');

/** Runs both with the same arguments in `cwd`; `stdin` is a file. blkparse says nothing on standard error of what it takes. */
export async function bothParse(args: readonly string[], cwd: string, stdin?: string): Promise<{ readonly theirs: RunResult; readonly ours: RunResult }> {
  const input = stdin === undefined ? '' : readFileSync(join(cwd, stdin));
  const [theirs, ours] = await Promise.all([run('blkparse', args, { cwd, input }), quiesce(['trace', 'parse', ...args], { cwd, input })]);
  return { theirs, ours };
}

/** The same bytes, and no complaint from either. */
export async function expectSameText(args: readonly string[], cwd: string, stdin?: string): Promise<string> {
  const { theirs, ours } = await bothParse(args, cwd, stdin);
  expect(ours.stdout).toBe(theirs.stdout);
  expect([theirs.code, theirs.stderr, ours.code, ours.stderr]).toEqual([0, '', 0, '']);
  return ours.stdout;
}
