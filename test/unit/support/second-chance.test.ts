import { describe, expect, test } from '@jest/globals';
import { filesToRepeat, tally } from '../../support/second-chance.mjs';

const ROOT = '/here/';

/** A report of files, each with what became of its tests; one without tests did not load. */
function reportOf(files: Readonly<Record<string, string>>): { readonly testResults: { name: string; status: string; assertionResults: { status: string }[] }[] } {
  const statuses: Readonly<Record<string, string>> = { p: 'passed', f: 'failed', s: 'pending', t: 'todo' };
  return {
    testResults: Object.entries(files).map(([name, tests]) => ({
      name: ROOT + name, status: tests === '' || tests.includes('f') ? 'failed' : 'passed', assertionResults: Array.from(tests, (letter) => ({ status: statuses[letter]! })),
    })),
  };
}

function run(files: Readonly<Record<string, string>>, ok = Object.values(files).every((tests) => tests !== '' && !tests.includes('f'))): { ok: boolean; report: ReturnType<typeof reportOf> } {
  return { ok, report: reportOf(files) };
}

describe('what is run again', () => {
  test.each<[string, Readonly<Record<string, string>>, readonly string[]]>([
    ['nothing where all passed', { 'test/interop/a.test.ts': 'pp', 'test/unit/b.test.ts': 'p' }, []],
    ['the files against peers that failed, or did not load', { 'test/interop/a.test.ts': 'pf', 'test/interop/b.test.ts': 'p', 'test/suite/c.test.ts': '' }, ['test/interop/a.test.ts', 'test/suite/c.test.ts']],
    ['nothing where a deterministic test failed as well', { 'test/interop/a.test.ts': 'f', 'test/sim/b.test.ts': 'pf' }, []],
    ...['unit', 'sim', 'property', 'fuzz', 'tidy'].map((folder): [string, Readonly<Record<string, string>>, readonly string[]] => [`nothing of test/${folder}`, { [`test/${folder}/interop/a.test.ts`]: 'f' }, []]),
    ['five files', Object.fromEntries([1, 2, 3, 4, 5].map((at) => [`test/interop/${at}`, 'f'])), [1, 2, 3, 4, 5].map((at) => `test/interop/${at}`)],
    ['no six files', Object.fromEntries([1, 2, 3, 4, 5, 6].map((at) => [`test/interop/${at}`, 'f'])), []],
  ])('%s', (_, files, expected) => {
    expect(filesToRepeat(reportOf(files), ROOT)).toEqual(expected);
  });

  test('nothing where the run has no report', () => {
    expect(filesToRepeat(null, ROOT)).toEqual([]);
  });
});

describe('what is counted', () => {
  const first = run({ 'test/unit/a.test.ts': 'pps', 'test/interop/b.test.ts': 'pff', 'test/interop/c.test.ts': '', 'test/interop/d.test.ts': 'pt' });

  test('a single run: all its tests, a file that did not load as one failure', () => {
    expect(tally(first, null, ROOT)).toEqual({ passed: 4, failed: 3, skipped: 2, unsteady: [] });
    expect(tally(run({ 'test/unit/a.test.ts': 'pps' }), null, ROOT)).toEqual({ passed: 2, failed: 0, skipped: 1, unsteady: [] });
  });

  test('a file that passed alone counts as it did there, and is named', () => {
    const again = run({ 'test/interop/b.test.ts': 'ppp', 'test/interop/c.test.ts': 'pps' });
    expect(tally(first, again, ROOT)).toEqual({ passed: 8, failed: 0, skipped: 3, unsteady: ['test/interop/b.test.ts', 'test/interop/c.test.ts'] });
  });

  test('a file that failed again, differently too, counts as it did first', () => {
    const again = run({ 'test/interop/b.test.ts': 'fpp', 'test/interop/c.test.ts': 'p' });
    expect(tally(first, again, ROOT)).toEqual({ passed: 5, failed: 2, skipped: 2, unsteady: ['test/interop/c.test.ts'] });
  });

  test('a file in which nothing was tested the second time has not passed', () => {
    expect(tally(first, run({ 'test/interop/b.test.ts': 'sss' }), ROOT)).toMatchObject({ failed: 3, unsteady: [] });
  });

  test('a second run rescues nothing that did not fail', () => {
    expect(tally(run({ 'test/unit/a.test.ts': 'p' }), run({ 'test/unit/a.test.ts': 'pp' }), ROOT)).toEqual({ passed: 1, failed: 0, skipped: 0, unsteady: [] });
  });

  test('runs that do not say what happened are failures', () => {
    expect(tally({ ok: false, report: null }, null, ROOT)).toEqual({ passed: 0, failed: 1, skipped: 0, unsteady: [] });
    expect(tally(run({ 'test/unit/a.test.ts': 'p' }, false), null, ROOT)).toMatchObject({ passed: 1, failed: 1 });
    expect(tally(first, { ok: false, report: null }, ROOT)).toMatchObject({ failed: 3, unsteady: [] });
    expect(tally(first, run({ 'test/interop/b.test.ts': 'ppp' }, false), ROOT)).toMatchObject({ failed: 3, unsteady: [] });
  });
});
