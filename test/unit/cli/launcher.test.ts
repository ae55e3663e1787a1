import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { kill, quiesce, repository, run, runOk, start } from '../../support/run.js';
import { useTmp } from '../../support/tmp.js';

const tmp = useTmp();
const { version } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as { version: string };

test('--version is the version of package.json', async () => {
  expect(await quiesce(['--version'])).toEqual({ code: 0, signal: null, stdout: `${version}\n`, stderr: '' });
});

test('it finds itself through a chain of symlinks, from any folder', async () => {
  mkdirSync(tmp('bin'));
  symlinkSync(repository, tmp('checkout'));
  symlinkSync(join(tmp('checkout'), 'cli', 'quiesce'), tmp('first'));
  symlinkSync('../first', tmp('bin/second'));
  expect(await runOk(tmp('bin/second'), ['--version'], { cwd: tmp('bin') })).toBe(`${version}\n`);
});

/** The launcher in a checkout of its own, whose compiled CLI is `source` (null = not built). */
function checkoutWith(source: string | null): string {
  cpSync(join(repository, 'cli', 'quiesce'), tmp('cli/quiesce'));
  for (const file of ['launch.cjs', 'compiled.cjs', 'package.json']) cpSync(join(repository, 'cli', file), tmp(`cli/${file}`));
  if (source === null) return tmp('cli/quiesce');
  mkdirSync(tmp('dist/cli'), { recursive: true });
  writeFileSync(tmp('dist/cli/main.cjs'), source);
  return tmp('cli/quiesce');
}

test('where nothing is built, one line says how to build', async () => {
  const result = await run(checkoutWith(null), ['--version']);
  expect(result.code).toBe(1);
  expect(result.stderr).toMatch(/^quiesce: not built yet, .*: run 'npm ci && npm run build' in .*\n$/);
});

test('a broken build is one line too', async () => {
  const result = await run(checkoutWith("require('no-such-package')"), ['--version']);
  expect(result.code).toBe(1);
  expect(result.stderr).toMatch(/^quiesce: .*main\.cjs cannot be loaded: .*no-such-package.*\n$/);
});

test('the engine runs in the very process of the launcher: kill -9 ends it', async () => {
  const child = start(checkoutWith('console.log(process.pid, process.ppid); setInterval(() => {}, 1000)'), []);
  const [line] = await once(child.stdout!, 'data') as [Buffer];
  expect(line.toString()).toBe(`${child.pid} ${process.pid}\n`);
  await kill(child, 'SIGKILL');
  expect(child.signalCode).toBe('SIGKILL');
  expect(existsSync(`/proc/${child.pid}`)).toBe(false);
});

test.each([[{}, 16], [{ UV_THREADPOOL_SIZE: '3' }, 3]])('with %j the thread pool has %i threads', async (env, threads) => {
  const source = `
    require('node:fs/promises').readdir('/proc/self/task').then(({ length }) => console.log(process.env.UV_THREADPOOL_SIZE, length));`;
  const bare = run(process.execPath, ['-e', "console.log(require('fs').readdirSync('/proc/self/task').length)"]);
  const ours = await runOk(checkoutWith(source), [], { env });
  expect(ours).toBe(`${threads} ${Number((await bare).stdout) + threads}\n`);
});

/** `image create`, `image info` and `image check` on the image `name`. */
async function createAndCheck(launcher: string, name: string): Promise<string> {
  const made = await runOk(launcher, ['image', 'create', '-f', 'qcow2', tmp(name), '1M']);
  return made.replaceAll(tmp(name), 'IMAGE') + await runOk(launcher, ['image', 'check', tmp(name)]);
}

/** This package in a folder of its own, for a test to spoil what is compiled ahead. */
function copyOfBuild(): { readonly launcher: string; readonly compiled: readonly string[] } {
  for (const part of ['cli', 'dist/cli', 'package.json']) cpSync(join(repository, part), tmp(part), { recursive: true });
  symlinkSync(join(repository, 'node_modules'), tmp('node_modules'));
  const compiled = readdirSync(tmp('dist/cli')).filter((name) => name.endsWith('.code'));
  return { launcher: tmp('cli/quiesce'), compiled: compiled.map((name) => tmp(`dist/cli/${name}`)) };
}

test.each([
  ['--version', '', ['--version']],
  ['snapshot list', '-1000000', ['snapshot', 'list', 'IMAGE']],
  ['snapshot create', '-1000000', ['snapshot', 'create', 'IMAGE', 's']],
])('code compiled ahead is of this Node and its flags, and %s takes it', async (_, kind, command) => {
  const { launcher, compiled } = copyOfBuild();
  await runOk(launcher, ['image', 'create', '-f', 'qcow2', tmp('image'), '1M']);
  expect(compiled).toContain(tmp(`dist/cli/main.cjs.${process.version}-${process.arch}${kind}.code`));
  // as the launcher does where Node keeps no compiled code itself
  const script = `
    const { budgetOf, loadCompiled, optimiseLate } = require(${JSON.stringify(tmp('cli/compiled.cjs'))});
    const rejected = [];
    process.on('exit', () => console.log('\\n' + JSON.stringify(rejected)));
    const budget = optimiseLate(budgetOf('main', process.argv.slice(2)));
    loadCompiled(${JSON.stringify(tmp('dist/cli/main.cjs'))}, { budget, onScript: (file, script) => rejected.push(script.cachedDataRejected) });`;
  const args = command.map((word) => word === 'IMAGE' ? tmp('image') : word);
  const taken = (await runOk(process.execPath, ['-e', script, '--', 'quiesce', ...args])).trim().split('\n').at(-1);
  const rejected = JSON.parse(taken!) as boolean[];
  expect(rejected.length).toBeGreaterThan(0);
  expect(new Set(rejected)).toEqual(new Set([false]));
});

test.each([
  ['missing', (path: string) => rmSync(path)],
  ['garbage', (path: string) => writeFileSync(path, randomBytes(1000))],
  ['empty', (path: string) => writeFileSync(path, '')],
  ['cut off', (path: string) => truncateSync(path, statSync(path).size - 100)],
])('code compiled ahead that is %s changes nothing', async (_what, spoil) => {
  const { launcher, compiled } = copyOfBuild();
  const expected = await createAndCheck(launcher, 'expected');
  compiled.forEach(spoil);
  expect(await createAndCheck(launcher, 'spoilt')).toBe(expected);
});
