/**
 * Builds the package: the CLI bundled into dist/cli (few files, so that it starts fast), the library with its types
 * into dist/lib. Each is made aside and then swapped in, so that a running build never shows half of one.
 *
 *   node build.js              build
 *   node build.js --if-stale   build only where a source is newer than the last build
 *   node build.js --prepare    npm's `prepare`: like --if-stale, and no failure where the devDependencies are missing
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = fileURLToPath(new URL('.', import.meta.url));
const dist = join(root, 'dist');
const stamp = join(dist, '.built');
const SOURCES = ['src', 'cli', 'package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json', 'rolldown.config.js', 'build.js', 'build-ahead.js', 'build-code.cjs', 'build-page.js'];

function newestChange(path) {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return 0;
  if (!stat.isDirectory()) return stat.mtimeMs;
  const inside = readdirSync(path).map((name) => newestChange(join(path, name)));
  // a directory's own time tells of removed files
  return Math.max(stat.mtimeMs, ...inside);
}

/** True where dist is missing or older than a source. */
export function isStale() {
  const built = statSync(stamp, { throwIfNoEntry: false });
  const parts = ['cli/main.cjs', 'cli/trace-page.html', 'cli/nbd.cjs', 'cli/storage-daemon.cjs', 'lib/index.js', 'lib/index.d.ts'];
  if (built === undefined || parts.some((part) => !existsSync(join(dist, part)))) return true;
  return SOURCES.some((source) => newestChange(join(root, source)) > built.mtimeMs);
}

function swapIn(fresh, target) {
  rmSync(target, { recursive: true, force: true });
  renameSync(fresh, target);
}

async function buildCli(fresh) {
  const { rolldown } = await import('rolldown');
  const { default: config } = await import('./rolldown.config.js');
  const { output, ...input } = config;
  const bundle = await rolldown(input);
  await bundle.write({ ...output, dir: fresh });
  await bundle.close();
  const { buildPage } = await import('./build-page.js');
  writeFileSync(join(fresh, 'trace-page.html'), await buildPage());
}

function buildLibrary(fresh) {
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const result = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json', '--outDir', fresh], { cwd: root, stdio: 'inherit' });
  if (result.status !== 0) throw new Error('the library does not compile (see the messages above)');
}

export async function build() {
  const started = new Date();
  mkdirSync(dist, { recursive: true });
  const freshCli = join(dist, `.cli-${process.pid}`);
  const freshLib = join(dist, `.lib-${process.pid}`);
  try {
    await buildCli(freshCli);
    const { compileAhead } = await import('./build-ahead.js');
    await compileAhead(freshCli);
    swapIn(freshCli, join(dist, 'cli'));
    buildLibrary(freshLib);
    swapIn(freshLib, join(dist, 'lib'));
    writeFileSync(stamp, '');
    utimesSync(stamp, started, started);
  } finally {
    for (const fresh of [freshCli, freshLib]) rmSync(fresh, { recursive: true, force: true });
  }
}

function hasBuildTools() {
  return ['rolldown', 'typescript'].every((name) => existsSync(join(root, 'node_modules', name, 'package.json')));
}

async function main(mode) {
  if (!hasBuildTools()) {
    console.error("quiesce: not built, since the devDependencies are not installed; run 'npm ci && npm run build' to build");
    return mode === '--prepare' ? 0 : 1;
  }
  if (mode !== undefined && !isStale()) return 0;
  try {
    await build();
    return 0;
  } catch (error) {
    console.error(`quiesce: the build failed: ${error instanceof Error ? error.message : String(error)}`);
    return 1;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) process.exitCode = await main(process.argv[2]);
