/**
 * `main.ts --seeds N [--from S] [--seed S]`: damaged images; prints each failure, and the slowest case and the memory at
 * the end. The cases run in a process that does nothing else, so that its memory is theirs.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Random } from '../../src/base/clock.js';
import { makeBases, type FuzzBase } from './bases.js';
import { exercise } from './exercise.js';
import { damage } from './mutate.js';

const MAX_CASE_MS = 20_000;
const MAX_RSS_MIB = 256;

async function runSeed(seed: number, bases: readonly FuzzBase[]): Promise<void> {
  const random = new Random(seed);
  const base = random.pick(bases);
  const { image, log } = damage(base, random);
  const started = performance.now();
  globalThis.gc?.(); // what earlier cases left is not this one's
  try {
    await exercise(image);
    const took = performance.now() - started;
    if (took > MAX_CASE_MS) throw new Error(`it took ${took.toFixed(0)} ms`);
  } catch (error) {
    const stack = error instanceof Error ? error.stack ?? error.message : String(error);
    throw new Error(`seed ${seed}, clusters of ${base.clusterSize}: ${stack}\n${log.join('\n')}`, { cause: error });
  }
}

async function runCases(): Promise<number> {
  const { values } = parseArgs({
    options: { seeds: { type: 'string', default: '1000' }, from: { type: 'string', default: '1' }, seed: { type: 'string' } },
  });
  const first = Number(values.seed ?? values.from);
  const count = values.seed === undefined ? Number(values.seeds) : 1;
  const bases = await makeBases();
  console.log(`${(process.memoryUsage().rss / 2 ** 20).toFixed(0)} MiB before the first case`);
  let failed = 0;
  let slowest = 0;
  for (let seed = first; seed < first + count; seed++) {
    const started = performance.now();
    await runSeed(seed, bases).catch((error: unknown) => {
      failed++;
      console.error(error instanceof Error ? error.message : error);
    });
    slowest = Math.max(slowest, performance.now() - started);
    if ((seed - first) % 100 === 99) console.log(`${seed - first + 1} seeds, ${(process.memoryUsage().rss / 2 ** 20).toFixed(0)} MiB`);
  }
  const rss = Number((process.resourceUsage().maxRSS / 1024).toFixed(0));
  if (rss > MAX_RSS_MIB) failed++;
  console.log(`${count} damaged images: ${failed} failed, the slowest took ${slowest.toFixed(0)} ms, peak memory ${rss} MiB`);
  return failed === 0 ? 0 : 1;
}

const CHILD = 'QUIESCE_FUZZ_CASES';

function runApart(): number {
  const self = fileURLToPath(import.meta.url);
  const { status } = spawnSync(process.execPath, ['--expose-gc', self, ...process.argv.slice(2)], { stdio: 'inherit', env: { ...process.env, [CHILD]: '1' } });
  return status ?? 1;
}

process.exitCode = process.env[CHILD] === undefined ? runApart() : await runCases();
