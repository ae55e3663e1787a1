/**
 * What our start-up adds to `node -e 0`. Scripts call us hundreds of times: `--version` and the `image` commands may add
 * 60 ms at most. All commands take turns, so that a busy moment hits them alike; the best of N counts.
 *
 *   npm run bench -- startup [--runs N] [--json]
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { launcher } from '../test/support/run.js';

const LIMIT_MS = 60;

interface Timed {
  readonly name: string;
  readonly argv: readonly string[];
  /** Held to LIMIT_MS; the others are shown to compare. */
  readonly limited: boolean;
}

interface Timing {
  readonly name: string;
  readonly bestMs: number;
  readonly medianMs: number;
  /** Best, less the best of `node -e 0`. */
  readonly addedMs: number;
  readonly limitMs: number | null;
  readonly met: boolean;
}

const BASELINE: Timed = { name: 'node -e 0', argv: ['-e', '0'], limited: false };

function commands(image: string): Timed[] {
  const ours = (limited: boolean, ...args: string[]): Timed => ({ name: `quiesce ${args[0] === 'image' ? args.slice(0, 2).join(' ') : args.join(' ')}`, argv: [launcher, ...args], limited });
  return [
    BASELINE,
    ours(true, '--version'),
    ours(true, 'image', 'create', `${image}.new`, '1M'),
    ours(true, 'image', 'info', image),
    ours(true, 'image', 'check', image),
    ours(true, 'image', 'resize', image, '+1M'),
    ours(true, 'image', 'bitmap', image, 'b', '--add', '--remove'),
    ours(false, '--help'),
    ours(false, 'snapshot', '--help'),
  ];
}

/** Every `image` command is measured: one that is new says here that it is missing. */
function checkComplete(timed: readonly Timed[]): void {
  const help = spawnSync(process.execPath, [launcher, 'image', '--help'], { encoding: 'utf8' }).stdout;
  const missing = [...help.matchAll(/^ +(image \w+) /gm)].map(([, name]) => `quiesce ${name}`).filter((name) => !timed.some((one) => one.name === name));
  if (missing.length > 0) throw new Error(`not measured: ${missing.join(', ')}`);
}

function timeOnce({ name, argv }: Timed): number {
  const started = performance.now();
  const { status, stderr } = spawnSync(process.execPath, argv, { stdio: ['ignore', 'ignore', 'pipe'] });
  const elapsed = performance.now() - started;
  if (status !== 0) throw new Error(`${name} ended with ${status}: ${stderr.toString()}`);
  return elapsed;
}

function measure(timed: readonly Timed[], runs: number): Timing[] {
  const samples = new Map(timed.map((one) => [one, [] as number[]]));
  for (let round = 0; round < runs; round++) for (const one of timed) samples.get(one)!.push(timeOnce(one));
  const baseline = Math.min(...samples.get(BASELINE)!);
  return timed.map((one) => {
    const sorted = samples.get(one)!.sort((a, b) => a - b);
    const addedMs = sorted[0]! - baseline;
    return {
      name: one.name, bestMs: sorted[0]!, medianMs: sorted[Math.floor(sorted.length / 2)]!, addedMs,
      limitMs: one.limited ? LIMIT_MS : null, met: !one.limited || addedMs <= LIMIT_MS,
    };
  });
}

function print(timings: readonly Timing[]): void {
  console.log(`${'command'.padEnd(24)}${'best ms'.padStart(9)}${'median'.padStart(9)}${'added'.padStart(9)}  limit`);
  for (const { name, bestMs, medianMs, addedMs, limitMs, met } of timings) {
    const numbers = [bestMs, medianMs, addedMs].map((ms) => ms.toFixed(1).padStart(9)).join('');
    console.log(`${name.padEnd(24)}${numbers}  ${limitMs === null ? '' : `${limitMs} ${met ? 'met' : 'MISSED'}`}`);
  }
}

const { values } = parseArgs({ options: { runs: { type: 'string', default: '10' }, json: { type: 'boolean', default: false } } });
const directory = mkdtempSync(join(tmpdir(), 'quiesce-startup-'));
try {
  const image = join(directory, 'image.qcow2');
  timeOnce({ name: 'quiesce image create', argv: [launcher, 'image', 'create', image, '1G'], limited: false });
  const timed = commands(image);
  checkComplete(timed);
  const timings = measure(timed, Number(values.runs));
  if (values.json) console.log(JSON.stringify({ node: process.version, runs: Number(values.runs), timings }, null, 2));
  else print(timings);
  if (timings.some(({ met }) => !met)) process.exitCode = 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}
