/**
 * `npm run sim:jobs -- models|cuts [--kind K] [--seeds N] [--from S] [--seconds T]`: random runs of block jobs under guests
 * (`test/support/job-model`), or with power cuts (`job-cuts`). `--seed S` replays one. Stops after so many seeds, or after
 * so many seconds if that is earlier. What fails is printed with its kind and seed.
 */
import { parseArgs } from 'node:util';
import { messageOf } from '../../src/base/errors.js';
import { MODEL_KINDS, runJobModel } from '../support/job-model.js';
import { CUT_KINDS, runJobCut } from './job-cuts.js';

const OPTIONS = {
  kind: { type: 'string' },
  seeds: { type: 'string', default: '1000000' },
  from: { type: 'string', default: '1' },
  seed: { type: 'string' },
  seconds: { type: 'string', default: '60' },
} as const;

/** What takes longer is told: it may have come near to hanging. */
const SLOW_MS = 15_000;

/** Runs one seed of a kind; resolves with what it came to. */
type Run = (kind: string, seed: number) => Promise<string>;

const RUNS: Readonly<Record<string, { readonly kinds: readonly string[]; readonly run: Run }>> = {
  models: { kinds: MODEL_KINDS, run: (kind, seed) => runJobModel(kind as (typeof MODEL_KINDS)[number], seed) },
  cuts: {
    kinds: CUT_KINDS,
    run: async (kind, seed) => {
      const { cut, pivoted, flushes } = await runJobCut(kind as (typeof CUT_KINDS)[number], seed);
      return `${cut ? 'cut' : 'whole'}${pivoted ? ' after the pivot' : ''}${flushes > 0 ? '' : ', nothing flushed'}`;
    },
  },
};

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true });
  const chosen = RUNS[positionals[0] ?? 'models'];
  if (chosen === undefined) throw new Error(`give one of ${Object.keys(RUNS).join(', ')}`);
  const kinds = values.kind === undefined ? chosen.kinds : [values.kind];
  const first = Number(values.seed ?? values.from);
  const end = first + (values.seed === undefined ? Number(values.seeds) : 1);
  const deadline = performance.now() + Number(values.seconds) * 1000;
  const outcomes = new Map<string, number>();
  let failed = 0;
  let seed = first;
  for (; seed < end && performance.now() < deadline; seed++) {
    for (const kind of kinds) {
      const began = performance.now();
      try {
        const outcome = `${kind}: ${await chosen.run(kind, seed)}`;
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      } catch (error) {
        failed++;
        console.error(messageOf(error));
      }
      if (performance.now() - began > SLOW_MS) console.error(`${kind}, seed ${seed} took ${Math.round(performance.now() - began)} ms`);
    }
  }
  console.log([...outcomes].toSorted(([a], [b]) => a.localeCompare(b)).map(([outcome, count]) => `${outcome} ${count}`).join('\n'));
  console.log(`${seed - first} seeds from ${first} on, ${kinds.length} kinds: ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

process.exitCode = await main();
