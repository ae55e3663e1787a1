/** What the documents promise exists: every `npm run` script, every command, and every path of the repository they name. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { COMMANDS } from '../../cli/commands.mjs';
import { repository } from '../support/run.js';

const documents = ['README.md', 'ARCHITECTURE.md'];
const { scripts } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as { scripts: Record<string, string> };

function commandExists(group: string, verb: string | undefined): boolean {
  return Object.hasOwn(COMMANDS, group) || (verb !== undefined && Object.hasOwn(COMMANDS, `${group} ${verb}`));
}

describe.each(documents)('%s', (name) => {
  const text = existsSync(join(repository, name)) ? readFileSync(join(repository, name), 'utf8') : '';

  test('exists', () => {
    expect(text).not.toBe('');
  });

  test('names only scripts that package.json has', () => {
    const named = [...text.matchAll(/npm run ([\w-]+)/g)].map((match) => match[1]!);
    expect(named.filter((script) => !Object.hasOwn(scripts, script))).toEqual([]);
  });

  test('names only benchmarks that bench/ has', () => {
    const named = [...text.matchAll(/npm run bench -- ([a-z][\w-]*)/g)].map((match) => match[1]!);
    expect(named.filter((bench) => !existsSync(join(repository, 'bench', `${bench}.ts`)))).toEqual([]);
  });

  test('shows only commands that exist', () => {
    const shown = [...text.matchAll(/^\s*(?:\$ )?quiesce ([a-z]+)(?: ([a-z]+))?/gm)];
    expect(shown.filter((match) => !commandExists(match[1]!, match[2])).map((match) => match[0])).toEqual([]);
  });

  test('names only files and folders that exist', () => {
    const named = [...text.matchAll(/(?:^|[\s`(])((?:src|cli|test|bench|fixtures|\.ci)\/[\w./-]*)/gm)].map((match) => match[1]!.replace(/[.,:]+$/, ''));
    expect(named.filter((path) => !existsSync(join(repository, path)))).toEqual([]);
  });
});
