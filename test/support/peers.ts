/** Tests against other programs: run where the programs are, visibly skipped where not, failing in CI. */
import { describe, test } from '@jest/globals';
import { findOnPath } from './on-path.js';

export { findOnPath };

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
