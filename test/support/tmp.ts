import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach } from '@jest/globals';

/**
 * A fresh directory for each test of the file (or describe block) that calls this at its top; removed after the test.
 * The function returned gives the path of a name inside.
 */
export function useTmp(): (name?: string) => string {
  let directory: string | null = null;
  afterEach(() => {
    if (directory !== null) rmSync(directory, { recursive: true, force: true });
    directory = null;
  });
  return (name = '') => {
    directory ??= mkdtempSync(join(process.env['QUIESCE_TMP'] ?? tmpdir(), 'quiesce-test-'));
    return join(directory, name);
  };
}
