/** The repository's own files, for the tests that keep it tidy. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { repository } from './run.js';

export interface SourceFile {
  /** From the repository's root, with `/`. */
  readonly path: string;
  readonly text: string;
}

const SOURCE = /\.(m?ts|m?js|cjs)$/;

/** Source files below a folder of the repository. */
export function sourcesIn(folder: string): SourceFile[] {
  return readdirSync(join(repository, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && SOURCE.test(entry.name))
    .map((entry) => relative(repository, join(entry.parentPath, entry.name)))
    .map((path) => ({ path, text: readFileSync(join(repository, path), 'utf8') }));
}

/** The text with comments and the insides of strings blanked, lines kept: what a rule about code may look at. */
export function codeOnly(text: string): string {
  const token = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"/g;
  return text.replace(token, (found) => (found.startsWith('/') ? found.replace(/[^\n]/g, ' ') : `''`));
}

export interface Import {
  /** `./driver.js`, `node:fs`, … */
  readonly specifier: string;
  /** Only types: gone when the program runs. */
  readonly typeOnly: boolean;
  /** `import()`: loaded when it is reached. */
  readonly lazy: boolean;
}

const STATIC = /^\s*(?:import|export)\s+(type\s+)?(?:[\w*\s{},$]+?\s+from\s+)?'([^']+)'/gm;
const LAZY = /\bimport\(\s*'([^']+)'\s*\)/g;

export function importsOf(text: string): Import[] {
  const statics = [...text.matchAll(STATIC)].map((match) => ({ specifier: match[2]!, typeOnly: match[1] !== undefined, lazy: false }));
  const lazies = [...text.matchAll(LAZY)].map((match) => ({ specifier: match[1]!, typeOnly: false, lazy: true }));
  return [...statics, ...lazies];
}

/** The file that a relative import means, from the repository's root; undefined for packages and built-ins. */
export function importedPath(from: string, specifier: string): string | undefined {
  if (!specifier.startsWith('.')) return undefined;
  return relative('/', join('/', from, '..', specifier)).replace(/\.(m?)js$/, '.$1ts');
}

/** `path:line: text` of each line of code that matches. */
export function matches(files: readonly SourceFile[], pattern: RegExp, view: (text: string) => string = codeOnly): string[] {
  return files.flatMap(({ path, text }) => view(text).split('\n').flatMap((line, index) => (
    pattern.test(line) ? [`${path}:${index + 1}: ${text.split('\n')[index]!.trim()}`] : []
  )));
}
