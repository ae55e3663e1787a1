/** src/DEPS.json says which room may import which; here it is held to be true, complete and no wider than needed. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { repository } from '../support/run.js';
import { importedPath, importsOf, sourcesIn, type SourceFile } from '../support/sources.js';

const rules = JSON.parse(readFileSync(join(repository, 'src', 'DEPS.json'), 'utf8')) as Readonly<Record<string, readonly string[]>>;
const sources = sourcesIn('src');

/** `format` of `src/format/qcow2/x.ts`, undefined for a file at the root of src. */
function roomOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1];
}

function relativeImports(file: SourceFile): string[] {
  return importsOf(file.text).map(({ specifier }) => importedPath(file.path, specifier)).filter((path) => path !== undefined);
}

/** `from → to` of every import between rooms. */
function edges(): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const file of sources) {
    const from = roomOf(file.path);
    for (const path of from === undefined ? [] : relativeImports(file)) {
      const to = roomOf(path) ?? 'the root of src';
      if (to !== from) found.set(`${from} → ${to}`, [...(found.get(`${from} → ${to}`) ?? []), file.path]);
    }
  }
  return found;
}

test('a room imports only rooms that DEPS.json grants it', () => {
  const granted = new Set(Object.entries(rules).flatMap(([from, rooms]) => rooms.map((to) => `${from} → ${to}`)));
  const forbidden = [...edges()].filter(([edge]) => !granted.has(edge)).map(([edge, files]) => `${edge} in ${files.join(', ')}`);
  expect(forbidden).toEqual([]);
});

test('DEPS.json has a rule for every room, and no rule that nothing needs', () => {
  const rooms = readdirSync(join(repository, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  expect(Object.keys(rules).toSorted()).toEqual(rooms.toSorted());
  const used = edges();
  const stale = Object.entries(rules).flatMap(([from, targets]) => targets.map((to) => `${from} → ${to}`)).filter((edge) => !used.has(edge));
  expect(stale).toEqual([]);
});

test.each([
  ['cli', /^(src\/index\.ts|package\.json|cli\/)/],
  ['test/interop', /^(src\/index\.ts|test\/(interop|support)\/)/],
  ['bench', /^(src\/index\.ts|bench\/|test\/support\/)/],
])('%s uses the engine only through src/index.ts', (folder, allowed) => {
  const outside = sourcesIn(folder).flatMap((file) => relativeImports(file).filter((path) => !allowed.test(path)).map((path) => `${file.path} imports ${path}`));
  expect(outside).toEqual([]);
});

test('no file imports itself, over whatever detour', () => {
  const files = [...sources, ...sourcesIn('cli')];
  const graph = new Map(files.map((file) => [file.path, importsOf(file.text)
    .filter(({ typeOnly, lazy }) => !typeOnly && !lazy)
    .map(({ specifier }) => importedPath(file.path, specifier)).filter((path) => path !== undefined)]));
  expect(findCycles(graph)).toEqual([]);
});

/** Depth-first; each cycle once, as `a → b → a`. */
function findCycles(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const cycles: string[] = [];
  const finished = new Set<string>();
  const visit = (path: string, trail: readonly string[]): void => {
    const at = trail.indexOf(path);
    if (at >= 0) cycles.push([...trail.slice(at), path].join(' → '));
    if (at >= 0 || finished.has(path)) return;
    for (const next of graph.get(path) ?? []) visit(next, [...trail, path]);
    finished.add(path);
  };
  for (const path of graph.keys()) visit(path, []);
  return cycles;
}

test('cycles are found', () => {
  expect(findCycles(new Map([['a', ['b']], ['b', ['c']], ['c', ['b']]]))).toEqual(['b → c → b']);
});

test('packages of src are dependencies, not devDependencies', () => {
  const { dependencies } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as { dependencies: Record<string, string> };
  // what the page uses is bundled into it
  const shipped = [...sources, ...sourcesIn('cli')].filter(({ path }) => !path.startsWith('src/viewer/web/'));
  const packages = shipped.flatMap((file) => importsOf(file.text).map(({ specifier }) => specifier))
    .filter((specifier) => !specifier.startsWith('.') && !specifier.startsWith('node:'))
    .map((specifier) => specifier.split('/').slice(0, specifier.startsWith('@') ? 2 : 1).join('/'));
  expect([...new Set(packages)].filter((name) => !Object.hasOwn(dependencies, name))).toEqual([]);
});
