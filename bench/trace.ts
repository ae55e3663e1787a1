/**
 * Traces: what recording costs, and reading them against blktrace's own tools, on a synthetic capture. All peers take turns.
 *
 *   npm run bench -- trace [--events N] [--rounds N] [--only NAME] [--check]
 *
 * `--check` fails if a target is missed.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { repository } from '../test/support/run.js';
import { met, type Target } from './lib/series.js';
import type { TraceBench, TraceRow, TraceSetup } from './lib/trace-bench.js';
import { writeCapture } from './lib/trace-capture.js';
import { benchParse } from './lib/trace-parse.js';
import { benchRecord } from './lib/trace-record.js';
import { benchReport } from './lib/trace-report.js';
import { benchWeb } from './lib/trace-web.js';

const BENCHES: Readonly<Record<string, TraceBench>> = { record: benchRecord, parse: benchParse, report: benchReport, web: benchWeb };

function printRow({ what, series }: TraceRow): void {
  const best = series[0]!.best;
  for (const one of series) {
    const ratio = one === series[0] ? '' : `${(best / one.best).toFixed(2)}x`;
    console.log(`${what.padEnd(36)}${one.name.padEnd(20)}${(one.best / 1e6).toFixed(2).padStart(10)}${(one.median / 1e6).toFixed(2).padStart(10)}${ratio.padStart(9)}`);
  }
}

function printTarget(target: Target): void {
  const bound = `${target.atMost ? '<=' : '>='} ${target.bound}${target.unit}`;
  console.log(`  ${target.what.padEnd(54)}${`${target.value.toFixed(2)}${target.unit}`.padStart(12)}  ${bound.padEnd(12)} ${met(target) ? 'met' : 'MISSED'}`);
}

const { values } = parseArgs({ options: {
  events: { type: 'string', default: '2000000' }, rounds: { type: 'string', default: '3' }, only: { type: 'string' }, check: { type: 'boolean', default: false },
  json: { type: 'string', default: join(repository, 'bench', 'results', 'trace.json') },
} });
const directory = mkdtempSync('/dev/shm/quiesce-trace-');
try {
  const setup: TraceSetup = { directory, capture: join(directory, 'capture'), events: Number(values.events), rounds: Number(values.rounds) };
  writeCapture(setup.capture, setup.events);
  console.log(`${setup.events} events`.padEnd(56) + 'best M/s'.padStart(10) + 'median'.padStart(10) + 'ours'.padStart(9));
  const rows: TraceRow[] = [];
  const targets: Target[] = [];
  for (const [name, bench] of Object.entries(BENCHES)) {
    if (values.only !== undefined && values.only !== name) continue;
    const figures = await bench(setup);
    figures.rows.forEach(printRow);
    rows.push(...figures.rows);
    targets.push(...figures.targets);
  }
  console.log('\ntargets');
  targets.forEach(printTarget);
  mkdirSync(dirname(values.json), { recursive: true });
  writeFileSync(values.json, `${JSON.stringify({
    node: process.version, events: setup.events, rounds: setup.rounds,
    rows: rows.map(({ what, series }) => ({ what, series: series.map(({ name, best, median }) => ({ name, bestEventsPerSecond: best, medianEventsPerSecond: median })) })),
    targets: targets.map((target) => ({ ...target, met: met(target) })),
  }, null, 2)}\n`);
  if (values.check && !targets.every(met)) process.exitCode = 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}
