/** Tests against other programs: run where the programs are, visibly skipped where not, failing in CI. */
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from '@jest/globals';

type Describe = (title: string, suite: () => void) => void;

/** `peers('qemu-img', 'fio')('title', () => { … })`: `describe` that needs these programs. */
export function peers(...names: string[]): Describe {
  const missing = names.filter((name) => findOnPath(name) === undefined);
  if (missing.length === 0) return (title, suite) => describe(title, suite);
  const what = `needs ${missing.join(', ')}`;
  if (process.env['CI'] !== 'true') return (title, suite) => describe.skip(`${title} [skipped: ${what}]`, suite);
  return (title) => describe(title, () => {
    test(`${what}, and CI=true allows no skips`, () => { throw new Error(`not found on PATH: ${missing.join(', ')}`); });
  });
}

/** Where a program is; system folders count too, since a user's PATH may lack them. */
export function findOnPath(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(':').filter((folder) => folder !== ''), '/usr/sbin', '/sbin'];
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
