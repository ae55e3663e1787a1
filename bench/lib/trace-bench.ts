/** What the measurements of `bench/trace` have in common. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { launcher, repository } from '../../test/support/run.js';
import type { Series, Target } from './series.js';

export interface TraceSetup {
  /** For whatever a measurement writes; its own. */
  readonly directory: string;
  /** NAME of `NAME.blktrace.0`, …, in memory. */
  readonly capture: string;
  readonly events: number;
  readonly rounds: number;
}

export interface TraceRow {
  readonly what: string;
  /** Ours first; amounts are events. */
  readonly series: readonly Series[];
}

export interface TraceFigures {
  readonly rows: readonly TraceRow[];
  readonly targets: readonly Target[];
}

export type TraceBench = (setup: TraceSetup) => Promise<TraceFigures>;

export interface TimedRun {
  readonly seconds: number;
  /** Bytes; of our processes only, else 0. */
  readonly peakRss: number;
}

/** From start to end of a process whose output goes nowhere (or to `stdout`); `stdin` is a file. */
export async function timed(command: string, args: readonly string[], files: { readonly stdin?: string; readonly stdout?: string; readonly cwd?: string } = {}, env: Readonly<Record<string, string>> = {}): Promise<number> {
  const stdin = openSync(files.stdin ?? '/dev/null', 'r');
  const stdout = openSync(files.stdout ?? '/dev/null', 'w');
  try {
    const started = performance.now();
    const child = spawn(command, args, { cwd: files.cwd, stdio: [stdin, stdout, 'inherit'], env: { ...process.env, ...env } });
    const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve));
    const seconds = (performance.now() - started) / 1000;
    if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}`);
    return seconds;
  } finally {
    closeSync(stdin);
    closeSync(stdout);
  }
}

/** The same of our command line. */
export async function timedOurs(setup: TraceSetup, args: readonly string[], files: { readonly stdin?: string; readonly stdout?: string } = {}): Promise<TimedRun> {
  const rss = join(setup.directory, 'rss');
  const probe = join(repository, 'bench', 'lib', 'rss-probe.cjs');
  const seconds = await timed(process.execPath, ['-r', probe, launcher, ...args], files, { QUIESCE_BENCH_RSS: rss });
  return { seconds, peakRss: Number(readFileSync(rss, 'utf8')) * 1024 };
}
