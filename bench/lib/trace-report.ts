/** `trace report` against `blkparse -d` followed by btt: the same numbers and more, of the same files. */
import { join } from 'node:path';
import { Series } from './series.js';
import { timed, timedOurs, type TraceFigures, type TraceSetup } from './trace-bench.js';

const MiB = 1024 * 1024;
const MAX_RSS = 200 * MiB;

export async function benchReport(setup: TraceSetup): Promise<TraceFigures> {
  const { capture, events, rounds, directory } = setup;
  const dump = join(directory, 'report.bin');
  const ours = new Series('ours');
  const theirs = new Series('blkparse, btt');
  let peakRss = 0;
  for (let round = 0; round < rounds; round++) {
    const run = await timedOurs(setup, ['trace', 'report', capture], {});
    peakRss = Math.max(peakRss, run.peakRss);
    ours.add(run.seconds, events);
    // btt leaves files where it stands
    theirs.add(await timed('blkparse', ['-O', '-i', capture, '-d', dump]) + await timed('btt', ['-i', dump, '-o', join(directory, 'btt')], { cwd: directory }), events);
  }
  return {
    rows: [{ what: 'report: findings and numbers', series: [ours, theirs] }],
    targets: [
      { what: 'report / blkparse -d, then btt', value: ours.best / theirs.best, bound: 1, atMost: false, unit: 'x' },
      { what: 'report: peak RSS', value: peakRss / MiB, bound: MAX_RSS / MiB, atMost: true, unit: ' MiB' },
    ],
  };
}
