import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { repository } from '../../support/run.js';

test('the files that begin first exist', () => {
  const names = JSON.parse(readFileSync(join(repository, 'test', 'support', 'long-tests.json'), 'utf8')) as string[];
  expect(names.filter((name) => !existsSync(join(repository, 'test', `${name}.test.ts`)))).toEqual([]);
});
