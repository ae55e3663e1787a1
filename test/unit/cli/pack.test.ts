import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { repository, runOk } from '../../support/run.js';

interface Packed {
  readonly files: readonly { readonly path: string; readonly mode: number }[];
}

test('the package holds what it needs and nothing else', async () => {
  const listing = await runOk('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: repository });
  const report = JSON.parse(listing) as readonly Packed[] | Readonly<Record<string, Packed>>;
  const { files } = Object.values(report)[0]!;
  const paths = files.map(({ path }) => path);
  expect(paths).toEqual(expect.arrayContaining([
    'package.json', 'LICENSE', 'README.md', 'cli/quiesce', 'cli/quiesce-nbd', 'cli/quiesce-storage-daemon', 'cli/launch.cjs', 'cli/compiled.cjs', 'cli/package.json',
    'dist/cli/main.cjs', 'dist/cli/nbd.cjs', 'dist/cli/storage-daemon.cjs', 'dist/cli/trace-page.html', 'dist/lib/index.js', 'dist/lib/index.d.ts',
  ]));
  expect(paths.filter((path) => !/^(package\.json|LICENSE|README\.md|cli\/quiesce(-nbd|-storage-daemon)?|cli\/(launch|compiled)\.cjs|cli\/package\.json|dist\/cli\/.*\.cjs|dist\/cli\/trace-page\.html|dist\/lib\/.*\.(js|d\.ts))$/.test(path))).toEqual([]);
  const launchers = files.filter(({ path }) => path.startsWith('cli/quiesce'));
  expect(launchers.map(({ mode }) => mode % 2)).toEqual([1, 1, 1]);
});

test('what package.json points to is in the package', () => {
  const { bin, exports } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as {
    bin: Record<string, string>; exports: Record<string, Record<string, string> | string>;
  };
  expect(bin).toEqual({
    quiesce: 'cli/quiesce', 'quiesce-nbd': 'cli/quiesce-nbd', 'quiesce-storage-daemon': 'cli/quiesce-storage-daemon',
  });
  expect(exports['.']).toEqual({ types: './dist/lib/index.d.ts', default: './dist/lib/index.js' });
});

test('the compiled library loads by its name', async () => {
  const script = "import('quiesce').then((library) => console.log(library.parseSize('1K', 'x')))";
  expect(await runOk(process.execPath, ['-e', script], { cwd: repository })).toBe('1024\n');
});
