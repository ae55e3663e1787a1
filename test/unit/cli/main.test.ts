import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { COMMANDS } from '../../../cli/commands.mjs';
import { quiesce, repository, run, runOk, type RunResult } from '../../support/run.js';

async function refusal(...args: string[]): Promise<Pick<RunResult, 'code' | 'stdout' | 'stderr'>> {
  const { code, stdout, stderr } = await quiesce(args);
  return { code, stdout, stderr };
}

describe('a wrong command line is one line on standard error and exit code 2', () => {
  test('unknown command', async () => {
    expect(await refusal('completoin')).toEqual({
      code: 2, stdout: '', stderr: "quiesce: unknown command 'completoin' (did you mean 'completion'?) (see quiesce --help)\n",
    });
  });

  test('unknown option', async () => {
    expect(await refusal('--verbose')).toEqual({ code: 2, stdout: '', stderr: "quiesce: unknown option '--verbose' (see quiesce --help)\n" });
  });

  test('unknown option of a command', async () => {
    expect(await refusal('completion', '--shell')).toEqual({
      code: 2, stdout: '', stderr: "quiesce: unknown option '--shell' (see quiesce completion --help)\n",
    });
  });

  test('too many words', async () => {
    expect(await refusal('completion', 'bash')).toEqual({
      code: 2, stdout: '', stderr: "quiesce: unexpected argument 'bash' (see quiesce completion --help)\n",
    });
  });
});

test('help lists every command', async () => {
  const help = await runOk(join(repository, 'cli', 'quiesce'), ['--help']);
  for (const path of Object.keys(COMMANDS)) expect(help).toContain(`  ${path} `);
  expect((await quiesce(['help'])).stdout).toBe(help);
  expect(await quiesce([])).toMatchObject({ code: 2, stdout: '', stderr: help });
});

test.each(Object.keys(COMMANDS))('%s --help teaches by example', async (path) => {
  const { code, stdout } = await quiesce([...path.split(' '), '--help']);
  expect(code).toBe(0);
  expect(stdout).toContain(`Usage: quiesce ${path}`);
  expect(stdout).toContain(`Examples:\n  # `);
  expect((await quiesce(['help', ...path.split(' ')])).stdout).toBe(stdout);
});

test('a reader that stops early is no error', async () => {
  expect(await run('bash', ['-c', `'${join(repository, 'cli', 'quiesce')}' --help | true; echo "\${PIPESTATUS[0]}"`]))
    .toMatchObject({ stdout: '0\n', stderr: '' });
});

test('completion offers commands, and what follows them', async () => {
  expect((await quiesce(['completion'])).stdout).toContain('_quiesce_yargs_completions()');
  expect((await quiesce(['--get-yargs-completions', 'quiesce', 'comp'])).stdout).toBe('completion\n');
  expect((await quiesce(['--get-yargs-completions', 'quiesce', 'job', 'wa'])).stdout).toBe('watch\n');
});

test('`image` commands and the frame do not load yargs', () => {
  const main = readFileSync(join(repository, 'dist', 'cli', 'main.cjs'), 'utf8');
  expect(main).not.toMatch(/require\("(yargs|cli-progress|koffi|fs-extra)/);
  const slow = Object.entries(COMMANDS).filter(([path, entry]) => path.startsWith('image ') && entry.quick !== true);
  expect(slow).toEqual([]);
});
