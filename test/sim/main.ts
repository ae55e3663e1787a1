/**
 * `npm run sim -- --seeds N [--from S]` runs N seeds of the crash simulator, `--seed S` replays one. `--qemu` asks QEMU
 * about every image, `--every K` takes only each K-th seed. A failure is printed with its seed, step and log.
 */
import { parseArgs } from 'node:util';
import { messageOf } from '../../src/base/errors.js';
import { CrashRun } from './crash-run.js';
import { expectQemuReads, expectQemuRepairs } from './qemu-judge.js';

const OPTIONS = {
  seeds: { type: 'string', default: '1000' },
  from: { type: 'string', default: '1' },
  seed: { type: 'string' },
  every: { type: 'string', default: '1' },
  qemu: { type: 'boolean', default: false },
} as const;

async function main(): Promise<number> {
  const { values } = parseArgs({ options: OPTIONS });
  const first = Number(values.seed ?? values.from);
  const count = values.seed === undefined ? Number(values.seeds) : 1;
  const hooks = values.qemu ? { onSurvivor: expectQemuRepairs, onVerified: expectQemuReads } : {};
  const started = performance.now();
  let done = 0;
  let failed = 0;
  for (let seed = first; seed < first + count; seed += Number(values.every)) {
    try {
      await new CrashRun(seed, hooks).run();
    } catch (error) {
      failed++;
      console.error(messageOf(error));
    }
    if (++done % 1000 === 0) console.log(`${done} seeds, ${failed} failed`);
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`${done} seeds from ${first} on: ${failed} failed, ${seconds} s`);
  return failed === 0 && done > 0 ? 0 : 1;
}

process.exitCode = await main();
