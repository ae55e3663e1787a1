import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
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
  for (const file of ['launch.cjs', 'package.json']) cpSync(join(repository, 'cli', file), tmp(`cli/${file}`));
  if (source === null) return tmp('cli/quiesce');
  mkdirSync(tmp('dist/cli'), { recursive: true });
  writeFileSync(tmp('package.json'), '{ "type": "module" }');
  writeFileSync(tmp('dist/cli/main.js'), source);
  return tmp('cli/quiesce');
}

test('where nothing is built, one line says how to build', async () => {
  const result = await run(checkoutWith(null), ['--version']);
  expect(result.code).toBe(1);
  expect(result.stderr).toMatch(/^quiesce: not built yet, .*: run 'npm ci && npm run build' in .*\n$/);
});

test('a broken build is one line too', async () => {
  const result = await run(checkoutWith("import 'no-such-package'"), ['--version']);
  expect(result.code).toBe(1);
  expect(result.stderr).toMatch(/^quiesce: .*main\.js cannot be loaded: .*no-such-package.*\n$/);
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
    import { readdir } from 'node:fs/promises';
    const before = (await readdir('/proc/self/task')).length;
    console.log(process.env.UV_THREADPOOL_SIZE, before);`;
  const bare = run(process.execPath, ['-e', "console.log(require('fs').readdirSync('/proc/self/task').length)"]);
  const ours = await runOk(checkoutWith(source), [], { env });
  expect(ours).toBe(`${threads} ${Number((await bare).stdout) + threads}\n`);
});
