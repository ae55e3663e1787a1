/** `trace parse` against blkparse: text of the whole capture, from files and from a stream. */
import { join } from 'node:path';
import { Series } from './series.js';
import { timed, timedOurs, type TraceFigures, type TraceSetup } from './trace-bench.js';

const MiB = 1024 * 1024;
const MAX_RSS = 200 * MiB;

export async function benchParse(setup: TraceSetup): Promise<TraceFigures> {
  const { capture, events, rounds, directory } = setup;
  const dump = join(directory, 'all.bin');
  await timed('blkparse', ['-O', '-i', capture, '-d', dump]);
  const ways = [
    { what: 'text to standard output', args: [capture], blkparse: ['-i', capture], files: {} },
    { what: 'text to a file', args: [capture, '-o', '/dev/null'], blkparse: ['-i', capture, '-o', '/dev/null'], files: {} },
    { what: 'with waits and processes', args: [capture, '-t', '-s'], blkparse: ['-i', capture, '-t', '-s'], files: {} },
    { what: 'text of a stream', args: ['-'], blkparse: ['-i', '-'], files: { stdin: dump } },
  ].map(({ what, args, blkparse, files }) => ({ what, args, blkparse, files, ours: new Series('ours'), theirs: new Series('blkparse') }));
  let peakRss = 0;
  for (let round = 0; round < rounds; round++) {
    for (const { args, blkparse, files, ours, theirs } of ways) {
      const run = await timedOurs(setup, ['trace', 'parse', ...args], files);
      peakRss = Math.max(peakRss, run.peakRss);
      ours.add(run.seconds, events);
      theirs.add(await timed('blkparse', blkparse, files), events);
    }
  }
  return {
    rows: ways.map(({ what, ours, theirs }) => ({ what: `parse: ${what}`, series: [ours, theirs] })),
    targets: [
      ...ways.map(({ what, ours, theirs }) => ({ what: `parse / blkparse: ${what}`, value: ours.best / theirs.best, bound: 1, atMost: false, unit: 'x' })),
      { what: 'parse: peak RSS', value: peakRss / MiB, bound: MAX_RSS / MiB, atMost: true, unit: ' MiB' },
    ],
  };
}
