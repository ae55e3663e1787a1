/** The viewer as one text: where the output is no terminal, and with --once. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { expectRefused, quiesceOk } from '../support/cli.js';
import { repository, run, launcher } from '../support/run.js';

const trace = (name: string): string => join(repository, 'fixtures', 'trace', name);
const UTF8 = { LC_ALL: 'C.UTF-8', COLUMNS: '' };
const look = (args: readonly string[], env: Readonly<Record<string, string>> = UTF8): Promise<string> => quiesceOk(['trace', 'view', ...args], { env });

test('README shows what it prints', async () => {
  const readme = readFileSync(join(repository, 'README.md'), 'utf8');
  const [, name, shown] = /^\$ quiesce trace view --once (\S+)\n(.*?)\n…\n```$/ms.exec(readme)!;
  expect(shown!.split('\n').length).toBeGreaterThan(20);
  expect(await look(['--once', trace(name!)])).toContain(`${shown}\n`);
  expect((await look(['--once', trace(name!)])).startsWith(shown!)).toBe(true);
});

describe('quiesce trace view into a pipe', () => {
  test.each(['qemu-savevm', 'qemuio-rmw', 'synth-mixed'])('%s, as it was kept', async (name) => {
    expect(await look([trace(name)])).toBe(readFileSync(trace(`${name}.view.txt`), 'utf8'));
  });

  test('is ASCII where the locale is no UTF-8, and colours come only when asked for', async () => {
    expect(await look(['--once', trace('synth-mixed')], { LC_ALL: 'C' })).toMatch(/^[ -~\n]*$/);
    expect(await look([trace('synth-mixed'), '--ascii'])).toMatch(/^[ -~\n]*$/);
    expect(await look([trace('synth-mixed'), '--color', 'always'])).toContain('\u001b[0;38;5;');
    expect(await look([trace('synth-mixed'), '--color', 'never'])).not.toContain('\u001b');
  });

  test('obeys COLUMNS', async () => {
    const lines = (await look([trace('synth-mixed')], { ...UTF8, COLUMNS: '80' })).split('\n');
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  test('reads standard input', async () => {
    const input = readFileSync(trace('qemu-savevm.ftrace-stream.bin'));
    const { code, stdout, stderr } = await run(launcher, ['trace', 'view', '-'], { env: UTF8, input });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('standard input  168 requests');
  });

  test('says what is wrong in one line', async () => {
    await expectRefused(['trace', 'view', '/nonexistent/trace'], 'neither a trace');
    await expectRefused(['trace', 'view', join(repository, 'package.json')], 'no trace');
    await expectRefused(['trace', 'view'], 'FILE is missing', 2);
  });
});
