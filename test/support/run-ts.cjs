'use strict';
/**
 * Runs a TypeScript file of this repository: `run-ts.cjs FILE ARGS...`, or `run-ts.cjs FOLDER NAME ARGS...` for one of
 * a folder. CommonJS for the launcher's reason: benchmarks measure with the launcher's thread pool.
 */
process.env.UV_THREADPOOL_SIZE ||= '16';

const { existsSync, readdirSync, rmSync, statSync } = require('node:fs');
const { basename, dirname, join } = require('node:path');
const { pathToFileURL } = require('node:url');

const root = dirname(dirname(__dirname));

function chooseEntry(argv) {
  const path = join(root, argv.shift() ?? '');
  if (!existsSync(path)) throw new Error(`${path} does not exist`);
  if (!statSync(path).isDirectory()) return path;
  const names = readdirSync(path).filter((name) => name.endsWith('.ts')).map((name) => basename(name, '.ts'));
  const name = argv.shift();
  if (name === undefined || !names.includes(name)) throw new Error(`give one of these names: ${names.join(', ')}`);
  return join(path, `${name}.ts`);
}

async function bundle(entry) {
  const { rolldown } = await import('rolldown');
  // beside the build, so that the bundle finds node_modules
  const dir = join(root, 'dist', `.run-${process.pid}`);
  process.on('exit', () => rmSync(dir, { recursive: true, force: true }));
  const built = await rolldown({ input: { main: entry }, cwd: root, platform: 'node', external: /^(?![./])/ });
  await built.write({ dir, format: 'esm', sourcemap: 'inline' });
  await built.close();
  return join(dir, 'main.js');
}

/** Benchmarks start the launcher; all else here runs from its own bundle. */
async function buildIfStale() {
  const { build, isStale } = await import(pathToFileURL(join(root, 'build.js')).href);
  if (isStale()) await build();
}

async function main(argv) {
  const entry = chooseEntry(argv);
  if (entry.startsWith(join(root, 'bench'))) await buildIfStale();
  const bundled = await bundle(entry);
  process.setSourceMapsEnabled(true);
  process.argv = [process.argv[0], entry, ...argv];
  await import(pathToFileURL(bundled).href);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error instanceof Error && process.env.QUIESCE_DEBUG !== '1' ? `quiesce: ${error.message}` : error);
  process.exit(1);
});
