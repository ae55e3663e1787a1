/** House rules that the linter does not know. It keeps the lengths of files and functions, and forbids `any` and cycles. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { repository } from '../support/run.js';
import { codeOnly, matches, sourcesIn } from '../support/sources.js';

const src = sourcesIn('src');
const cli = sourcesIn('cli');
const tests = [...sourcesIn('test'), ...sourcesIn('bench')];
const everything = [...src, ...cli, ...tests];
const whole = (text: string): string => text;
/** An offset, in a name that ends so: bit operators would cut it to 32 bits. */
const BIT_ON_OFFSET = /(?:[oO]ffset|[bB]ytes|[pP]osition|[sS]ize|[lL]ength)\s*(?:>>>?|<<|\|(?!\|)|&(?!&)|\^)=?\s*[\w(]/;

describe('in code', () => {
  test('only cli/end ends the process', () => {
    expect(matches([...src, ...cli].filter(({ path }) => path !== 'cli/end.mts'), /process\.exit\(/)).toEqual([]);
  });

  test('the library never prints', () => {
    expect(matches(src, /\bconsole\.|process\.std(out|err)\b/)).toEqual([]);
  });

  test('no deprecated Buffer constructor', () => {
    expect(matches(everything, /\bBuffer\(/)).toEqual([]);
  });

  test('no `any` in src and cli', () => {
    expect(matches([...src, ...cli], /(?::|\bas|<)\s*any\b/)).toEqual([]);
  });

  test('no bit operator touches an offset or a length', () => {
    expect(matches([...src, ...cli], BIT_ON_OFFSET)).toEqual([]);
  });

  test('time and chance come in as parameters', () => {
    const allowed = new Set(['src/base/clock.ts']);
    expect(matches(src.filter(({ path }) => !allowed.has(path)), /\bMath\.random\(|\bDate\.now\(|new Date\(\)/)).toEqual([]);
  });

  test('no test is alone', () => {
    expect(matches(tests, /\b(?:test|it|describe)\.only\(/)).toEqual([]);
  });
});

test('nothing is left for later', () => {
  const marker = new RegExp(`\\b(?:${['TO_DO', 'FIX_ME', 'X_XX', 'HA_CK'].join('|').replaceAll('_', '')})\\b`);
  expect(matches(everything, marker, whole)).toEqual([]);
});

test('the heuristic for offsets knows what it looks for', () => {
  const bad = ['hostOffset >>> 9', 'offset & 511', 'bytes | 1', 'this.position << 3', 'clusterSize >> shift'];
  const good = ['offset >= end', 'offset || other', 'bytes && more', 'offset / 512', 'index >>> 3', 'offset: number | null'];
  expect(bad.filter((line) => !BIT_ON_OFFSET.test(line))).toEqual([]);
  expect(good.filter((line) => BIT_ON_OFFSET.test(line))).toEqual([]);
});

test('comments and strings are no code', () => {
  expect(codeOnly("a('console.log'); // console.log\n/* any\n */ b").replaceAll(' ', '')).toBe("a('');\n\nb");
});

test('no path of one machine and no registry is in a file of the package', () => {
  const lock = readFileSync(join(repository, 'package-lock.json'), 'utf8');
  expect(lock).not.toMatch(/"resolved"/);
  // tests may make up paths; what ships may not hold any
  expect(matches([...src, ...cli], /\/(?:home|root|Users)\/|https?:\/\/registry\./, whole)).toEqual([]);
});

test('the lock file names every optional package, also where the registry at hand lacks those of other platforms', () => {
  const { packages } = JSON.parse(readFileSync(join(repository, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { readonly optionalDependencies?: Readonly<Record<string, string>> }>;
  };
  const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) => Object.keys(optionalDependencies)
    .filter((name) => !Object.hasOwn(packages, `${path}/node_modules/${name}`) && !Object.hasOwn(packages, `node_modules/${name}`)));
  // `npm ci` refuses such a lock file on every machine
  expect(missing).toEqual([]);
});
