/** The programs that take part: our command line as a process of its own, and fio. Each call is one timed run. */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { launcher, repository, runOk } from '../../test/support/run.js';

const MiB = 1024 * 1024;

export interface CliRun {
  /** From starting the process to its end: Node's start-up included. */
  readonly seconds: number;
  readonly peakRss: number;
}

export async function timedCli(directory: string, args: readonly string[]): Promise<CliRun> {
  const rssFile = join(directory, 'rss');
  const probe = join(repository, 'bench', 'lib', 'rss-probe.cjs');
  const started = performance.now();
  await runOk(process.execPath, ['-r', probe, launcher, ...args], { env: { QUIESCE_BENCH_RSS: rssFile }, timeoutMs: 300_000 });
  const seconds = (performance.now() - started) / 1000;
  return { seconds, peakRss: Number(readFileSync(rssFile, 'utf8')) * 1024 };
}

/**
 * Sequential 1 MiB requests: writes 8 deep into a fresh file, as ours go into one, or reads one at a time. Seconds by
 * fio's own clock: the I/O and the final fsync, nothing else.
 */
export async function timedFio(file: string, bytes: number, direction: 'write' | 'read', direct: boolean): Promise<number> {
  if (direction === 'write') rmSync(file, { force: true });
  const how = direction === 'write' ? ['--ioengine=libaio', '--iodepth=8', '--end_fsync=1'] : ['--ioengine=psync', '--invalidate=1'];
  const output = await runOk('fio', ['--name=limit', `--filename=${file}`, `--size=${Math.floor(bytes / MiB)}m`, '--bs=1m', `--rw=${direction}`,
    `--direct=${direct ? 1 : 0}`, '--output-format=json', ...how], { timeoutMs: 300_000 });
  const report = JSON.parse(output.slice(output.indexOf('{'))) as { jobs: [Record<'read' | 'write', { bw_bytes: number; io_bytes: number }>] };
  const { bw_bytes: rate, io_bytes: done } = report.jobs[0][direction];
  return done / rate;
}

/** Drops a file's pages from the page cache, so that a read comes from the disk. */
export async function dropCache(file: string): Promise<void> {
  await runOk('dd', [`if=${file}`, 'iflag=nocache', 'count=0', 'status=none']);
}
