/** Journaled mirrors whose power is cut or whose process is killed at any step. `SEED=n` replays one, `RUNS=n` tries more. */
import { expect, test } from '@jest/globals';
import { runJournal } from './journal-run.js';

test('what the journal calls equal is equal, and a completed copy has no difference', async () => {
  const only = process.env['SEED'];
  const [first, runs] = only === undefined ? [1, Number(process.env['RUNS'] ?? 12)] : [Number(only), 1];
  const seen = { cuts: 0, resumed: 0, foreign: 0 };
  for (let seed = first; seed < first + runs; seed++) {
    const run = await runJournal(seed).catch((error: unknown) => { throw new Error(`SEED=${seed}: ${String(error)}`, { cause: error }); });
    for (const key of Object.keys(seen) as (keyof typeof seen)[]) seen[key] += run[key];
  }
  if (only !== undefined) return;
  expect(seen.cuts).toBeGreaterThan(runs);
  // a journal that calls everything dirty would pass as well, and be worth nothing
  expect(seen.resumed).toBeGreaterThan(seen.cuts / 10);
  expect(seen.foreign).toBeGreaterThan(runs / 10);
}, 300_000);
